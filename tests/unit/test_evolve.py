"""What accepted changes make of the document."""

from datetime import timedelta

import pytest

from actorstate.core.evolve import MAX_CATEGORIES, evolve
from actorstate.core.messages.document import Control, Document, Intent, Status, Step, Track, order_of
from actorstate.core.messages.payload import pack
from actorstate.core.messages.replies import Change, ChangeBody
from actorstate.core.messages.requests import (
    Counts,
    CreateJob,
    DeleteJob,
    Detach,
    ErrorReport,
    FinishJob,
    Report,
    StepReport,
    TrackPoint,
)
from actorstate.core.reports import MAX_ERRORS
from tests.support.core import (
    EPOCH,
    JOB,
    START,
    a_job,
    a_worker,
    attach,
    begun,
    changed,
    control,
    copied,
    counted,
    judged,
    report,
)


def test_a_new_job_is_not_what_was_asked_for() -> None:
    body = CreateJob(JOB, "orders", 80, "files", {"team": "x"}, {"k": pack([1])})
    job = changed(None, body)
    assert (job.id, job.kind, job.status, job.revision, job.epoch) == (JOB, "orders", "pending", 1, EPOCH)
    assert (job.progress.total, job.progress.unit, job.labels, job.meta) == (80, "files", {"team": "x"}, {"k": [1]})
    assert job.started_at is None
    assert job.created_at == job.updated_at


def test_a_deleted_job_leaves_something() -> None:
    assert evolve(a_job(), Change(4, EPOCH, START, DeleteJob(JOB))) is None
    assert evolve(None, Change(4, EPOCH, START, report())) is None


def test_a_count_goes_to_the_wrong_place() -> None:
    counts = Counts(1, 2, 3, 4, 500, {"a": 2})
    progress = changed(a_job(), report(counts=counts), report(counts=counts)).progress
    assert (progress.succeeded, progress.failed, progress.skipped, progress.duplicates) == (2, 4, 6, 8)
    assert (progress.processed, progress.bytes, progress.by_category) == (20, 1000, {"a": 4})


def test_a_report_without_counts_counts() -> None:
    before = a_job()
    after = changed(before, report(phase="copying"), report(total=5), report())
    assert after.phase == "copying"
    assert after.progress == changed(before, report(total=5)).progress
    assert after.progress.total == 5
    assert after.progress.processed == 0


@pytest.mark.parametrize(
    ("total", "processed", "percent"), [(None, 5, None), (0, 0, 100.0), (4, 1, 25.0), (4, 9, 100.0), (4, 0, 0.0)]
)
def test_the_percentage_lies(total: int | None, processed: int, percent: float | None) -> None:
    job = changed(a_job(), report(total=total, counts=Counts(succeeded=processed)))
    assert job.progress.percent == percent


def failures(*categories: str) -> Report:
    return report(counts=Counts(failed=len(categories), by_category=dict.fromkeys(categories, 1)))


def test_categories_grow_without_end() -> None:
    job = a_job()
    for first in range(0, MAX_CATEGORIES * 3, 50):
        job = changed(job, failures(*(f"c{place}" for place in range(first, first + 50))))
    folded = job.progress.by_category
    assert len(folded) <= MAX_CATEGORIES + 1
    assert sum(folded.values()) == job.progress.failed == 200
    assert folded["other"] == 200 - MAX_CATEGORIES
    assert folded["c0"] == 1


def test_a_known_category_is_folded_when_the_list_is_full() -> None:
    full = changed(a_job(), failures(*(f"c{place}" for place in range(MAX_CATEGORIES))))
    again = changed(full, failures("c0", "new", "newer"))
    assert again.progress.by_category["c0"] == 2
    assert again.progress.by_category["other"] == 2


def errors(*numbers: int) -> Report:
    rows = tuple(ErrorReport(f"row-{number}", "bad", "validation") for number in numbers)
    return report(errors=rows, error_count=len(rows))


def test_the_tail_keeps_the_oldest_errors() -> None:
    job = a_job()
    for first in range(0, 120, 40):
        job = changed(job, errors(*range(first, first + 40)))
    assert [error.key for error in job.errors] == [f"row-{number}" for number in range(120 - MAX_ERRORS, 120)]
    assert job.error_count == 120
    assert job.errors[-1].at == job.updated_at


