"""Pause, resume and cancel as workers and watchers see them; and health, judged while processes stop and die."""

import ctypes
import os
import queue
import select
import signal
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from actorstate.client.operations import WAIT_SLICE_S
from actorstate.client.run import Run
from actorstate.client.sync import Client, connect
from actorstate.config import ClientSettings, WriterSettings
from actorstate.core.messages.document import JobState
from actorstate.errors import JobFinished
from actorstate.store.location import located
from actorstate.writer.process import serve
from tests.support.processes import (
    LIVELY,
    WITHIN_S,
    Aside,
    Child,
    client,
    frozen,
    hear,
    job,
    served,
    tell,
    unchanged,
    until,
    wait_told,
)
from tests.support.writer import WriterProcess, Writers, writers

__all__ = ["client", "job", "served", "writers"]

SOON_S = WAIT_SLICE_S / 2
"""News that comes with the end of a long poll, and not with the change itself, does not come by then."""
ENOUGH = 10
"""Reads after which news that a test does not wait for would have come."""


class Worker:
    """A worker in a thread of its own: takes the rows that the test feeds it, in one track; `None` ends its block."""

    def __init__(self, client: Client, job: str, name: str) -> None:
        self.rows: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self.seen: list[int] = []
        self.name = name
        self._client, self._job = client, job
        self._runs: queue.SimpleQueue[Run] = queue.SimpleQueue()
        self._aside = Aside(self._work)
        self.run = self._runs.get(timeout=WITHIN_S)

    def feed(self, *rows: int | None) -> None:
        for row in rows:
            self.rows.put(row)

    def feed_once_told(self, intent: str, *rows: int) -> None:
        """Rows that it fetches when it knows what is wanted of it."""
        wait_told(self.run, intent)
        self.feed(*rows)

    def result(self) -> object:
        """Waits for the end of its block; raises what the block raised."""
        return self._aside.result()

    def _work(self) -> None:
        with self._client.attach(self._job, worker=self.name) as run:
            self._runs.put(run)
            for row in run.track(iter(self.rows.get, None), name=self.name, every=1_000):
                self.seen.append(row)


@contextmanager
def workers(client: Client, job: str, *names: str) -> Generator[list[Worker]]:
    """Workers that have attached; their rows end with the block, and it waits for them."""
    crew = [Worker(client, job, name) for name in names]
    try:
        yield crew
    finally:
        for worker in crew:
            worker.feed(None)
        for worker in crew:
            worker.result()


def processed(client: Client, job: str, rows: int) -> JobState:
    return until(client, job, lambda state: state.progress.processed == rows)


def intent_of(state: JobState) -> tuple[str, str]:
    assert state.control is not None
    return state.control.intent, state.control.state


def paused(client: Client, job: str) -> JobState:
    return until(client, job, lambda state: state.status == "paused")


# --- one worker ---------------------------------------------------------------------------------------------


def test_a_job_is_paused_before_its_worker_has_stopped(client: Client, job: str) -> None:
    client.create(job)
    with workers(client, job, "w") as [worker]:
        worker.feed(1, 2, 3)
        client.pause(job, by="ops")
        state = processed(client, job, 3)
        assert (state.status, intent_of(state)) == ("running", ("pause", "requested"))
        worker.feed_once_told("pause", 4, 5, 6)
        state = paused(client, job)
        assert intent_of(state) == ("pause", "done")
        assert state.control is not None
        assert state.control.by == "ops"
        assert state.health == "paused"
        assert worker.seen == list(range(1, state.progress.processed + 1))
        assert state.tracks["w"].done == state.tracks["w"].counted == state.progress.processed
        unchanged(client, job, 5 * LIVELY.heartbeat_s)
        client.resume(job)
        processed(client, job, 6)
        assert client.get(job).status == "running"
    assert worker.seen == [1, 2, 3, 4, 5, 6]
    assert client.get(job).progress.processed == 6


