"""The transition table and every refusal of `core/job.py`."""

from collections.abc import Iterable
from itertools import product
from typing import get_args

import pytest

from actorstate.core.job import (
    MAX_NAMES,
    MAX_PACKED_BYTES,
    MAX_WORKERS,
    TRANSITIONS,
    check_worker,
    decide,
    move,
)
from actorstate.core.messages.document import Checkpoint, Control, Document, Intent, Progress, Status, Step, Track
from actorstate.core.messages.replies import ChangeBody
from actorstate.core.messages.requests import (
    MAX_COUNT,
    ControlJob,
    Counts,
    CreateJob,
    DeleteJob,
    Detach,
    FinishJob,
    Heartbeat,
    Report,
    StepReport,
    TrackPoint,
)
from actorstate.errors import (
    ActorStateError,
    AlreadyAttached,
    AlreadyTracked,
    Busy,
    Conflict,
    Fenced,
    IllegalTransition,
    JobFinished,
    JobNotFound,
    RequestRefused,
    TooLarge,
)
from tests.support.core import (
    JOB,
    START,
    a_job,
    a_worker,
    attach,
    changed,
    control,
    counted,
    judged,
    report,
)

STATUSES: tuple[Status, ...] = get_args(Status)
TERMINAL: tuple[Status, ...] = ("completed", "failed", "cancelled")
OPEN = tuple(status for status in STATUSES if status not in TERMINAL)
KIB = 1024

# The drawing at the head of job.py, once more and independently: what may follow what.
ALLOWED = {(old, new) for old in OPEN for new in STATUSES if old != new}


def refusal_of(document: Document | None, body: ChangeBody) -> ActorStateError:
    with pytest.raises(RequestRefused) as caught:
        decide(document, body)
    return caught.value


def with_workers(count: int, health: str = "healthy") -> Document:
    return a_job(workers={f"w{place}": a_worker(place, health=health) for place in range(1, count + 1)})


def test_the_table_misses_or_invents_a_status() -> None:
    assert set(TRANSITIONS) == set(STATUSES)


@pytest.mark.parametrize(("old", "new"), list(product(STATUSES, STATUSES)))
def test_an_edge_that_is_not_in_the_drawing_is_taken(old: Status, new: Status) -> None:
    document = a_job(old)
    if old == new:
        assert move(document, new, START) is document
    elif (old, new) in ALLOWED:
        assert move(document, new, START).status == new
    else:
        with pytest.raises(IllegalTransition, match=f"cannot go from {old} to {new}"):
            move(document, new, START)


def test_the_first_start_is_forgotten_when_a_job_starts_again() -> None:
    later = START.replace(year=2025)
    running = move(a_job("pending"), "running", START)
    assert move(move(running, "paused", later), "running", later).started_at == START


@pytest.mark.parametrize("end", TERMINAL)
def test_an_end_without_its_time(end: Status) -> None:
    assert move(a_job(), end, START).finished_at == START
    assert a_job().finished_at is None


@pytest.mark.parametrize("status", TERMINAL)
@pytest.mark.parametrize(
    "body",
    [
        *(attach(), attach(take_over=True), report(), counted(5)),
        *(control("pause"), control("resume"), FinishJob(JOB, "failed")),
    ],
    ids=lambda body: type(body).__name__ + getattr(body, "intent", ""),
)
def test_a_finished_job_comes_back_to_life(status: Status, body: ChangeBody) -> None:
    document = a_job(status)
    if isinstance(body, FinishJob) and status == "failed":
        assert not decide(document, body)
        return
    error = refusal_of(document, body)
    assert isinstance(error, JobFinished)
    assert error.job == JOB


@pytest.mark.parametrize("status", TERMINAL)
def test_a_beat_or_a_finding_moves_a_finished_job(status: Status) -> None:
    document = a_job(status, workers={"w": a_worker()})
    with pytest.raises(JobFinished):
        check_worker(document, Heartbeat(JOB, "w", 1))
    assert not decide(document, judged("dead"))


