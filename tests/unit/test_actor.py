"""One actor: what is proposed is not yet true, what is aborted never was, and what is stored comes back the same."""

import pytest

from actorstate.core import codec
from actorstate.core.actor import KEYFRAME_AFTER_BYTES, KEYFRAME_RATIO, Actor
from actorstate.core.messages.payload import pack
from actorstate.core.messages.replies import Applied
from actorstate.core.messages.requests import (
    MAX_COUNT,
    Ask,
    Body,
    Counts,
    CreateJob,
    DeleteJob,
    FinishJob,
    Get,
    Heartbeat,
    ListJobs,
    Report,
)
from actorstate.errors import ActorStateError, BadMessage, CorruptJob, JobFinished, JobNotFound
from tests.support.core import (
    EPOCH,
    JOB,
    P2,
    Rehearsal,
    attach,
    begun,
    behaviour,
    control,
    copied,
    counted,
    judged,
    report,
)


def test_a_reader_sees_what_is_not_committed() -> None:
    rehearsal = begun("w")
    before = rehearsal.actor.encoded()
    rehearsal.propose(rehearsal.request(counted(5)))
    rehearsal.actor.seal(rehearsal.now)
    assert rehearsal.actor.encoded() == before
    assert rehearsal.document.progress.processed == 0
    rehearsal.actor.confirm()
    after = rehearsal.actor.encoded()
    assert after is not None
    assert codec.decode_document(after).progress.processed == 5


def test_a_second_proposal_forgets_the_first() -> None:
    rehearsal = begun("w")
    told = [rehearsal.propose(rehearsal.request(counted(1))) for _ in range(3)]
    assert [applied.revision for applied in told] == [3, 4, 5]
    rehearsal.commit()
    assert rehearsal.document.progress.processed == 3
    assert rehearsal.document.revision == rehearsal.actor.revision == 5


def test_a_failed_commit_leaves_something_behind() -> None:
    rehearsal = begun("w")
    rehearsal.say(report(checkpoints={"c": pack("x" * KEYFRAME_AFTER_BYTES * KEYFRAME_RATIO)}))
    sent = [rehearsal.request(counted(5)), rehearsal.request(FinishJob(JOB, "completed"))]
    before = behaviour(rehearsal.actor, sent, rehearsal.now), rehearsal.actor.revision, rehearsal.actor.order()
    for request in sent:
        rehearsal.propose(request)
    rehearsal.actor.judge(judged("dead"), rehearsal.now, EPOCH)
    assert rehearsal.actor.seal(rehearsal.now) is not None
    rehearsal.actor.abort()
    after = behaviour(rehearsal.actor, sent, rehearsal.now), rehearsal.actor.revision, rehearsal.actor.order()
    assert after == before
    assert rehearsal.actor.seal(rehearsal.now) is None
    assert behaviour(rehearsal.shelf.restored(), sent, rehearsal.now) == before[0]


def test_a_refusal_in_the_middle_of_a_batch_spoils_the_rest() -> None:
    rehearsal = begun("w")
    rehearsal.propose(rehearsal.request(counted(1)))
    rehearsal.propose(rehearsal.request(FinishJob(JOB, "completed")))
    with pytest.raises(JobFinished):
        rehearsal.propose(rehearsal.request(counted(7)))
    rehearsal.commit()
    assert (rehearsal.document.status, rehearsal.document.progress.processed) == ("completed", 1)


def test_a_refused_request_is_staged() -> None:
    actor = Actor(JOB)
    rehearsal = Rehearsal(actor)
    with pytest.raises(JobNotFound):
        rehearsal.propose(rehearsal.request(counted(1)))
    assert actor.staged is None
    assert actor.seal(rehearsal.now) is None
    rehearsal.commit()
    assert actor.document is None
    assert actor.encoded() is None


@pytest.mark.parametrize(
    "body", [Get(JOB), ListJobs(), Ask(), Heartbeat(JOB, "w", 1)], ids=lambda body: type(body).__name__
)
def test_a_read_becomes_a_change(body: Body) -> None:
    rehearsal = begun("w")
    with pytest.raises(BadMessage):
        rehearsal.propose(rehearsal.request(body))
    assert rehearsal.actor.staged is None


def test_a_request_without_effect_raises_the_revision() -> None:
    rehearsal = begun("w")
    before = rehearsal.actor.encoded()
    assert rehearsal.send(rehearsal.request(CreateJob(JOB))).revision == 2
    assert rehearsal.send(rehearsal.request(control("resume"))).revision == 2
    rehearsal.judge(judged("healthy"))
    rehearsal.judge(judged("dead", "stranger"))
    assert rehearsal.actor.encoded() == before


def test_revisions_begin_again_after_a_deletion() -> None:
    rehearsal = begun("w")
    rehearsal.judge(judged("dead"))
    rehearsal.send(rehearsal.request(DeleteJob(JOB)))
    assert rehearsal.actor.document is None
    assert rehearsal.actor.revision == 4
    rehearsal.restart()
    again = rehearsal.send(rehearsal.request(CreateJob(JOB, kind="other")))
    assert again.revision == rehearsal.document.revision == 5


def test_a_deletion_and_a_new_beginning_in_one_commit_mix() -> None:
    rehearsal = begun()
    rehearsal.say(CreateJob(JOB))
    rehearsal.propose(rehearsal.request(DeleteJob(JOB)))
    rehearsal.propose(rehearsal.request(CreateJob(JOB, kind="other", total=7)))
    rehearsal.commit()
    for _ in range(2):
        assert (rehearsal.document.kind, rehearsal.document.revision) == ("other", 3)
        rehearsal.restart()