def test_errors_that_did_not_fit_are_not_counted() -> None:
    job = changed(a_job(), report(errors=errors(1).errors, error_count=700))
    assert (len(job.errors), job.error_count) == (1, 700)


def test_a_step_begins_twice_or_loses_its_place() -> None:
    job = changed(
        a_job(),
        report(steps=(StepReport("copy", "running", pack(1)), StepReport("check", "running"))),
        report(steps=(StepReport("copy", "done"),)),
    )
    copy, check = job.steps
    assert (copy.name, copy.status, copy.data) == ("copy", "done", 1)
    assert copy.ended_at == job.updated_at
    assert copy.started_at == job.updated_at - timedelta(seconds=1)
    assert (check.name, check.status, check.ended_at, check.data) == ("check", "running", None, None)


def test_a_step_that_runs_again_stays_ended() -> None:
    job = changed(
        a_job(), report(steps=(StepReport("copy", "failed", pack("why")), StepReport("copy", "running", pack("retry"))))
    )
    assert job.steps == (Step("copy", "running", job.updated_at, None, pack("retry")),)


def test_a_checkpoint_keeps_an_older_value() -> None:
    job = changed(a_job(), report(checkpoints={"a": pack(1), "b": pack(2)}), report(checkpoints={"a": pack(3)}))
    assert {name: saved.data for name, saved in job.checkpoints.items()} == {"a": 3, "b": 2}
    assert job.checkpoints["a"].revision == job.revision
    assert job.checkpoints["b"].revision == job.revision - 1
    assert job.checkpoints["a"].at == job.updated_at


def test_meta_is_replaced_instead_of_merged() -> None:
    job = changed(a_job(), report(meta={"a": pack(1), "b": pack(2)}), report(meta={"b": pack(None)}))
    assert job.meta == {"a": 1, "b": None}


def test_a_late_report_moves_a_track_back() -> None:
    forth = report(tracks={"t": TrackPoint(20, 10, b"k20", b"k10")})
    back = report(tracks={"t": TrackPoint(15, 12, b"k15", b"k12")})
    track = changed(a_job(), forth, back).tracks["t"]
    assert (track.counted, track.done, track.counted_key, track.done_key) == (20, 12, b"k20", b"k12")


def test_a_track_that_ended_is_held() -> None:
    job = changed(a_job(), report(tracks={"t": TrackPoint(5, 5)}))
    assert (job.tracks["t"].worker, job.tracks["t"].incarnation) == ("w", 1)
    assert changed(job, report(tracks={"t": TrackPoint(6, 6, live=False)})).tracks["t"] == Track(6, 6)


@pytest.mark.parametrize(
    "leave", [Detach(JOB, "w", 1), FinishJob(JOB, "failed", "x", "w", 1)], ids=["detach", "finish"]
)
def test_a_worker_that_left_holds_its_track(leave: ChangeBody) -> None:
    job = changed(a_job(), report(tracks={"t": TrackPoint(5, 4)}), leave)
    assert job.workers == {}
    assert (job.tracks["t"].worker, job.tracks["t"].counted, job.tracks["t"].done) == ("", 5, 4)


def test_leaving_changes_more_than_the_worker() -> None:
    before = changed(a_job(workers={"w": a_worker(), "v": a_worker(2)}), counted(3))
    after = changed(before, Detach(JOB, "w", 1))
    assert set(after.workers) == {"v"}
    assert after.status == "running"
    assert after.progress == before.progress


def test_workers_get_the_same_incarnation() -> None:
    job = changed(a_job(), attach("v"), attach("w"), attach("v", take_over=True))
    assert job.incarnations == 4
    assert {name: worker.incarnation for name, worker in job.workers.items()} == {"v": 4}


def test_taking_over_leaves_the_fenced_workers_attached() -> None:
    crowd = a_job(workers={f"w{place}": a_worker(place) for place in range(1, 4)})
    assert set(changed(crowd, attach("new", take_over=True)).workers) == {"new"}
    dead = a_job(workers={"w": a_worker(health="dead")})
    assert set(changed(dead, attach("new", exclusive=True)).workers) == {"new"}
    assert set(changed(crowd, attach("new")).workers) == {"w1", "w2", "w3", "new"}