@pytest.mark.parametrize(
    ("status", "body"),
    [
        ("completed", FinishJob(JOB, "completed")),
        ("failed", FinishJob(JOB, "failed", "again")),
        ("cancelled", control("cancel")),
    ],
)
def test_saying_the_same_end_twice_is_an_error_or_a_change(status: Status, body: ChangeBody) -> None:
    assert not decide(a_job(status), body)


@pytest.mark.parametrize(
    "body",
    [attach(), Detach(JOB, "w", 1), report(), FinishJob(JOB, "completed"), control("pause"), DeleteJob(JOB)],
    ids=lambda body: type(body).__name__,
)
def test_a_job_that_does_not_exist_accepts_something(body: ChangeBody) -> None:
    assert isinstance(refusal_of(None, body), JobNotFound)


def test_a_beat_for_a_job_that_does_not_exist_is_heard() -> None:
    with pytest.raises(JobNotFound):
        check_worker(None, Heartbeat(JOB, "w", 1))


def test_creating_twice_resets_the_job() -> None:
    assert decide(None, CreateJob(JOB))
    assert not decide(a_job(), CreateJob(JOB, total=5))


def test_an_id_of_another_kind_is_taken_over() -> None:
    error = refusal_of(a_job(), CreateJob(JOB, kind="other"))
    assert isinstance(error, Conflict)
    assert f"actorstate get DIR {JOB}" in error.hint


@pytest.mark.parametrize("status", OPEN)
@pytest.mark.parametrize(("worker", "incarnation"), [("w", 2), ("w", 0), ("stranger", 1), ("W", 1), ("w\n", 1)])
def test_a_fenced_worker_speaks_for_the_job(status: Status, worker: str, incarnation: int) -> None:
    document = a_job(status)
    for body in (report(worker, incarnation), FinishJob(JOB, "completed", None, worker, incarnation)):
        assert isinstance(refusal_of(document, body), Fenced)
    with pytest.raises(Fenced):
        check_worker(document, Heartbeat(JOB, worker, incarnation))
    assert not decide(document, Detach(JOB, worker, incarnation))
    assert not decide(document, judged("dead", worker, incarnation))


def test_a_worker_is_refused_its_own_words() -> None:
    document = a_job()
    assert check_worker(document, Heartbeat(JOB, "w", 1)) is document.workers["w"]
    assert decide(document, report())
    assert decide(document, Detach(JOB, "w", 1))
    assert decide(document, FinishJob(JOB, "completed", None, "w", 1))
    assert decide(document, judged("late"))


@pytest.mark.parametrize("health", ["healthy", "late", "stalled"])
def test_an_exclusive_worker_joins_a_live_one(health: str) -> None:
    document = a_job(workers={"w": a_worker(health=health)})
    error = refusal_of(document, attach("other", exclusive=True))
    assert isinstance(error, AlreadyAttached)
    assert (error.holder, error.health) == ("w", health)


@pytest.mark.parametrize("health", ["healthy", "late", "stalled"])
def test_a_second_worker_joins_an_exclusive_one(health: str) -> None:
    document = a_job(workers={"w": a_worker(health=health, exclusive=True)})
    assert isinstance(refusal_of(document, attach("other")), AlreadyAttached)


def test_a_dead_holder_keeps_the_job_for_ever() -> None:
    document = a_job(workers={"w": a_worker(health="dead", exclusive=True)})
    assert decide(document, attach("other", exclusive=True))
    assert decide(document, attach("other"))


def test_a_worker_is_locked_out_by_its_own_former_life() -> None:
    document = a_job(workers={"w": a_worker(exclusive=True)})
    assert decide(document, attach("w", exclusive=True))
    assert decide(document, attach("w"))


def test_take_over_is_refused_by_the_holder() -> None:
    document = a_job(workers={"w": a_worker(exclusive=True)})
    assert decide(document, attach("other", take_over=True))


def test_one_worker_too_many_attaches() -> None:
    document = with_workers(MAX_WORKERS)
    error = refusal_of(document, attach("late-comer"))
    assert isinstance(error, Busy)
    assert error.retryable
    assert isinstance(error.retry_after_s, float)
    assert decide(document, attach("w7"))
    assert decide(with_workers(MAX_WORKERS - 1), attach("last"))


