"""A finished job comes back by an explicit retry alone: what a new attempt keeps, what it drops, who is fenced."""

from typing import Any

import pytest

from actorstate.core.attempts import MAX_ATTEMPTS
from actorstate.core.job import check_worker, decide
from actorstate.core.messages.document import Document, Status
from actorstate.core.messages.payload import pack
from actorstate.core.messages.requests import (
    Body,
    Counts,
    CreateJob,
    DeleteJob,
    Detach,
    ErrorReport,
    FinishJob,
    Heartbeat,
    RetryJob,
    StepReport,
    TrackPoint,
)
from actorstate.errors import ActorStateError, Conflict, Fenced, IllegalTransition, JobFinished
from tests.support.core import EPOCH, JOB, Rehearsal, a_job, attach, begun, changed, control, counted, judged, report

ENDS: tuple[Status, ...] = ("completed", "failed", "cancelled")
OPEN: tuple[Status, ...] = ("pending", "running", "waiting", "paused")


def worked(ending: Status = "failed") -> Document:
    """A job with a bit of everything, ended."""
    job = changed(
        None,
        CreateJob(JOB, total=100, unit="files", meta={"k": pack(1)}),
        attach(),
        report(
            counts=Counts(succeeded=7, failed=2, by_category={"io": 2}),
            checkpoints={"default": pack(9)},
            tracks={"t": TrackPoint(9, 9)},
            steps=(StepReport("copy", "running"),),
            errors=(ErrorReport("row 8", "no", "io"),),
            error_count=2,
            phase="copying",
        ),
    )
    match ending:
        case "cancelled":
            return changed(job, control("cancel"), report(acknowledged="cancel"))
        case "failed":
            return changed(job, FinishJob(JOB, "failed", "no disk"))
        case _:
            return changed(job, FinishJob(JOB, "completed"))


@pytest.mark.parametrize("status", OPEN)
def test_a_job_that_has_not_ended_is_retried(status: Status) -> None:
    with pytest.raises(IllegalTransition, match=f"is {status}: only a job that has ended"):
        decide(a_job(status), RetryJob(JOB))


@pytest.mark.parametrize("ending", ENDS)
def test_a_retry_loses_where_the_work_was_or_how_the_last_attempt_ended(ending: Status) -> None:
    ended = worked(ending)
    again = changed(ended, RetryJob(JOB, by="ops"))
    assert (again.status, again.attempt, again.finished_at, again.reason, again.control) == (
        "pending",
        2,
        None,
        None,
        None,
    )
    assert (again.checkpoints, again.tracks, again.progress) == (ended.checkpoints, ended.tracks, ended.progress)
    assert (again.steps, again.errors, again.packed_meta) == (ended.steps, ended.errors, ended.packed_meta)
    [old] = again.attempts
    assert (old.number, old.outcome, old.reason, old.retried_by) == (1, ending, ended.reason, "ops")
    assert (old.started_at, old.ended_at, old.progress) == (ended.started_at, ended.finished_at, ended.progress)
    goes_on = changed(again, attach("v"), counted(1, "v", incarnation=2))
    assert (goes_on.status, goes_on.progress.processed) == ("running", 10)
    assert goes_on.started_at is not None
    assert goes_on.started_at > (ended.finished_at or goes_on.started_at)


@pytest.mark.parametrize("ending", ENDS)
def test_a_retry_from_the_start_counts_what_was_counted_before(ending: Status) -> None:
    ended = worked(ending)
    again = changed(ended, RetryJob(JOB, from_start=True))
    assert (again.checkpoints, again.tracks, again.steps, again.errors, again.error_count) == ({}, {}, (), (), 0)
    assert (again.progress.processed, again.progress.total, again.progress.unit) == (0, 100, "files")
    assert again.rate.active_s == 0.0
    assert again.packed_meta == ended.packed_meta
    assert again.attempts[0].progress == ended.progress