def test_an_exclusive_holder_comes_back_from_the_dead_beside_its_successor() -> None:
    stopped = a_job(workers={"w": a_worker(health="dead", exclusive=True)})
    joined = changed(stopped, attach("successor"))
    live_again = {name for name, worker in joined.workers.items() if worker.exclusive}
    assert "w" not in live_again, "both believe that they have the job, and w was promised to have it alone"


def test_the_first_worker_does_not_start_the_job() -> None:
    job = changed(changed(None, CreateJob(JOB)), attach())
    assert job.status == "running"
    assert job.started_at == job.updated_at


@pytest.mark.parametrize("status", ["waiting", "paused"])
def test_attaching_starts_a_job_that_is_held(status: Status) -> None:
    assert changed(a_job(status, workers={}), attach()).status == status


def test_the_end_keeps_workers_or_loses_the_reason() -> None:
    job = changed(a_job(workers={"w": a_worker(), "v": a_worker(2)}), FinishJob(JOB, "failed", "no more disk"))
    assert (job.status, job.reason, job.workers, job.health) == ("failed", "no more disk", {}, None)
    assert job.finished_at == job.updated_at


def worked_by(*health: str) -> Document:
    """A running job whose workers `w1`, `w2` ... have these healths."""
    return a_job(workers={f"w{place}": a_worker(place, health=state) for place, state in enumerate(health, 1)})


def acknowledging(place: int, intent: Intent) -> Report:
    return report(f"w{place}", place, acknowledged=intent)


def state_of(job: Document) -> tuple[str, str]:
    assert job.control is not None
    return job.status, job.control.state


CARRIED_OUT: dict[Intent, Status] = {"pause": "paused", "cancel": "cancelled"}


@pytest.mark.parametrize("intent", ["pause", "cancel"])
@pytest.mark.parametrize("health", [(), ("dead",), ("dead", "dead", "dead")], ids=["none", "a dead one", "dead ones"])
def test_an_intent_waits_for_workers_that_are_not_there(intent: Intent, health: tuple[str, ...]) -> None:
    assert state_of(changed(worked_by(*health), control(intent))) == (CARRIED_OUT[intent], "done")


@pytest.mark.parametrize("intent", ["pause", "cancel"])
@pytest.mark.parametrize("health", [("healthy",), ("late",), ("stalled",), ("dead", "healthy")])
def test_an_intent_is_carried_out_before_the_worker_saved(intent: Intent, health: tuple[str, ...]) -> None:
    asked = changed(worked_by(*health), control(intent))
    assert state_of(asked) == ("running", "requested")
    assert order_of(asked)[0] == intent
    assert state_of(changed(asked, acknowledging(len(health), intent))) == (CARRIED_OUT[intent], "done")


@pytest.mark.parametrize("intent", ["pause", "cancel"])
def test_an_intent_is_carried_out_before_all_three_have_saved(intent: Intent) -> None:
    job = changed(worked_by("healthy", "healthy", "healthy"), control(intent))
    for place, expected in ((2, "acknowledged"), (2, "acknowledged"), (1, "acknowledged")):
        job = changed(job, acknowledging(place, intent))
        assert state_of(job) == ("running", expected)
    assert state_of(changed(job, acknowledging(3, intent))) == (CARRIED_OUT[intent], "done")


@pytest.mark.parametrize("intent", ["pause", "cancel"])
@pytest.mark.parametrize("gone", [Detach(JOB, "w2", 2), judged("dead", "w2", 2)], ids=["left", "died"])
def test_an_intent_waits_for_ever_for_one_that_is_gone(intent: Intent, gone: ChangeBody) -> None:
    asked = changed(worked_by("healthy", "healthy"), control(intent), acknowledging(1, intent))
    assert state_of(asked) == ("running", "acknowledged")
    assert state_of(changed(asked, gone)) == (CARRIED_OUT[intent], "done")


def test_a_worker_that_joins_meanwhile_is_not_asked() -> None:
    job = changed(worked_by("healthy"), control("pause"), attach("late-comer"), acknowledging(1, "pause"))
    assert state_of(job) == ("running", "acknowledged")
    incarnation = job.workers["late-comer"].incarnation
    assert state_of(changed(job, report("late-comer", incarnation, acknowledged="pause"))) == ("paused", "done")