def test_dead_workers_take_the_places_of_the_living() -> None:
    document = with_workers(MAX_WORKERS, "dead")
    assert decide(document, attach("fresh"))
    joined = changed(document, attach("fresh"))
    assert len(joined.workers) == MAX_WORKERS
    assert "w1" not in joined.workers
    assert "fresh" in joined.workers


def tracked_by(worker: str, incarnation: int, **holders: str) -> Document:
    workers = {name: a_worker(place, health=health) for place, (name, health) in enumerate(holders.items(), 1)}
    return a_job(workers=workers, tracks={"t": Track(10, 5, worker=worker, incarnation=incarnation)})


def on_track(worker: str, incarnation: int) -> Report:
    return report(worker, incarnation, tracks={"t": TrackPoint(11, 5)})


@pytest.mark.parametrize("health", ["healthy", "late", "stalled"])
def test_two_live_workers_run_one_track(health: str) -> None:
    error = refusal_of(tracked_by("w", 1, w=health, v="healthy"), on_track("v", 2))
    assert isinstance(error, AlreadyTracked)
    assert (error.holder, error.health) == ("w", health)


@pytest.mark.parametrize(
    "document",
    [
        tracked_by("w", 1, w="dead", v="healthy"),
        tracked_by("gone", 9, w="healthy", v="healthy"),
        tracked_by("w", 8, w="healthy", v="healthy"),
        tracked_by("", 0, w="healthy", v="healthy"),
        tracked_by("v", 2, w="healthy", v="healthy"),
        tracked_by("v", 1, w="healthy", v="healthy"),
    ],
    ids=["holder dead", "holder gone", "holder of an earlier life", "released", "own", "own of an earlier life"],
)
def test_a_track_without_a_living_holder_stays_locked(document: Document) -> None:
    assert decide(document, on_track("v", 2))


def names(count: int) -> list[str]:
    return [f"n{place}" for place in range(count)]


def full_of(what: str, count: int) -> Document:
    have = names(count)
    match what:
        case "checkpoints":
            return a_job(checkpoints={name: Checkpoint(b"\xc0", START, 1) for name in have})
        case "tracks":
            return a_job(tracks={name: Track() for name in have})
        case "steps":
            return a_job(steps=tuple(Step(name, "done", START) for name in have))
        case _:
            return a_job(packed_meta=dict.fromkeys(have, b"\xc0"))


def naming(what: str, name: str) -> Report:
    match what:
        case "checkpoints":
            return report(checkpoints={name: b"\xc0"})
        case "tracks":
            return report(tracks={name: TrackPoint(1, 1)})
        case "steps":
            return report(steps=(StepReport(name, "done"),))
        case _:
            return report(meta={name: b"\xc0"})


@pytest.mark.parametrize("what", ["checkpoints", "tracks", "steps", "meta keys"])
def test_one_name_too_many_is_accepted(what: str) -> None:
    document = full_of(what, MAX_NAMES)
    error = refusal_of(document, naming(what, "one-more"))
    assert isinstance(error, TooLarge)
    assert what in error.message
    assert decide(document, naming(what, "n3"))
    assert decide(full_of(what, MAX_NAMES - 1), naming(what, "one-more"))


def packed_reports(size: int) -> Iterable[Report]:
    yield report(checkpoints={"c": b"x" * size})
    yield report(meta={"m": b"x" * size})
    yield report(steps=(StepReport("s", "done", b"x" * size),))


@pytest.mark.parametrize("place", range(3))
def test_user_data_grows_beyond_its_bound(place: int) -> None:
    half = MAX_PACKED_BYTES // 2
    document = a_job(packed_meta={"kept": b"x" * half})
    fits, over = (list(packed_reports(size))[place] for size in (half, half + 1))
    assert decide(document, fits)
    assert isinstance(refusal_of(document, over), TooLarge)


def test_replacing_a_value_counts_the_old_one_too() -> None:
    document = a_job(packed_meta={"big": b"x" * (MAX_PACKED_BYTES - 10)})
    assert decide(document, report(meta={"big": b"y" * (MAX_PACKED_BYTES - 10)}))