@pytest.mark.parametrize("ending", ENDS)
@pytest.mark.parametrize("from_start", [False, True])
def test_a_worker_of_the_former_attempt_speaks_in_the_new_one(ending: Status, *, from_start: bool) -> None:
    again = changed(worked(ending), RetryJob(JOB, from_start=from_start))
    for body in (counted(5), report(checkpoints={"default": b"old"}), FinishJob(JOB, "completed", None, "w", 1)):
        with pytest.raises(Fenced):
            decide(again, body)
    assert not decide(again, Detach(JOB, "w", 1))
    assert not decide(again, judged("dead"))
    joined = changed(again, attach("w"))
    assert joined.workers["w"].incarnation == 2
    with pytest.raises(Fenced):
        decide(joined, counted(5))


def test_a_heartbeat_of_the_former_attempt_is_heard() -> None:
    with pytest.raises(Fenced):
        check_worker(changed(worked(), RetryJob(JOB)), Heartbeat(JOB, "w", 1))


def test_old_attempts_pile_up_or_their_number_starts_again() -> None:
    job = worked()
    for _ in range(MAX_ATTEMPTS + 5):
        job = changed(job, RetryJob(JOB), FinishJob(JOB, "failed", "again"))
    assert (len(job.attempts), job.attempt) == (MAX_ATTEMPTS, MAX_ATTEMPTS + 6)
    assert [each.number for each in job.attempts] == list(range(6, MAX_ATTEMPTS + 6))


def test_a_retried_job_forgets_its_attempts_in_a_restart() -> None:
    rehearsal = begun("w")
    rehearsal.say(FinishJob(JOB, "failed", "no disk"), RetryJob(JOB), FinishJob(JOB, "completed"), RetryJob(JOB))
    before = rehearsal.document
    rehearsal.restart()
    assert rehearsal.document == before
    assert [(each.number, each.outcome) for each in before.attempts] == [(1, "failed"), (2, "completed")]


def test_a_resend_of_a_retry_opens_two_attempts() -> None:
    rehearsal = begun("w")
    rehearsal.say(FinishJob(JOB, "failed"))
    request = rehearsal.request(RetryJob(JOB), id=1_000)
    first = rehearsal.send(request)
    rehearsal.say(FinishJob(JOB, "failed"))
    assert rehearsal.propose(request) == first
    rehearsal.commit()
    assert (rehearsal.document.status, rehearsal.document.attempt) == ("failed", 2)


@pytest.mark.parametrize("body", [CreateJob(JOB), attach(), counted(1), control("resume"), judged("healthy")], ids=repr)
def test_something_else_than_a_retry_brings_a_finished_job_back(body: Any) -> None:
    ended = worked()
    try:
        has_effect = decide(ended, body)
    except ActorStateError as error:
        assert isinstance(error, JobFinished)  # noqa: PT017 - which of the two it is depends on the case
        return
    assert not has_effect


def test_a_key_is_claimed_by_what_does_not_take_it() -> None:
    rehearsal, claimed = Rehearsal(), list[str]()

    def said(*bodies: Body) -> list[str]:
        claimed.clear()
        for body in bodies:
            request = rehearsal.request(body)
            rehearsal.actor.propose(
                request, rehearsal.now, EPOCH, claim=lambda key, job: claimed.append(f"{job}: {key}")
            )
            rehearsal.commit()
        return list(claimed)

    mine = [f"{JOB}: orders"]
    assert said(CreateJob(JOB, unique_key="orders")) == mine
    assert said(CreateJob(JOB, unique_key="orders"), attach(), counted(1), FinishJob(JOB, "failed")) == []
    assert said(RetryJob(JOB)) == mine
    assert said(DeleteJob(JOB)) == []
    assert said(CreateJob(JOB), FinishJob(JOB, "failed"), RetryJob(JOB)) == []


def test_a_refused_claim_leaves_something_staged() -> None:
    rehearsal = Rehearsal()

    def refuse(_key: str, _job: str) -> None:
        raise Conflict("taken")

    with pytest.raises(Conflict):
        rehearsal.actor.propose(
            rehearsal.request(CreateJob(JOB, unique_key="orders")), rehearsal.now, EPOCH, claim=refuse
        )
    assert (rehearsal.actor.staged, rehearsal.actor.document, rehearsal.actor.revision) == (None, None, 0)