def test_a_cancelled_worker_loses_its_progress_or_raises(client: Client, job: str) -> None:
    client.create(job)
    with workers(client, job, "w") as [worker]:
        worker.feed(1, 2, 3)
        processed(client, job, 3)
        client.cancel(job)
        assert client.get(job).status == "running"
        worker.feed_once_told("cancel", *range(4, 100))
        state = until(client, job, lambda state: state.finished)
    assert (state.status, intent_of(state), state.workers) == ("cancelled", ("cancel", "done"), {})
    assert state.progress.processed == len(worker.seen) < 99
    assert state.tracks["w"].done == len(worker.seen)
    with pytest.raises(JobFinished):
        client.resume(job)


def test_a_cancelled_run_is_completed_or_failed(client: Client, job: str) -> None:
    after: list[str] = []
    with client.run(job) as run:
        run.progress(succeeded=1)
        client.cancel(job)
        wait_told(run, "cancel")
        run.heed()
        after.append("not reached")
    state = client.get(job)
    assert (state.status, state.progress.processed, after) == ("cancelled", 1, [])


def test_a_paused_worker_does_not_hear_of_its_cancellation(client: Client, job: str) -> None:
    client.create(job)
    with workers(client, job, "w") as [worker]:
        client.pause(job)
        worker.feed_once_told("pause", *range(9))
        paused(client, job)
        client.cancel(job)
    state = client.get(job)
    assert (state.status, state.progress.processed) == ("cancelled", len(worker.seen))


def test_a_withdrawn_pause_stops_the_worker(client: Client, job: str) -> None:
    client.create(job)
    with workers(client, job, "w") as [worker]:
        revision = client.get(job).revision
        client.pause(job)
        client.resume(job)
        unchanged(client, job, 5 * LIVELY.heartbeat_s)
        worker.feed(1, 2, 3, 4)
        processed(client, job, 4)
    assert worker.seen == [1, 2, 3, 4]
    state = client.get(job)
    assert (state.status, state.rate.paused_s, state.progress.processed) == ("running", 0.0, 4)
    assert intent_of(state)[0] == "resume"
    assert state.revision > revision


def test_an_intent_repeated_changes_the_job(client: Client, job: str) -> None:
    client.create(job)
    with workers(client, job, "w"):
        until(client, job, lambda state: state.tracks)
        client.pause(job)
        revision = client.get(job).revision
        client.pause(job)
        assert client.get(job).revision == revision
        client.resume(job)
        revision = client.get(job).revision
        client.resume(job)
        assert client.get(job).revision == revision


def test_a_second_pause_right_after_a_resume_is_never_acknowledged(client: Client, served: WriterProcess) -> None:
    slow = connect(served.directory, settings=ClientSettings(heartbeat_s=0.5))
    slow.create("twice")
    with slow, workers(slow, "twice", "w") as [worker]:
        slow.pause("twice")
        worker.feed_once_told("pause", 1, 2, 3)
        paused(client, "twice")
        client.resume("twice")
        client.pause("twice")
        try:
            until(client, "twice", lambda state: state.status == "paused", within_s=2.0)
        finally:
            client.cancel("twice")


def test_a_signal_does_not_end_a_paused_worker(client: Client, served: WriterProcess, job: str) -> None:
    with Child(tracks_rows, served.directory, job) as child:
        child.expect(0)
        client.pause(job)
        paused_with(child, client, job)
        child.send(signal.SIGTERM)
        assert child.wait() == 143
    state = client.get(job)
    assert (state.status, state.workers) == ("paused", {})


def tracks_rows(directory: str, job: str) -> None:
    """Runs endless rows: tells each, and waits for a line before the next."""
    with connect(directory, settings=LIVELY) as client, client.run(job) as run:
        for row in run.track(range(1_000_000), every=1_000):
            tell(row)
            hear()


def paused_with(child: Child, client: Client, job: str) -> None:
    """Lets the child go from row to row until it heeds the pause."""
    stop = threading.Event()

    def encourage() -> None:
        for _ in range(200):
            child.say()
            if stop.wait(LIVELY.heartbeat_s / 2):
                return

    beside = Aside(encourage)
    paused(client, job)
    stop.set()
    beside.result()


# --- nobody, and several ------------------------------------------------------------------------------------


