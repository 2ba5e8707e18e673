"""Rate, ETA and health: windowed, without paused and throttled time, None rather than a lie.

All through changes, as the writer makes them: what a reader sees is what is judged.
"""

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorstate.core.messages.document import Document, Rate
from actorstate.core.messages.requests import CreateJob, Detach, FinishJob
from actorstate.core.rate import MAX_SAMPLES, Thresholds, judge
from tests.support.core import (
    JOB,
    Rehearsal,
    a_job,
    attach,
    begun,
    changed,
    control,
    counted,
    judged,
    report,
)

LIMITS = Thresholds(late_after_s=10, dead_after_s=30, stalled_after_s=120)
TOTAL = 1_000_000


def steady(rows: int, seconds: int, every_s: float = 1.0) -> Document:
    """A running job after `seconds` of `rows` a report."""
    job = changed(None, CreateJob(JOB, total=TOTAL), attach("w"))
    for _ in range(int(seconds / every_s)):
        job = changed(job, counted(rows), after_s=every_s)
    return job


def eta_in_s(job: Document) -> float:
    assert job.rate.eta is not None
    return (job.rate.eta - job.updated_at).total_seconds()


def etas(rate: Rate) -> set[datetime | None]:
    return {rate.eta, rate.eta_low, rate.eta_high}


def test_a_steady_job_shows_another_rate() -> None:
    job = steady(rows=50, seconds=20)
    assert job.rate.per_s == pytest.approx(50, rel=0.1)
    assert eta_in_s(job) == pytest.approx((TOTAL - 1_000) / 50, rel=0.1)


def test_the_time_in_which_nobody_was_attached_slows_the_job() -> None:
    job = steady(rows=50, seconds=20)
    before = job.rate.per_s
    away = changed(changed(job, Detach(JOB, "w", 1)), attach("v"), after_s=3_600.0)
    back = changed(away, counted(50, "v", incarnation=2))
    assert back.rate.per_s == pytest.approx(before, rel=0.1)
    assert back.rate.active_s < 30


def test_the_first_report_is_taken_for_a_rate() -> None:
    job = changed(changed(None, CreateJob(JOB, total=100), attach("w")), counted(10), after_s=0.0)
    assert job.rate.per_s is None
    assert etas(job.rate) == {None}


def test_the_past_outweighs_the_present() -> None:
    """An hour of 1,000 rows a second, then a minute of 10: the rate is 10."""
    job = changed(steady(rows=0, seconds=2), counted(3_600_000), after_s=3_600)
    for _ in range(60):
        job = changed(job, counted(10))
    assert job.rate.per_s == pytest.approx(10, rel=0.1)
    assert job.rate.window_s <= 60


def test_samples_grow_without_end() -> None:
    job = steady(rows=1, seconds=300)
    assert len(job.rate.samples) <= MAX_SAMPLES
    assert job.rate.window_s < 60


def test_a_thousand_reports_a_second_fill_the_window() -> None:
    job = steady(rows=1, seconds=10, every_s=0.005)
    assert job.rate.window_s > 2
    assert job.rate.per_s == pytest.approx(200, rel=0.1)


def test_paused_time_slows_the_rate() -> None:
    job = changed(steady(rows=50, seconds=10), control("pause"), report(acknowledged="pause"))
    active_s = job.rate.active_s
    job = changed(job, control("resume"), after_s=7_200)
    assert job.rate.paused_s == pytest.approx(7_200)
    assert job.rate.active_s == active_s
    for _ in range(10):
        job = changed(job, counted(50))
    assert job.rate.per_s == pytest.approx(50, rel=0.15)


@pytest.mark.parametrize("intent", ["pause", "cancel"])
def test_a_job_that_does_not_run_has_an_arrival(intent: str) -> None:
    job = changed(steady(rows=50, seconds=10), control(intent), report(acknowledged=intent))  # type: ignore[arg-type]
    assert job.status != "running"
    assert etas(job.rate) == {None}