def test_an_old_acknowledgement_answers_a_new_intent() -> None:
    job = changed(worked_by("healthy", "healthy"), control("pause"), acknowledging(1, "pause"), control("resume"))
    again = changed(job, control("pause"))
    assert state_of(again) == ("running", "requested")
    assert state_of(changed(again, acknowledging(2, "pause"))) == ("running", "acknowledged")


def test_the_wrong_word_acknowledges() -> None:
    asked = changed(worked_by("healthy"), control("cancel"))
    assert state_of(changed(asked, acknowledging(1, "pause"))) == ("running", "requested")


def test_a_cancellation_overtakes_nothing() -> None:
    paused = changed(worked_by("healthy"), control("pause"), acknowledging(1, "pause"))
    cancelled = changed(paused, control("cancel"), acknowledging(1, "cancel"))
    assert state_of(cancelled) == ("cancelled", "done")
    assert cancelled.workers == {}


def test_resuming_waits_for_the_workers() -> None:
    paused = changed(worked_by("healthy"), control("pause"), acknowledging(1, "pause"))
    resumed = changed(paused, control("resume"))
    assert state_of(resumed) == ("running", "requested")
    assert order_of(resumed)[0] == "resume"
    heard = changed(resumed, acknowledging(1, "resume"))
    assert state_of(heard) == ("running", "done")
    assert order_of(heard)[0] is None


def test_a_pause_that_is_withdrawn_in_time_still_pauses() -> None:
    job = changed(worked_by("healthy"), control("pause"), control("resume"), acknowledging(1, "pause"))
    assert state_of(job) == ("running", "requested")


def test_a_job_that_never_ran_is_resumed_as_running() -> None:
    paused = changed(a_job("pending", workers={}), control("pause"))
    assert paused.status == "paused"
    assert changed(paused, control("resume")).status == "pending"


def test_a_job_paused_before_its_start_stays_pending_while_it_is_worked_on() -> None:
    paused = changed(a_job("pending", workers={}), control("pause"), attach("w"))
    incarnation = paused.workers["w"].incarnation
    resumed = changed(paused, control("resume"), counted(50, "w", incarnation))
    assert resumed.progress.processed == 50
    assert resumed.status == "running"


@pytest.mark.parametrize("intent", ["pause", "cancel"])
def test_intents_forget_who_asked_and_when(intent: Intent) -> None:
    job = changed(worked_by("healthy"), control(intent))
    assert job.control == Control(intent, job.updated_at, "requested", asked=job.revision)


def test_a_report_revives_a_worker_without_showing_it() -> None:
    job = changed(worked_by("healthy"), judged("stalled", "w1"))
    assert job.health == "stalled"
    again = changed(job, counted(1, "w1"))
    assert again.health == again.workers["w1"].health == "healthy"
    assert again.workers["w1"].last_progress == again.updated_at


@pytest.mark.parametrize(
    ("healths", "worst"),
    [
        ((), "healthy"),
        (("healthy", "late"), "late"),
        (("stalled", "late"), "stalled"),
        (("dead", "healthy", "stalled"), "dead"),
    ],
)
def test_a_sick_worker_hides_among_the_healthy(healths: tuple[str, ...], worst: str) -> None:
    assert changed(worked_by(*healths), attach("one-more")).health == worst


def test_a_paused_job_looks_dead_or_healthy() -> None:
    paused = changed(worked_by("healthy"), control("pause"), acknowledging(1, "pause"))
    assert paused.health == "paused"
    assert changed(paused, judged("dead", "w1")).health == "paused"
    assert changed(paused, control("resume")).health == "healthy"


def test_a_document_does_not_survive_the_wire() -> None:
    rehearsal = begun("w", "v")
    rehearsal.say(
        report(
            counts=Counts(1, 2, 3, 4, 5, {"a": 1}),
            tracks={"t": TrackPoint(3, 2, b"k", b"d")},
            checkpoints={"default": pack({"row": 7})},
            steps=(StepReport("copy", "running", pack([1])),),
            errors=(ErrorReport("7", "bad"),),
            error_count=1,
            meta={"m": pack(START)},
            phase="copying",
            throttled_s=0.1,
            throttles=1,
        ),
        control("pause"),
    )
    assert copied(rehearsal.document) == rehearsal.document