def test_an_intent_waits_for_workers_that_do_not_exist(client: Client, job: str) -> None:
    client.create(job)
    client.pause(job)
    assert (client.get(job).status, intent_of(client.get(job))) == ("paused", ("pause", "done"))
    client.resume(job)
    assert (client.get(job).status, intent_of(client.get(job))) == ("pending", ("resume", "done"))
    client.cancel(job)
    assert (client.get(job).status, intent_of(client.get(job))) == ("cancelled", ("cancel", "done"))


def test_an_intent_waits_for_a_worker_that_is_dead(client: Client, served: WriterProcess, job: str) -> None:
    with Child(tracks_rows, served.directory, job) as child:
        child.expect(0)
        client.cancel(job)
        assert intent_of(client.get(job)) == ("cancel", "requested")
        child.kill()
        state = until(client, job, lambda state: state.finished)
    assert (state.status, intent_of(state)) == ("cancelled", ("cancel", "done"))


def test_a_job_is_paused_when_one_of_its_workers_has_stopped(client: Client, job: str) -> None:
    client.create(job)
    with workers(client, job, "one", "two") as [one, two]:
        client.pause(job)
        one.feed_once_told("pause", *range(9))
        state = until(client, job, lambda state: intent_of(state)[1] != "requested")
        assert (state.status, intent_of(state)) == ("running", ("pause", "acknowledged"))
        assert [state.workers[name].acknowledged for name in ("one", "two")] == ["pause", None]
        two.feed_once_told("pause", *range(9))
        state = paused(client, job)
        assert intent_of(state) == ("pause", "done")
        client.resume(job)
        processed(client, job, 18)


@pytest.mark.parametrize("left", ["left", "dead"])
def test_a_pause_waits_for_a_worker_that_has_gone(client: Client, served: WriterProcess, job: str, left: str) -> None:
    client.create(job)
    with ExitStack() as stack:
        child = stack.enter_context(Child(attaches, served.directory, job))
        child.expect("attached")
        [worker] = stack.enter_context(workers(client, job, "w"))
        client.pause(job)
        worker.feed_once_told("pause", *range(9))
        until(client, job, lambda state: intent_of(state)[1] == "acknowledged")
        child.say() if left == "left" else child.kill()
        paused(client, job)
        client.resume(job)
        processed(client, job, 9)


def attaches(directory: str, job: str) -> None:
    """A worker that only beats, until it hears a line."""
    with connect(directory, settings=LIVELY) as client, client.attach(job, worker="child"):
        tell("attached")
        hear()


def test_each_row_waits_for_the_disk_while_another_worker_has_not_heeded_the_resume(client: Client, job: str) -> None:
    client.create(job)
    with client.attach(job, worker="busy"), client.attach(job, worker="w") as run:
        client.pause(job)
        client.resume(job)
        wait_told(run, "resume")
        before, rows = run.sender.messages, 300
        for _row in run.track(range(rows), every=rows):
            pass
        assert run.sender.messages - before < rows / 3


# --- intents outlive processes ------------------------------------------------------------------------------


def test_an_intent_is_lost_with_the_writer(writers: Writers) -> None:
    writer = writers().start()
    with connect(writer.directory, settings=LIVELY) as client:
        client.create("job")
        with workers(client, "job", "w") as [worker]:
            client.pause("job")
            writer.restart()
            assert intent_of(client.get("job")) == ("pause", "requested")
            worker.feed_once_told("pause", *range(9))
            paused(client, "job")
            writer.restart()
            assert intent_of(client.get("job")) == ("pause", "done")
            assert unchanged(client, "job", 5 * LIVELY.heartbeat_s).status == "paused"
            client.resume("job")
            writer.restart()
            processed(client, "job", 9)
        assert worker.seen == list(range(9))


def test_a_worker_that_starts_while_its_job_is_paused_works(client: Client, served: WriterProcess, job: str) -> None:
    with Child(tracks_rows, served.directory, job) as child:
        child.expect(0)
        client.pause(job)
        child.kill()
        paused(client, job)
    with Child(tracks_rows, served.directory, job) as child:
        until(client, job, lambda state: any(worker.acknowledged == "pause" for worker in state.workers.values()))
        state = unchanged(client, job, 5 * LIVELY.heartbeat_s)
        assert (state.status, state.progress.processed) == ("paused", 0)
        client.resume(job)
        child.expect(0)