def test_a_report_while_paused_brings_the_arrival_back() -> None:
    """A worker saves what it had when the pause came; and the writer may be told late."""
    job = changed(steady(rows=50, seconds=10), control("pause"))
    paused = changed(job, report(acknowledged="pause"), after_s=1.5)
    for late in (counted(50), counted(50), report(phase="saving")):
        paused = changed(paused, late, after_s=5.0)
        assert paused.status == "paused"
        assert etas(paused.rate) == {None}


def test_a_worker_that_joins_a_paused_job_brings_the_arrival_back() -> None:
    asked = changed(steady(rows=50, seconds=10), control("pause"), after_s=1.5)
    paused = changed(asked, Detach(JOB, "w", 1), attach("v"), counted(50, "v", 2), after_s=2.0)
    assert paused.status == "paused"
    assert etas(paused.rate) == {None}


@pytest.mark.parametrize("end", ["completed", "failed"])
def test_a_finished_job_has_an_arrival(end: str) -> None:
    job = changed(steady(rows=50, seconds=10), FinishJob(JOB, end))  # type: ignore[arg-type]
    assert etas(job.rate) == {None}


def test_throttled_time_slows_the_rate() -> None:
    job = steady(rows=0, seconds=1)
    for _ in range(20):
        job = changed(job, report(counts=counted(50).counts, throttled_s=4.0, throttles=2), after_s=5.0)
    assert job.rate.per_s == pytest.approx(50, rel=0.15)
    assert job.rate.throttled_s == pytest.approx(80)
    assert job.rate.throttles == 40
    assert job.rate.active_s == pytest.approx(21, abs=1.1)


def test_a_job_that_waits_for_a_limit_of_unknown_length_has_an_arrival() -> None:
    before = steady(rows=50, seconds=10)
    waits = changed(before, report(throttled_s=0.1, throttles=1), after_s=0.1)
    assert before.rate.eta is not None
    assert etas(waits.rate) == {None}
    assert changed(waits, counted(50)).rate.eta is not None


def test_more_throttling_than_time_turns_the_clock_back() -> None:
    before = steady(rows=50, seconds=5)
    after = changed(before, report(counts=counted(1).counts, throttled_s=1e6, throttles=1), after_s=1.0)
    assert 0 <= after.rate.throttled_s <= 1.0
    assert after.rate.active_s >= before.rate.active_s


def test_a_job_that_stopped_advancing_keeps_its_speed() -> None:
    job = steady(rows=50, seconds=10)
    for _ in range(MAX_SAMPLES + 1):
        job = changed(job, counted(0))
    assert not job.rate.per_s
    assert etas(job.rate) == {None}


@pytest.mark.parametrize("total", [None, 0, 10])
def test_an_unknown_or_passed_total_gives_a_date(total: int | None) -> None:
    job = changed(None, CreateJob(JOB, total=total), attach("w"))
    for _ in range(5):
        job = changed(job, counted(10))
    assert job.rate.eta == (None if total is None else job.updated_at)


def test_an_arrival_in_the_next_century_is_shown() -> None:
    job = changed(None, CreateJob(JOB, total=2**53), attach("w"))
    for _ in range(5):
        job = changed(job, counted(1))
    assert job.rate.per_s == pytest.approx(1.0)
    assert etas(job.rate) == {None}


def test_a_slow_and_a_fast_half_give_one_date() -> None:
    job = steady(rows=10, seconds=10)
    for _ in range(10):
        job = changed(job, counted(100))
    low, eta, high = job.rate.eta_low, job.rate.eta, job.rate.eta_high
    assert low is not None
    assert eta is not None
    assert high is not None
    assert low < eta < high


reports = st.lists(
    st.tuples(
        st.integers(0, 10_000),
        st.floats(0, 500),
        st.floats(0, 1000),
        st.sampled_from(["none", "pause", "resume"]),
    ),
    max_size=60,
)


def _after(job: Document, rows: int, after_s: float, throttled_s: float, intent: str) -> Document:
    said = report(counts=counted(rows).counts, throttled_s=throttled_s, throttles=1)
    if intent != "none":
        job = changed(job, control(intent), report(acknowledged=intent), after_s=after_s / 2)  # type: ignore[arg-type]
    return changed(job, said, after_s=after_s)


