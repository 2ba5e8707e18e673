"""Many workers on one job: exclusive seats, deaths told by the kernel, thresholds, pauses of them all, retries."""

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from actorstate.client.sync import Client, connect
from actorstate.config import WriterSettings
from actorstate.core.messages.document import JobState, Worker
from actorstate.core.messages.requests import Attach
from actorstate.endpoint import process_space, process_started, read_endpoint
from actorstate.errors import AlreadyAttached, Fenced, IllegalTransition, WriterUnavailable
from actorstate.writer import server
from actorstate.writer.deaths import Deaths
from tests.support.core import a_worker
from tests.support.inprocess import WriterThread
from tests.support.processes import (
    LIVELY,
    Child,
    client,
    frozen,
    hear,
    job,
    served,
    tell,
    together,
    unchanged,
    until,
)
from tests.support.wire import Producer, Wire, applied_in
from tests.support.writer import WriterProcess, Writers, writers

__all__ = ["client", "job", "served", "writers"]


def attaches(directory: str, job: str, name: str = "child", exclusive: str = "") -> None:
    """A worker that only beats, until it hears a line."""
    with connect(directory, settings=LIVELY) as client, client.attach(job, worker=name, exclusive=bool(exclusive)):
        tell("attached")
        hear()


def works(directory: str, job: str, name: str, exclusive: str = "") -> None:
    """The same, and counts a row then."""
    with (
        connect(directory, settings=LIVELY) as client,
        client.attach(job, worker=name, exclusive=bool(exclusive)) as run,
    ):
        tell("attached")
        hear()
        run.progress(succeeded=10)
        run.flush()


def follows(directory: str, job: str, name: str) -> None:
    """A worker that heeds what is wanted of it, and tells each row; ends when the job is cancelled."""
    with connect(directory, settings=LIVELY) as client, client.attach(job, worker=name) as run:
        tell("attached")
        while True:
            run.heed()
            run.progress(succeeded=1)
            run.flush()


def seated(stack: ExitStack, directory: Path, job: str, *names: str, work: object = attaches) -> list[Child]:
    """A process for each name, attached."""
    children = [stack.enter_context(Child(work, directory, job, name)) for name in names]  # type: ignore[arg-type]
    for child in children:
        child.expect("attached")
    return children


# --- exclusive seats ------------------------------------------------------------------------------------------


def test_a_live_holder_is_not_named_or_pushed_off(client: Client, served: WriterProcess, job: str) -> None:
    client.create(job)
    with Child(works, served.directory, job, "holder", "exclusive") as holder:
        holder.expect("attached")
        with pytest.raises(AlreadyAttached) as refused, client.attach(job, exclusive=True):
            pass
        assert (refused.value.holder, refused.value.health) == ("holder", "healthy")
        with client.attach(job, worker="next", exclusive=True, take_over=True) as run:
            assert list(client.get(job).workers) == ["next"]
            run.progress(succeeded=1)
            run.flush()
        holder.say()
        assert holder.wait() != 0
        assert "Fenced" in holder.errors()
    assert client.get(job).progress.processed == 1


def test_the_seat_of_a_process_that_has_ended_is_kept_for_it(client: Client, served: WriterProcess, job: str) -> None:
    """Killed and replaced at once: nobody waits for `dead_after_s`."""
    client.create(job)
    for _ in range(3):
        with Child(attaches, served.directory, job, "holder", "exclusive") as holder:
            holder.expect("attached")
            holder.kill()
            with client.attach(job, worker="next", exclusive=True) as run:
                run.progress(succeeded=1)
    assert client.get(job).progress.processed == 3


@pytest.mark.slow
def test_a_stopped_holder_keeps_its_seat_until_it_counts_as_dead(tmp_path: Path) -> None:
    with WriterThread(tmp_path), connect(tmp_path, settings=LIVELY) as client:
        client.create("job", late_after_s=0.5, dead_after_s=1.5)
        with Child(works, tmp_path, "job", "holder", "exclusive") as holder:
            holder.expect("attached")
            with frozen(holder):
                until(client, "job", lambda state: state.health == "late")
                with pytest.raises(AlreadyAttached, match=r"'holder' \(late"), client.attach("job", exclusive=True):
                    pass
                until(client, "job", lambda state: state.health == "dead")
                with client.attach("job", worker="next", exclusive=True):
                    assert list(client.get("job").workers) == ["next"]
            holder.say()
            assert holder.wait() != 0
            assert "Fenced" in holder.errors()