def test_the_end_of_a_job_is_not_a_keyframe() -> None:
    rehearsal = begun("w")
    earlier = rehearsal.shelf.keyframe
    rehearsal.say(FinishJob(JOB, "completed"))
    last = rehearsal.shelf.keyframe
    assert earlier is None
    assert last is not None
    assert codec.decode_keyframe(last).document == rehearsal.document


def test_keyframes_are_written_at_every_change_or_never() -> None:
    """The document is stored anew when the changes since outweigh it: the cost of a change stays bounded."""
    rehearsal = begun("w")
    rehearsal.say(report(checkpoints={"c": pack("x" * 50_000)}))
    written = changes = frames = 0
    held = 0
    for _ in range(2_000):
        before = rehearsal.shelf.keyframe
        rehearsal.say(counted(1))
        if rehearsal.shelf.keyframe is not before:
            assert rehearsal.shelf.keyframe is not None
            frames += 1
            written += len(rehearsal.shelf.keyframe)
        else:
            changes += len(rehearsal.shelf.changes[-1])
        held = max(held, sum(map(len, rehearsal.shelf.changes)))
    assert 1 <= frames <= 10
    assert written < 10 * changes
    assert held < (KEYFRAME_RATIO + 1) * 55_000 + KEYFRAME_AFTER_BYTES


def test_an_idle_job_is_encoded_for_each_reader() -> None:
    rehearsal = begun("w")
    assert rehearsal.actor.encoded() is rehearsal.actor.encoded()
    rehearsal.send(rehearsal.request(CreateJob(JOB)))
    assert rehearsal.actor.encoded() is rehearsal.actor.encoded()


def a_story() -> tuple[Rehearsal, list[Report]]:
    """A job with a bit of everything, long enough for keyframes, and reports to come."""
    rehearsal = begun("w", "v")
    rehearsal.say(*(report("v", 2, counts=Counts(1, 1, by_category={f"c{n % 90}": 1})) for n in range(150)))
    rehearsal.say(control("pause"), report(acknowledged="pause"), control("resume"))
    rehearsal.judge(judged("stalled", "v", 2))
    rehearsal.say(report(checkpoints={"c": pack([1])}, phase="x"), attach("x", take_over=True))
    return rehearsal, [report("x", 3, counts=Counts(succeeded=5)), counted(7)]


def test_a_restarted_writer_tells_another_story() -> None:
    rehearsal, later = a_story()
    assert rehearsal.shelf.keyframe is not None
    assert rehearsal.shelf.changes
    resends = [rehearsal.request(body, id=number) for number in (1, 7, 150, 158, 900) for body in later]
    told = behaviour(rehearsal.actor, resends, rehearsal.now)
    assert behaviour(rehearsal.shelf.restored(), resends, rehearsal.now) == told
    assert rehearsal.shelf.restored().document == copied(rehearsal.document)


@pytest.mark.parametrize("lost", [0, 1, 7, -2])
def test_a_gap_in_the_history_is_passed_over(lost: int) -> None:
    rehearsal = begun("w")
    rehearsal.say(*(report(phase=str(n)) for n in range(10)))
    assert rehearsal.shelf.keyframe is None
    del rehearsal.shelf.changes[lost]
    with pytest.raises(CorruptJob, match="revision"):
        rehearsal.restart()


def test_a_gap_behind_the_keyframe_is_passed_over() -> None:
    rehearsal, _ = a_story()
    rehearsal.say(report("x", 3))
    del rehearsal.shelf.changes[0]
    with pytest.raises(CorruptJob, match="revision"):
        rehearsal.restart()


def test_a_change_that_comes_twice_in_the_history_is_applied_twice() -> None:
    rehearsal = begun("w")
    rehearsal.say(counted(5))
    rehearsal.shelf.changes.append(rehearsal.shelf.changes[-1])
    with pytest.raises(CorruptJob):
        rehearsal.restart()


@pytest.mark.parametrize("damage", [b"", b"\xc1", b"\x80", b"\x90", b"\xff" * 40])
def test_a_damaged_keyframe_or_change_is_something_else_than_corrupt(damage: bytes) -> None:
    actor = Actor(JOB)
    with pytest.raises(CorruptJob):
        actor.restore(damage, ())
    with pytest.raises(CorruptJob):
        actor.restore(None, [damage])


def test_sealing_twice_writes_two_keyframes() -> None:
    rehearsal = begun("w")
    rehearsal.propose(rehearsal.request(FinishJob(JOB, "completed")))
    first = rehearsal.actor.seal(rehearsal.now)
    assert first is not None
    frame = first.keyframe
    assert rehearsal.actor.seal(rehearsal.now) is first
    assert first.keyframe is frame


def test_two_producers_in_one_commit_lose_a_receipt() -> None:
    rehearsal = begun("w")
    requests = [rehearsal.request(counted(1), id=50, producer=producer) for producer in (P2, b"3" * 16)]
    told = [rehearsal.propose(request) for request in requests]
    rehearsal.commit()
    rehearsal.restart()
    assert [rehearsal.send(request) for request in requests] == told
    assert isinstance(told[0], Applied)
    assert rehearsal.document.progress.processed == 2


@pytest.mark.parametrize(
    "body",
    [
        report(counts=Counts(by_category={"x": MAX_COUNT})),
        report(error_count=MAX_COUNT),
        report(throttled_s=1.0, throttles=MAX_COUNT),
    ],
    ids=["by_category", "error_count", "throttles"],
)
def test_two_thousand_honest_looking_reports_make_a_job_unreadable(body: Report) -> None:
    rehearsal = begun("w")
    for _ in range(2_100):
        rehearsal.seconds += 1
        try:
            rehearsal.propose(rehearsal.request(body))
        except ActorStateError:
            break
        rehearsal.actor.confirm()
    assert rehearsal.actor.encoded() is not None