@given(reports)
def test_some_history_makes_the_rate_lie(history: list[tuple[int, float, float, str]]) -> None:
    job = steady(rows=3, seconds=3)
    for step in history:
        before, job = job, _after(job, *step)
        rate = job.rate
        assert rate.per_s is None or rate.per_s >= 0
        assert rate.active_s >= rate.samples[-1][0] - 1e-6
        assert rate.paused_s >= before.rate.paused_s
        assert list(rate.samples) == sorted(rate.samples)
        assert len(rate.samples) <= MAX_SAMPLES
        assert job.started_at is not None
        spent_s = (job.updated_at - job.started_at).total_seconds()
        assert rate.active_s + rate.paused_s + rate.throttled_s == pytest.approx(spent_s, abs=0.01)
        _check_dates(job)


def _check_dates(job: Document) -> None:
    rate = job.rate
    if rate.eta is None:
        return
    assert job.status == "running"
    assert rate.eta >= job.updated_at - timedelta(seconds=1000)
    assert rate.eta_low is None or rate.eta_low <= rate.eta + timedelta(microseconds=1)
    assert rate.eta_high is None or rate.eta_high >= rate.eta - timedelta(microseconds=1)


def working(rehearsal: Rehearsal, *, reports: int, rows: int = 50) -> Document:
    return rehearsal.say(*(counted(rows) for _ in range(reports)))


def test_a_restart_of_the_writer_forgets_the_rate() -> None:
    rehearsal = begun("w")
    before = working(rehearsal, reports=10)
    rehearsal.restart()
    after = working(rehearsal, reports=1)
    assert after.rate.per_s == pytest.approx(before.rate.per_s, rel=0.1)
    assert after.rate.active_s == pytest.approx(before.rate.active_s + 1)


def test_a_clock_that_jumps_while_the_writer_is_away_makes_time_negative() -> None:
    rehearsal = begun("w")
    before = working(rehearsal, reports=10)
    rehearsal.restart()
    rehearsal.seconds -= 7_200
    after = rehearsal.say(counted(50))
    assert after.rate.active_s >= before.rate.active_s
    assert after.rate.per_s is not None
    assert after.rate.per_s > 0


def test_a_failed_commit_hides_active_time() -> None:
    """What was proposed and dropped must not move the clock: else each refusal makes the job look faster."""
    rehearsal = begun("w")
    working(rehearsal, reports=5)
    for _ in range(9):
        rehearsal.seconds += 1
        rehearsal.propose(rehearsal.request(counted(50)))
        rehearsal.actor.abort()
    after = rehearsal.say(counted(50))
    assert after.rate.active_s == pytest.approx(15)


@pytest.mark.parametrize(
    ("beat_s", "progress_s", "paused", "health"),
    [
        (0, 0, False, "healthy"),
        (9.9, 119.9, False, "healthy"),
        (10, 0, False, "late"),
        (29.9, 500, False, "late"),
        (30, 0, False, "dead"),
        (1e9, 1e9, True, "dead"),
        (0, 120, False, "stalled"),
        (0, 120, True, "healthy"),
        (10, 500, True, "late"),
    ],
)
def test_a_worker_is_judged_wrongly(beat_s: float, progress_s: float, *, paused: bool, health: str) -> None:
    assert judge(beat_s, progress_s, LIMITS, paused=paused) == health


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 100), st.booleans())
def test_waiting_longer_makes_a_worker_healthier(beat_s: float, progress_s: float, more_s: float, paused: bool) -> None:  # noqa: FBT001 - drawn
    order = ["healthy", "stalled", "late", "dead"]
    first, later = (judge(beat_s + s, progress_s + s, LIMITS, paused=paused) for s in (0.0, more_s))
    assert order.index(first) <= order.index(later)


def test_a_job_without_workers_has_a_health() -> None:
    assert changed(a_job(), Detach(JOB, "w", 1)).health is None
    assert changed(a_job(), FinishJob(JOB, "completed")).health is None
    assert changed(a_job(), judged("dead")).health == "dead"