# --- those who wait and watch -------------------------------------------------------------------------------


def finish(client: Client, job: str, ending: str) -> None:
    match ending:
        case "completed":
            client.complete(job)
        case "failed":
            client.fail(job, "because")
        case _:
            client.cancel(job)


@pytest.mark.parametrize("ending", ["completed", "failed", "cancelled"])
def test_a_watcher_misses_the_end(client: Client, served: WriterProcess, job: str, ending: str) -> None:
    client.create(job)
    watching = connect(served.directory)
    states: list[JobState] = []

    def watch() -> None:
        states.extend(watching.watch(job))

    with watching:
        beside = Aside(watch)
        with client.attach(job) as run:
            for _ in range(5):
                run.progress(succeeded=1)
                run.flush()
            finish(client, job, ending)
            if ending == "cancelled":
                wait_told(run, "cancel")
                run.heed()
        beside.result(SOON_S)
    assert states[-1].status == ending
    assert states[-1].progress.processed == 5
    revisions = [state.revision for state in states]
    assert revisions == sorted(set(revisions))


def test_a_reader_that_waits_is_not_told_of_a_change(client: Client, served: WriterProcess, job: str) -> None:
    before = client.create(job)
    with connect(served.directory) as waiting:
        beside = Aside(lambda: waiting.wait(job, after=before.revision).status)
        for _ in range(ENOUGH):
            assert client.get_if_newer(job, before.revision) is None
        client.complete(job)
        assert beside.result(SOON_S) == "completed"


def test_waiting_for_a_finished_job_takes_the_whole_timeout(client: Client, job: str) -> None:
    client.create(job)
    client.complete(job)
    last = client.get(job)
    beside = Aside(lambda: client.wait(job, after=last.revision, timeout_s=2 * WITHIN_S).status)
    assert beside.result(SOON_S) == "completed"


def test_a_wait_that_is_over_gives_no_state(client: Client, job: str) -> None:
    before = client.create(job)
    assert client.wait(job, after=before.revision, timeout_s=0.05) == client.get(job)
    assert client.wait(job, after=before.revision, timeout_s=0).revision == before.revision