# --- death -----------------------------------------------------------------------------------------------------


@pytest.fixture
def without_ticks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client of a writer that ticks once, at its start, and then not any more."""
    monkeypatch.setattr(server, "TICK_S", 3_600.0)
    with WriterThread(tmp_path), connect(tmp_path, settings=LIVELY) as client:
        yield client


def test_a_death_is_noticed_at_the_next_tick_only(without_ticks: Client, tmp_path: Path) -> None:
    client = without_ticks
    client.create("job")
    with ExitStack() as stack:
        one, two = seated(stack, tmp_path, "job", "one", "two")
        two.kill()
        state = until(client, "job", lambda state: state.health == "dead")
        assert {name: worker.health for name, worker in state.workers.items()} == {"one": "healthy", "two": "dead"}
        one.kill()
        until(client, "job", lambda state: state.workers["one"].health == "dead")


@pytest.mark.slow
def test_a_stopped_writer_takes_its_workers_for_dead_when_it_wakes(writers: Writers) -> None:
    writer = writers().start()
    with connect(writer.directory) as client, Wire(read_endpoint(writer.directory)) as wire:
        client.create("job", on_dead="fail", late_after_s=0.5, dead_after_s=5.0)
        applied_in(wire.ask(Producer().change(Attach("job", "silent", "host", os.getpid()))))
        late = until(client, "job", lambda state: state.health == "late")
        with frozen(writer), pytest.raises(WriterUnavailable):
            client.get("job", timeout_s=6.0)
        awake = client.wait("job", after=late.revision, timeout_s=server.TICK_S)
        assert (awake.health, awake.status) == ("late", "running"), (
            "it was judged by the time in which nobody was heard"
        )
        assert until(client, "job", lambda state: state.finished).status == "failed"


@pytest.mark.slow
def test_a_worker_that_outlives_its_writer_dies_unnoticed(writers: Writers) -> None:
    writer = writers().start()
    with connect(writer.directory, settings=LIVELY) as client, ExitStack() as stack:
        client.create("job")
        [child] = seated(stack, writer.directory, "job", "w")
        writer.restart()
        child.kill()
        dead = until(client, "job", lambda state: state.health == "dead")
        assert dead.last_beat_s["w"] < WriterSettings().late_after_s


def test_a_process_is_not_watched_any_more_and_its_descriptor_stays(without_ticks: Client, tmp_path: Path) -> None:
    without_ticks.create("job")
    deaths = Deaths()
    workers = {"w": here(), "v": here(incarnation=2)}
    before = descriptors()
    deaths.follow("job", workers)
    assert (deaths.jobs, descriptors()) == (("job",), before + 2)
    deaths.follow("job", {"w": workers["w"]})
    deaths.follow("job", {"w": here(incarnation=3)})
    assert descriptors() == before + 1
    deaths.follow("job", {})
    assert (deaths.jobs, descriptors()) == ((), before)
    deaths.close()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def here(incarnation: int = 1, **fields: object) -> Worker:
    """A worker that says it is this process."""
    pid = os.getpid()
    return a_worker(incarnation, **{"pid": pid, "boot": process_space(), "started": process_started(pid), **fields})


def test_a_pid_that_was_given_away_again_stands_for_its_first_owner() -> None:
    deaths, reused = Deaths(), here(started=process_started(os.getpid()) - 1)
    deaths.follow("job", {"w": reused})
    assert deaths.jobs == ()
    assert deaths.is_gone(reused)
    assert not deaths.is_gone(here())
    assert not deaths.is_gone(here(boot="another boot", started=1))
    deaths.close()


def test_more_workers_than_can_be_watched_are_never_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actorstate.writer.deaths.MAX_WATCHED", 1)
    with WriterThread(tmp_path), connect(tmp_path, settings=LIVELY) as client, ExitStack() as stack:
        client.create("job")
        _watched, other = seated(stack, tmp_path, "job", "one", "two")
        other.kill()
        state = until(client, "job", lambda state: state.health == "dead", within_s=WriterSettings().late_after_s / 2)
        assert state.workers["one"].health == "healthy"


@pytest.mark.alone
def test_the_news_of_a_death_takes_a_fraction_of_a_tick(client: Client, served: WriterProcess, job: str) -> None:
    client.create(job, on_dead="free")
    took_s: list[float] = []
    for _ in range(5):
        with ExitStack() as stack:
            [child] = seated(stack, served.directory, job, "w")
            waiting = client.get(job)
            started = time.monotonic()
            child.process.kill()
            until(client, job, lambda state: not state.workers)
            took_s.append(time.monotonic() - started)
            assert waiting.workers
    ratio = statistics.median(took_s) / server.TICK_S
    print(f"from SIGKILL to the committed news: {ratio:.4f} of a tick (worst {max(took_s) / server.TICK_S:.4f})")
    assert ratio < 0.25


# --- what a death does, and thresholds of a job's own ----------------------------------------------------------


def test_a_job_waits_for_ever_for_a_worker_that_was_killed(client: Client, served: WriterProcess, job: str) -> None:
    client.create(job, on_dead="fail")
    with ExitStack() as stack:
        one, two = seated(stack, served.directory, job, "one", "two")
        one.kill()
        until(client, job, lambda state: state.health == "dead")
        assert client.get(job).status == "running"
        two.kill()
        state = until(client, job, lambda state: state.finished)
    assert (state.status, state.reason) == (
        "failed",
        f"its last live worker is dead: two (process {two.pid} on {os.uname().nodename})",
    )


def test_the_track_of_a_killed_worker_is_its_own_for_ever(client: Client, served: WriterProcess, job: str) -> None:
    client.create(job, on_dead="free")
    with Child(tracks, served.directory, job) as child:
        child.expect(2)
        child.kill()
        until(client, job, lambda state: not state.workers)
    with client.attach(job, worker="next", exclusive=True) as run:
        assert list(run.track(range(5), every=1)) == [2, 3, 4]
    assert client.get(job).progress.processed == 5


def tracks(directory: str, job: str) -> None:
    with connect(directory, settings=LIVELY) as client, client.attach(job, worker="child", exclusive=True) as run:
        for row in run.track(range(5), every=1):
            tell(row) if row == 2 else None
            hear() if row == 2 else None


def test_a_job_is_judged_by_the_thresholds_of_another(tmp_path: Path) -> None:
    settings = WriterSettings(late_after_s=0.3, dead_after_s=600.0, stalled_after_s=600.0)
    with WriterThread(tmp_path, settings), connect(tmp_path, settings=LIVELY) as client, ExitStack() as stack:
        client.create("plain")
        client.create("patient", late_after_s=600.0)
        client.create("strict", dead_after_s=0.3)
        client.create("brisk", stalled_after_s=0.3)
        names = ("plain", "patient", "strict")
        children = {name: seated(stack, tmp_path, name, "w")[0] for name in names}
        with client.attach("brisk", worker="w"):
            for child in children.values():
                stack.enter_context(frozen(child))
            found = {name: healths(client, name) for name in (*names, "brisk")}
    assert found == {"plain": "late", "patient": "healthy", "strict": "dead", "brisk": "stalled"}


def healths(client: Client, job: str) -> str | None:
    """The health at which it stays; the patient one is looked at last of all by the order of the clock alone."""
    if job == "patient":
        until(client, "plain", lambda state: state.health == "late")
        return client.get(job).health
    return until(client, job, lambda state: state.health != "healthy").health


@pytest.mark.slow
def test_a_threshold_of_a_job_is_forgotten_with_the_writer(writers: Writers) -> None:
    writer = writers().start()
    with connect(writer.directory, settings=LIVELY) as client, ExitStack() as stack:
        client.create("job", dead_after_s=1.0)
        [child] = seated(stack, writer.directory, "job", "w")
        writer.restart()
        with frozen(child):
            until(client, "job", lambda state: state.health == "dead", within_s=WriterSettings().late_after_s)


# --- pauses of several -----------------------------------------------------------------------------------------


def paused(client: Client, job: str) -> JobState:
    return until(client, job, lambda state: state.status == "paused")


def test_a_pause_of_several_is_done_too_early_or_never(writers: Writers) -> None:
    """Three processes; one dies before it hears, the writer restarts, one attaches while the job is paused."""
    writer = writers().start()
    with connect(writer.directory, settings=LIVELY) as client, ExitStack() as stack:
        client.create("job")
        one, two = seated(stack, writer.directory, "job", "one", "two", work=follows)
        [deaf] = seated(stack, writer.directory, "job", "deaf")
        until(client, "job", lambda state: state.progress.processed > 5)
        client.pause("job", by="ops")
        state = until(client, "job", lambda state: heard(state) == {"one", "two"})
        assert state.status == "running"
        writer.restart()
        assert client.get("job").status == "running"
        deaf.kill()
        state = paused(client, "job")
        rows = state.progress.processed
        [newcomer] = seated(stack, writer.directory, "job", "three", work=follows)
        until(client, "job", lambda state: "three" in heard(state))
        assert unchanged(client, "job", 5 * LIVELY.heartbeat_s).progress.processed == rows
        writer.restart()
        assert client.get("job").status == "paused"
        client.resume("job")
        until(client, "job", lambda state: state.progress.processed > rows + 5)
        client.cancel("job")
        state = until(client, "job", lambda state: state.finished)
        assert state.status == "cancelled"
        for child in (one, two, newcomer):
            child.ends_well()
    outcomes = state.progress
    assert outcomes.processed == outcomes.succeeded > rows


def heard(state: JobState) -> set[str]:
    return {name for name, worker in state.workers.items() if worker.acknowledged == "pause"}


def test_a_late_word_of_the_former_attempt_is_counted_in_the_next(client: Client, job: str) -> None:
    client.create(job)
    with pytest.raises(Fenced):
        speak_through_a_retry(client, job)
    state = client.get(job)
    assert (state.status, state.attempt, state.progress.processed) == ("pending", 2, 3)
    assert (state.attempts[0].outcome, state.attempts[0].reason) == ("failed", "enough")
    with client.attach(job, worker="old") as run:
        run.progress(succeeded=1)
    assert client.get(job).progress.processed == 4


def speak_through_a_retry(client: Client, job: str) -> None:
    with client.attach(job, worker="old") as run:
        run.progress(succeeded=3)
        run.flush()
        client.fail(job, "enough")
        client.retry(job, by="ops")
        run.progress(succeeded=4)


def test_a_retried_run_begins_at_the_first_row_again_or_counts_twice(client: Client, job: str) -> None:
    seen: list[int] = []

    def work(stop_at: int) -> None:
        with client.run(job, total=10) as run:
            for row in run.track(range(10), every=1):
                if row == stop_at:
                    raise ValueError(row)
                seen.append(row)

    with pytest.raises(ValueError, match="4"):
        work(stop_at=4)
    assert client.get(job).status == "failed"
    client.retry(job)
    work(stop_at=99)
    state = client.get(job)
    assert (seen, state.status, state.progress.processed) == (list(range(10)), "completed", 10)
    client.retry(job, from_start=True)
    work(stop_at=99)
    state = client.get(job)
    assert (seen[10:], state.progress.processed, state.attempt) == (list(range(10)), 10, 3)
    assert [(each.outcome, each.progress.processed) for each in state.attempts] == [("failed", 4), ("completed", 10)]


def test_two_who_retry_at_once_open_two_attempts(client: Client, job: str) -> None:
    """The older tool's lock for this lay in one process's memory (defect d)."""
    client.create(job)
    client.fail(job, "enough")
    refused: list[IllegalTransition] = []

    def retry(_number: int) -> None:
        try:
            client.retry(job)
        except IllegalTransition as error:
            refused.append(error)

    together(4, retry)
    assert (len(refused), client.get(job).attempt) == (3, 2)


def test_a_phase_without_rows_has_no_heartbeat(tmp_path: Path) -> None:
    """In the older tool the phases `detecting` and `deleting` looked stale after a minute (defect j)."""
    with WriterThread(tmp_path), connect(tmp_path, settings=LIVELY) as client:
        client.create("job", late_after_s=1.0)
        client.create("silent", late_after_s=1.0)
        with client.attach("job") as run, Child(attaches, tmp_path, "silent") as child:
            child.expect("attached")
            run.phase("detecting")
            run.flush()
            with frozen(child):
                until(client, "silent", lambda state: state.health == "late")
                state = client.get("job")
            assert (state.phase, state.health) == ("detecting", "healthy")


def test_failures_are_told_to_a_twin_of_the_job(client: Client, job: str) -> None:
    """The older tool ran each job under a second id that nobody was told (defect b)."""
    with client.run(job) as run:
        run.failed("row 7", "no")
        run.fail("enough")
    client.retry(job)
    with client.run(job) as run:
        run.progress(succeeded=1)
    state = client.get(job)
    assert (state.status, state.progress.failed, state.progress.succeeded, state.error_count) == ("completed", 1, 1, 1)
    assert [each.id for each in client.jobs() if each.id.startswith(job)] == [job]