def test_steps_that_end_hide_their_data_from_the_bound() -> None:
    """`_stepped` keeps a step's old data when a report brings none; the bound must count it."""
    document = a_job(steps=(Step("old", "running", START, packed=b"x" * (MAX_PACKED_BYTES - KIB)),))
    ended_and_more = report(steps=(StepReport("old", "done"), StepReport("new", "running", b"y" * 2 * KIB)))
    assert isinstance(refusal_of(document, ended_and_more), TooLarge)


def test_a_job_is_created_larger_than_it_may_ever_be() -> None:
    meta = dict.fromkeys(names(5), b"x" * 256 * KIB)
    assert isinstance(refusal_of(None, CreateJob(JOB, meta=meta)), TooLarge)


@pytest.mark.parametrize(
    "counts",
    [
        Counts(succeeded=2),
        Counts(succeeded=1, failed=1),
        Counts(skipped=1, duplicates=1),
        Counts(bytes=2),
    ],
)
def test_counts_leave_the_range_that_json_can_hold(counts: Counts) -> None:
    full = a_job(progress=Progress(processed=MAX_COUNT - 1, succeeded=MAX_COUNT - 1, bytes=MAX_COUNT - 1))
    assert isinstance(refusal_of(full, report(counts=counts)), TooLarge)
    assert decide(full, report(counts=Counts(succeeded=1, bytes=1)))


@pytest.mark.parametrize(
    "body",
    [
        report(counts=Counts(by_category={"x": MAX_COUNT})),
        report(error_count=MAX_COUNT),
        report(throttled_s=1.0, throttles=MAX_COUNT),
    ],
    ids=["by_category", "error_count", "throttles"],
)
def test_a_counter_without_a_bound_outgrows_the_encoder(body: Report) -> None:
    """msgpack ends at 2**64: past it the document cannot be encoded, and no writer could serve the job again."""
    document = changed(a_job(), body)
    assert isinstance(refusal_of(document, body), TooLarge)


@pytest.mark.parametrize("health", ["healthy", "late", "stalled"])
@pytest.mark.parametrize("status", OPEN)
def test_a_job_is_deleted_under_a_living_worker(status: Status, health: str) -> None:
    error = refusal_of(a_job(status, workers={"w": a_worker(health=health)}), DeleteJob(JOB))
    assert isinstance(error, IllegalTransition)
    assert f"actorstate cancel DIR {JOB}" in error.hint


@pytest.mark.parametrize(
    "document",
    [a_job(workers={}), a_job(workers={"w": a_worker(health="dead")}), a_job("completed"), a_job("paused", workers={})],
)
def test_a_job_that_nobody_works_on_cannot_be_deleted(document: Document) -> None:
    assert decide(document, DeleteJob(JOB))


def after_intent(intent: str | None, status: Status = "running") -> Document:
    return a_job(status, control=Control(intent, START) if intent else None)  # type: ignore[arg-type]  # a table


@pytest.mark.parametrize(
    ("document", "body", "changes"),
    [
        (after_intent(None), control("pause"), True),
        (after_intent("pause"), control("pause"), False),
        (after_intent("resume"), control("pause"), True),
        (after_intent(None), control("resume"), False),
        (after_intent("pause"), control("resume"), True),
        (after_intent("pause", "paused"), control("resume"), True),
        (after_intent("resume"), control("resume"), False),
        (after_intent(None), control("cancel"), True),
        (after_intent("pause", "paused"), control("cancel"), True),
        (after_intent("cancel"), control("cancel"), False),
    ],
)
def test_an_intent_is_lost_or_repeated(document: Document, body: ControlJob, *, changes: bool) -> None:
    assert decide(document, body) is changes


@pytest.mark.parametrize("intent", ["pause", "resume"])
def test_a_cancellation_is_taken_back(intent: Intent) -> None:
    """The one who cancelled was told that it is durable."""
    with pytest.raises(IllegalTransition, match="being cancelled"):
        decide(after_intent("cancel"), control(intent))


def test_the_same_health_is_found_twice() -> None:
    assert not decide(a_job(), judged("healthy"))
    assert decide(a_job(), judged("dead"))