def test_a_watcher_dies_with_the_writer(writers: Writers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actorstate.client.operations.WAIT_SLICE_S", 0.5)
    writer, states = writers().start(), list[JobState]()
    with connect(writer.directory) as client, connect(writer.directory) as watching:
        client.create("job")
        beside = Aside(lambda: states.extend(watching.watch("job")))
        for restarts in range(1, 4):
            writer.restart()
            with client.attach("job") as run:
                run.progress(succeeded=1)
            assert client.get("job").progress.processed == restarts
        writer.restart()
        client.complete("job")
        beside.result()
    assert states[-1].status == "completed"
    order = [(state.epoch, state.revision) for state in states]
    assert order == sorted(set(order))


@pytest.mark.slow
def test_a_watcher_whose_poll_the_writer_took_with_it_waits_for_ever(writers: Writers) -> None:
    writer = writers().start()
    with connect(writer.directory) as client, connect(writer.directory) as waiting:
        before = client.create("job")
        beside = Aside(lambda: waiting.wait("job", after=before.revision, timeout_s=60).status)
        for _ in range(ENOUGH):
            client.get("job")
        writer.restart()
        client.complete("job")
        assert beside.result() == "completed"


# --- health -------------------------------------------------------------------------------------------------

HEALTH = WriterSettings(late_after_s=1.0, dead_after_s=3.0, stalled_after_s=3.0)


def judges(directory: str) -> None:
    """A writer with short thresholds."""
    serve(located(directory), HEALTH, lambda _endpoint: tell("ready"))


@pytest.fixture(scope="module")
def judging(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory of such a writer."""
    directory = tmp_path_factory.mktemp("judging") / "jobs"
    with Child(judges, directory) as writer:
        writer.expect("ready")
        yield directory


@pytest.fixture
def judged(judging: Path) -> Iterator[Client]:
    with connect(judging, settings=LIVELY) as one:
        yield one


def health(client: Client, job: str, wanted: str) -> JobState:
    return until(client, job, lambda state: state.health == wanted)


def advances(directory: str, job: str) -> None:
    """A worker that counts ten rows a second, until it hears a line."""
    with connect(directory, settings=LIVELY) as client, client.attach(job, worker="child") as run:
        tell("attached")
        while not select.select([sys.stdin], [], [], 0.1)[0]:
            run.progress(succeeded=1)


@pytest.mark.slow
def test_a_stopped_worker_stays_healthy_or_never_recovers(judged: Client, judging: Path, job: str) -> None:
    judged.create(job)
    with Child(advances, judging, job) as child:
        child.expect("attached")
        healthy = health(judged, job, "healthy")
        with frozen(child):
            late = health(judged, job, "late")
            dead = health(judged, job, "dead")
            assert dead.workers["child"].health == "dead"
            assert dead.last_beat_s["child"] >= HEALTH.dead_after_s
        back = health(judged, job, "healthy")
        assert healthy.revision < late.revision < dead.revision < back.revision
        assert back.workers["child"].incarnation == healthy.workers["child"].incarnation
        child.say()
        child.ends_well()
    assert judged.get(job).health is None


def test_the_death_of_a_process_is_noticed_only_when_its_beats_are_missed(
    client: Client, served: WriterProcess, job: str
) -> None:
    client.create(job)
    with Child(attaches, served.directory, job) as child:
        child.expect("attached")
        before = client.get(job)
        child.kill()
        dead = until(client, job, lambda state: state.health == "dead", within_s=WriterSettings().late_after_s / 2)
    assert dead.revision == before.revision + 1
    assert dead.last_beat_s["child"] < WriterSettings().late_after_s


@pytest.mark.slow
def test_a_worker_that_beats_without_progress_is_healthy_for_ever(judged: Client, job: str) -> None:
    judged.create(job)
    with judged.attach(job) as run:
        run.progress(succeeded=1)
        run.flush()
        stalled = health(judged, job, "stalled")
        assert stalled.last_beat_s[run.worker] < HEALTH.late_after_s
        run.progress(succeeded=1)
        run.flush()
        assert judged.get(job).health == "healthy"


@pytest.mark.slow
def test_a_paused_worker_is_judged_late_stalled_or_dead(judged: Client, job: str) -> None:
    judged.create(job)
    with workers(judged, job, "w") as [worker]:
        judged.pause(job)
        worker.feed_once_told("pause", *range(9))
        state = paused(judged, job)
        still = unchanged(judged, job, HEALTH.dead_after_s + 1.0)
        assert (still.health, still.workers["w"].health) == ("paused", "healthy")
        assert still.last_beat_s["w"] < HEALTH.late_after_s
        assert still.revision == state.revision
        judged.resume(job)
        processed(judged, job, 9)


@pytest.mark.slow
def test_a_worker_is_stalled_as_soon_as_a_long_pause_is_over(judged: Client, job: str) -> None:
    judged.create(job)
    with judged.attach(job) as run:
        judged.pause(job)
        wait_told(run, "pause")
        beside = Aside(run.heed)
        paused(judged, job)
        unchanged(judged, job, HEALTH.stalled_after_s + 0.5)
        judged.resume(job)
        beside.result()
        after = unchanged(judged, job, HEALTH.stalled_after_s / 2)
        assert after.health == "healthy"


@pytest.mark.slow
def test_a_pid_in_another_process_space_is_taken_for_ours(judged: Client, judging: Path, job: str) -> None:
    """A worker in a container of its own: its pid means nothing to the writer, only its age counts."""
    judged.create(job)
    with Child(in_a_space_of_its_own, judging, job) as child:
        child.expect("attached")
        unchanged(judged, job, 1.5)
        assert judged.get(job).health == "healthy"
        child.say()
        child.ends_well()


def in_a_space_of_its_own(directory: str, job: str) -> None:
    clone_newpid = 0x20000000  # os.unshare and os.CLONE_NEWPID came with Python 3.12
    assert ctypes.CDLL(None).unshare(clone_newpid) == 0, "this test needs the right to make a pid namespace"
    pid = os.fork()
    if pid == 0:
        attaches(directory, job)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
