"""A limit from outside: how it is divided, what it makes of the estimate, and how a worker keeps to its share."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorstate.client.pace import BURST_S, LEAST_WAIT_S, Pace
from actorstate.core.job import decide
from actorstate.core.messages.document import Document, order_of
from actorstate.core.messages.requests import Counts, CreateJob, FinishJob, RetryJob, ThrottleJob
from actorstate.errors import JobFinished
from tests.support.core import JOB, a_job, attach, begun, changed, judged, report


def throttled(rows_per_s: float | None) -> ThrottleJob:
    return ThrottleJob(JOB, rows_per_s, "ops")


def share(job: Document) -> float | None:
    return order_of(job).rows_per_s


def test_each_of_several_workers_takes_the_whole_limit() -> None:
    job = changed(None, CreateJob(JOB), throttled(90), attach("a"))
    assert share(job) == 90
    job = changed(job, attach("b"), attach("c"))
    assert share(job) == 30
    assert share(changed(job, judged("dead", "c", 3))) == 45
    assert share(changed(job, throttled(None))) is None
    assert job.throttle is not None
    assert job.throttle.by == "ops"


def test_a_limit_repeated_changes_the_job_or_one_is_set_after_the_end() -> None:
    assert not decide(changed(a_job(), throttled(5)), throttled(5))
    assert not decide(a_job(), throttled(None))
    with pytest.raises(JobFinished):
        decide(a_job("completed"), throttled(5))


def test_a_limit_is_lost_in_a_restart_or_by_a_retry() -> None:
    rehearsal = begun("w")
    rehearsal.say(throttled(5))
    rehearsal.restart()
    assert share(rehearsal.document) == 5
    assert share(rehearsal.say(FinishJob(JOB, "failed"), RetryJob(JOB))) == 5


def eta_in_s(job: Document) -> float:
    assert job.rate.eta is not None
    return (job.rate.eta - job.updated_at).total_seconds()


def test_the_estimate_of_a_throttled_job_is_by_the_speed_that_it_may_not_have() -> None:
    job = changed(None, CreateJob(JOB, total=100_000), attach())
    for _ in range(10):
        job = changed(job, report(counts=Counts(succeeded=1_000)))
    assert eta_in_s(job) == 90
    job = changed(job, throttled(10))
    assert eta_in_s(job) == pytest.approx(9_000)
    for _ in range(20):
        job = changed(job, report(counts=Counts(succeeded=10), throttled_s=0.99, throttles=1))
    assert eta_in_s(job) == pytest.approx(8_980)
    assert job.rate.throttled_s == pytest.approx(19.8)
    assert eta_in_s(changed(job, throttled(None))) < 180


def test_a_job_that_was_throttled_from_the_beginning_has_no_estimate() -> None:
    job = changed(None, CreateJob(JOB, total=1_000), throttled(10), attach())
    for _ in range(5):
        job = changed(job, report(counts=Counts(succeeded=10), throttled_s=0.99, throttles=1))
    assert eta_in_s(job) == pytest.approx(95)


def test_the_waits_of_several_workers_are_added_up_beyond_the_time_there_was() -> None:
    job = changed(None, CreateJob(JOB, total=1_000_000), *(attach(name) for name in "abcd"))
    for _ in range(10):
        for place, name in enumerate("abcd", start=1):
            waited = report(name, place, counts=Counts(succeeded=25), throttled_s=0.5, throttles=1)
            job = changed(job, waited, after_s=0.25)
    assert job.started_at is not None
    lasted_s = (job.updated_at - job.started_at).total_seconds()
    assert job.rate.active_s + job.rate.throttled_s == pytest.approx(lasted_s)
    assert job.rate.throttled_s == pytest.approx(5.0)
    assert job.rate.per_s is not None
    assert job.rate.per_s == pytest.approx(200, rel=0.1)


# --- one worker's share ----------------------------------------------------------------------------------------


def driven(rows: int, rows_per_s: float, work_s: float = 0.0) -> float:
    """How long a worker takes that waits before each row, and works so long on it."""
    pace, now = Pace(), 1000.0
    for _ in range(rows):
        while wait_s := pace.wait_s(now, rows_per_s):
            now += wait_s
        now += work_s
        pace.charge(1)
    return now - 1000.0


@given(st.integers(50, 2_000), st.floats(0.5, 5_000), st.floats(0.0, 0.01))
def test_a_worker_is_faster_than_its_share_or_waits_longer_than_it_must(
    rows: int, rows_per_s: float, work_s: float
) -> None:
    took_s = driven(rows, rows_per_s, work_s)
    assert took_s >= (rows - 1) / rows_per_s - BURST_S - LEAST_WAIT_S - 1e-6
    assert took_s <= max((rows - 1) / rows_per_s, (rows - 1) * work_s) + rows * work_s + 1e-6


def test_a_long_wait_goes_on_after_the_limit_was_lifted_or_raised() -> None:
    pace = Pace()
    assert pace.wait_s(0.0, 0.01) == 0.0
    pace.charge(1)
    assert pace.wait_s(0.0, 0.01) == pytest.approx(100)
    assert pace.wait_s(50.0, 0.01) == pytest.approx(50)
    assert pace.wait_s(50.0, 1.0) == pytest.approx(0.5)
    assert pace.wait_s(50.0, None) == 0.0
    assert pace.wait_s(50.0, 0.01) == 0.0


def test_rows_that_were_done_before_the_limit_came_are_waited_for() -> None:
    pace = Pace()
    pace.charge(1_000_000)
    assert pace.wait_s(10.0, None) == 0.0
    assert pace.wait_s(10.0, 1.0) == 0.0
