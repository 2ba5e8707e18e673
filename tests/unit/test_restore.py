"""What a restore makes of a job, what is said of changes and differences, and when a keyframe is due by count."""

from datetime import timedelta

import pytest
from msgspec.structs import replace

from actorstate.core import codec
from actorstate.core.actor import KEYFRAME_AFTER_CHANGES
from actorstate.core.history import MAX_SUMMARY, differences, entry
from actorstate.core.job import decide
from actorstate.core.ledger import Entry
from actorstate.core.messages.document import Track
from actorstate.core.messages.replies import Change, JobRestored
from actorstate.core.messages.requests import Counts, ErrorReport, Report, RestoreJob
from actorstate.core.replay import Replay
from actorstate.errors import BadMessage, CorruptJob, IllegalTransition
from tests.support.core import EPOCH, JOB, START, a_job, begun, changed, counted, report


def test_a_job_is_restored_from_a_former_one_of_its_name() -> None:
    former = replace(a_job(), created_at=START - timedelta(days=1))
    with pytest.raises(IllegalTransition):
        decide(a_job(), JobRestored(JOB, former))
    assert decide(a_job(), JobRestored(JOB, a_job()))


def test_a_restore_that_nobody_has_made_ready_is_stored() -> None:
    rehearsal = begun("w")
    with pytest.raises(BadMessage):
        rehearsal.propose(rehearsal.request(RestoreJob(JOB, 1)))


def test_a_restored_track_belongs_to_a_worker_that_is_gone() -> None:
    old = a_job(tracks={"t": Track(7, 5, worker="w", incarnation=1)})
    back = changed(a_job(incarnations=9), JobRestored(JOB, old))
    assert back.tracks == {"t": Track(7, 5)}
    assert (back.incarnations, back.workers, back.health) == (9, {}, None)


def test_a_replay_makes_something_else_of_a_restore() -> None:
    rehearsal = begun("w")
    past = rehearsal.say(counted(3))
    rehearsal.say(counted(4), report(checkpoints={"a": b"\x01"}))
    rehearsal.seconds += 1
    found = Entry(JobRestored(JOB, past, "ann"))
    rehearsal.actor.propose(rehearsal.request(RestoreJob(JOB, 3)), rehearsal.now, EPOCH, entry=found)
    rehearsal.commit()
    assert (rehearsal.document.status, rehearsal.document.progress) == ("paused", past.progress)
    assert rehearsal.shelf.restored().encoded() == rehearsal.actor.encoded()


def test_speed_is_measured_across_a_restore() -> None:
    rehearsal = begun("w")
    for _ in range(9):
        rehearsal.say(counted(100))
    fast = rehearsal.document
    assert fast.rate.per_s
    back = changed(fast, JobRestored(JOB, a_job()))
    assert (back.rate.per_s, back.rate.samples, back.rate.eta) == (None, (), None)
    assert back.rate.active_s >= fast.rate.active_s


def test_a_replay_of_small_changes_has_no_end() -> None:
    """The keyframe is large, so by bytes the next one would be due after very many of them."""
    rehearsal = begun("w")
    rehearsal.say(report(checkpoints={str(n): bytes(200_000) for n in range(5)}))
    assert rehearsal.shelf.keyframe is not None
    longest = 0
    for _ in range(2 * KEYFRAME_AFTER_CHANGES + 10):
        rehearsal.say(counted(1))
        longest = max(longest, len(rehearsal.shelf.changes))
    assert longest < KEYFRAME_AFTER_CHANGES
    rehearsal.restart()
    for _ in range(KEYFRAME_AFTER_CHANGES):
        rehearsal.say(counted(1))
    assert len(rehearsal.shelf.changes) < KEYFRAME_AFTER_CHANGES


def test_a_replay_skips_a_change() -> None:
    replay = Replay(JOB)
    with pytest.raises(CorruptJob, match="revision 3 follows 0"):
        replay.follow(codec.encode(Change(3, EPOCH, START, counted(1))))
    with pytest.raises(CorruptJob, match="revision 1"):
        replay.follow(b"\xc1")


def test_a_summary_has_no_bound() -> None:
    errors = tuple(ErrorReport(f"row-{n}", "x" * 2_000) for n in range(50))
    told = entry(Change(9, EPOCH, START, Report(JOB, "w", 1, counts=Counts(failed=50), errors=errors)))
    assert len(told.summary) == MAX_SUMMARY
    assert told.summary.startswith("+50 failed, row-0: xxx")


def test_a_difference_is_told_where_there_is_none() -> None:
    job = a_job(packed_meta={"bad": b"\xc1", "good": b"\x81\xa1a\x01"})
    assert differences(job, replace(job, revision=99)) == ()
    other = replace(job, packed_meta={"bad": b"\xc1\xc1", "good": b"\x81\xa1a\x02"})
    found = {one.path: (one.old, one.new) for one in differences(job, other)}
    assert found == {"meta.bad": (b"\xc1", b"\xc1\xc1"), "meta.good.a": (1, 2)}
