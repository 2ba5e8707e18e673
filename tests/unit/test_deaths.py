"""What a worker's death does to its job: nothing, the end, or a free seat; and who tells when a job expires."""

from datetime import timedelta

import pytest

from actorstate.core.job import decide
from actorstate.core.messages.document import Document, HealthRules
from actorstate.core.messages.replies import JobExpired
from actorstate.core.messages.requests import ApproveJob, CreateJob, FinishJob, RetryJob, TrackPoint
from actorstate.errors import AlreadyAttached, Fenced
from tests.support.core import JOB, a_job, attach, changed, control, counted, judged, report


def job_with(on_dead: str, *workers: str) -> Document:
    rules = HealthRules(on_dead=on_dead)  # type: ignore[arg-type]  # a table of cases
    return changed(None, CreateJob(JOB, health_rules=rules), *(attach(worker) for worker in workers))


def test_a_death_does_something_unasked() -> None:
    job = changed(job_with("nothing", "w"), judged("dead"))
    assert (job.status, job.health, job.workers["w"].health) == ("running", "dead", "dead")
    assert changed(job, counted(1)).health == "healthy"


def test_a_job_goes_on_without_anybody_or_fails_with_one_left() -> None:
    job = changed(job_with("fail", "w", "v"), judged("dead"))
    assert (job.status, job.workers["w"].health) == ("running", "dead")
    job = changed(job, judged("dead", "v", 2))
    assert (job.status, job.workers) == ("failed", {})
    assert job.reason == "its last live worker is dead: v (process 1 on host)"
    with pytest.raises(Exception, match="failed and stays so"):
        decide(job, counted(1))
    assert changed(job, RetryJob(JOB)).attempts[0].reason == job.reason


@pytest.mark.parametrize("rest", ["pause", "question"])
def test_a_job_that_rests_fails_because_its_worker_was_restarted(rest: str) -> None:
    asked = (control("pause"), report(acknowledged="pause")) if rest == "pause" else (report(question="sure?"),)
    job = changed(job_with("fail", "w"), *asked)
    dead = changed(job, judged("dead"))
    assert (dead.status, dead.workers) == (job.status, {})
    goes_on = changed(dead, control("resume") if rest == "pause" else ApproveJob(JOB))
    assert goes_on.status == "running"


def test_a_pause_that_was_asked_for_ends_the_job_when_its_worker_dies() -> None:
    job = changed(job_with("fail", "w"), control("pause"), judged("dead"))
    assert (job.status, job.workers) == ("paused", {})
    job = changed(job_with("fail", "w"), control("cancel"), judged("dead"))
    assert job.status == "cancelled"


def test_a_dead_worker_keeps_its_seat_or_its_track() -> None:
    job = changed(job_with("free", "w"), report(tracks={"t": TrackPoint(3, 2)}), judged("dead"))
    assert (job.status, job.workers, job.health) == ("running", {}, None)
    assert (job.tracks["t"].worker, job.tracks["t"].counted, job.tracks["t"].done) == ("", 3, 2)
    assert decide(job, attach("v", exclusive=True))
    with pytest.raises(Fenced):
        decide(job, counted(1))


def test_a_live_worker_is_freed_with_the_dead() -> None:
    job = changed(job_with("free", "w", "v"), report("v", 2, tracks={"t": TrackPoint(3, 2)}), judged("dead"))
    assert (list(job.workers), job.tracks["t"].worker) == (["v"], "v")


@pytest.mark.parametrize("health", ["healthy", "late", "stalled"])
def test_an_exclusive_worker_that_is_not_dead_is_pushed_off(health: str) -> None:
    job = changed(None, CreateJob(JOB), attach(exclusive=True))
    job = changed(job, judged(health)) if health != "healthy" else job
    with pytest.raises(AlreadyAttached) as refused:
        decide(job, attach("v", exclusive=True))
    assert (refused.value.holder, refused.value.health) == ("w", health)
    taken = changed(job, attach("v", exclusive=True, take_over=True))
    assert list(taken.workers) == ["v"]
    with pytest.raises(Fenced):
        decide(taken, counted(1))


# --- expiry ---------------------------------------------------------------------------------------------------


def test_a_job_expires_before_its_end_or_never() -> None:
    job = changed(None, CreateJob(JOB, expire_after_s=60.0), attach())
    assert job.expires_at is None
    ended = changed(job, FinishJob(JOB, "completed"))
    assert ended.finished_at is not None
    assert ended.expires_at == ended.finished_at + timedelta(seconds=60)
    assert changed(ended, RetryJob(JOB)).expires_at is None
    assert changed(None, CreateJob(JOB), FinishJob(JOB, "completed")).expires_at is None


def test_a_job_that_was_retried_meanwhile_expires() -> None:
    ended = changed(None, CreateJob(JOB, expire_after_s=60.0), FinishJob(JOB, "failed"))
    assert ended.finished_at is not None
    expired = JobExpired(JOB, ended.finished_at)
    assert decide(ended, expired)
    assert not decide(changed(ended, RetryJob(JOB)), expired)
    assert not decide(changed(ended, RetryJob(JOB), FinishJob(JOB, "failed")), expired)
    assert not decide(a_job("running"), expired)
