"""A client that was made, and used, before the process forks: both sides get right answers, and neither hangs.

The programs run in processes of their own, so that pytest itself never forks. Each runs twice: as it is,
and without at-fork hooks, as under uWSGI, where comparing the pid must do.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from actorstate.client.sync import Client, connect
from actorstate.errors import RunClosed
from tests.support.processes import (
    LIVELY,
    PROCESSES,
    SLOW,
    Aside,
    Child,
    client,
    forked,
    hear,
    job,
    joined,
    served,
    tell,
    together,
)
from tests.support.writer import WriterProcess

__all__ = ["client", "job", "served"]

THREADS = 8
NO_HOOKS = """
import concurrent.futures, logging, multiprocessing.util, os, random, threading
os.register_at_fork = lambda **_hooks: None
"""
"""What uWSGI does to us: the hooks of the standard library are in place, those registered after it are never run."""

hooks = pytest.mark.parametrize("before", ["", NO_HOOKS], ids=["hooks", "no-hooks"])


def ask_in_threads(client: Client, name: str) -> None:
    """Eight threads at once, each about jobs of its own: no answer belongs to another one's question."""

    def ask(place: int) -> None:
        for number in range(3):
            own = f"{name}-{place}-{number}"
            assert client.create(own, meta={"of": own}).id == own
            state = client.get(own)
            assert (state.id, state.meta) == (own, {"of": own})

    together(THREADS, ask)


def forks_many_times(directory: str, job: str, forks: str) -> None:
    """Forks again and again; each child's threads make its first calls at once, and the parent goes on meanwhile."""
    client = connect(directory)
    client.create(job)
    for number in range(int(forks)):

        def child(number: int = number) -> None:
            sys.setswitchinterval(1e-6)
            ask_in_threads(client, f"{job}-child-{number}")

        pid = forked(child)
        for _ in range(5):
            assert client.get(job).id == job
        assert joined(pid) == 0
    ask_in_threads(client, f"{job}-parent")
    tell("unharmed")


@hooks
def test_threads_that_call_first_after_a_fork_mix_up_their_answers(
    served: WriterProcess, client: Client, job: str, before: str
) -> None:
    forks = 30
    with Child(forks_many_times, served.directory, job, forks, before=before) as parent:
        parent.expect("unharmed")
        parent.ends_well()
    ids = {state.id for state in client.jobs()}
    expected = {
        f"{job}-child-{fork}-{place}-{number}" for fork in range(forks) for place in range(8) for number in range(3)
    }
    assert expected <= ids


def forks_while_it_waits(directory: str, job: str) -> None:
    """Forks while one of its threads has a request under way."""
    client = connect(directory)
    before = client.create(job)
    waiting = Aside(lambda: client.wait(job, after=before.revision).status)
    for _ in range(20):
        client.get(job)

    def child() -> None:
        ask_in_threads(client, f"{job}-child")
        client.complete(job)

    assert joined(forked(child)) == 0
    assert waiting.result() == "completed"
    tell("unharmed")


@hooks
def test_a_fork_takes_a_request_under_way_with_it(served: WriterProcess, job: str, before: str) -> None:
    with Child(forks_while_it_waits, served.directory, job, before=before) as parent:
        parent.expect("unharmed")
        parent.ends_well()


def forks_within_a_block(directory: str, job: str) -> None:
    """A forked child tries everything with its parent's run, ends, and the parent goes on."""
    client = connect(directory, settings=LIVELY)
    client.create(job)
    with client.attach(job, worker="parent") as run:
        run.progress(succeeded=1)

        def child() -> None:
            uses: list[Callable[[], object]] = [
                lambda: run.progress(succeeded=100),
                lambda: run.failed("row", "error"),
                lambda: run.checkpoint("of the child"),
                run.flush,
                run.complete,
            ]
            for use in uses:
                refused(use)
            with client.attach(job, worker="child") as own:
                own.progress(succeeded=10)

        assert joined(forked(child)) == 0
        run.progress(succeeded=1)
        run.checkpoint("of the parent")
        assert list(client.get(job).workers) == ["parent"]
    tell("unharmed")


def refused(use: Callable[[], object]) -> None:
    try:
        use()
    except RunClosed:
        return
    raise AssertionError("a run was used in another process than its own")


@hooks
def test_a_forked_child_speaks_for_its_parents_worker(
    served: WriterProcess, client: Client, job: str, before: str
) -> None:
    with Child(forks_within_a_block, served.directory, job, before=before) as parent:
        parent.expect("unharmed")
        parent.ends_well()
    state = client.get(job)
    assert (state.progress.processed, state.status, state.workers) == (12, "running", {})
    assert state.checkpoints["default"].data == "of the parent"


def tracks_in_a_forked_child(directory: str, job: str) -> None:
    """A forked child asks its parent's run for rows."""
    client = connect(directory)
    client.create(job)
    with client.attach(job) as run:
        tell(joined(forked(lambda: refused(lambda: next(run.track(range(3)))))))


def test_a_forked_child_is_given_a_row_of_its_parents_track(served: WriterProcess, job: str) -> None:
    with Child(tracks_in_a_forked_child, served.directory, job) as parent:
        parent.expect(0)


def child_leaves_the_parents_block(directory: str, job: str, how: str) -> None:
    """A forked child falls out of its parent's block, with nothing to say and no error."""
    client = connect(directory, settings=LIVELY)
    client.create(job)
    pid = -1
    try:
        with client.attach(job, worker="parent") as run:
            pid = os.fork()
            if pid == 0 and how == "exit":
                sys.exit(7)
            if pid:
                tell(joined(pid))
                run.progress(succeeded=1)
                run.flush()
                assert list(client.get(job).workers) == ["parent"]
        end_of_child(pid, 0)
    except SystemExit:
        end_of_child(pid, 7)
    finally:
        end_of_child(pid, 1)


def end_of_child(pid: int, code: int) -> None:
    if pid == 0:
        os._exit(code)


@pytest.mark.parametrize(("how", "code"), [("exit", 7), ("end", 0)])
def test_a_forked_child_detaches_its_parents_worker(
    served: WriterProcess, client: Client, job: str, how: str, code: int
) -> None:
    with Child(child_leaves_the_parents_block, served.directory, job, how) as parent:
        parent.expect(code)
        parent.ends_well()
    assert client.get(job).progress.processed == 1


def forks_while_the_sender_is_busy(directory: str, job: str) -> None:
    """Forks while another thread holds the lock of the run."""
    client = connect(directory)
    client.create(job)
    with client.attach(job) as run:
        held, release = threading.Event(), threading.Event()

        def hold() -> None:
            with run.sender._changed:  # pyright: ignore[reportPrivateUsage]
                held.set()
                release.wait(10)

        holder = Aside(hold)
        assert held.wait(10)

        def child() -> None:
            signal.alarm(3)
            refused(lambda: run.progress(succeeded=1))
            refused(run.flush)
            refused(run.complete)

        pid = forked(child)
        code = joined(pid)
        release.set()
        holder.result()
    tell(code)


def test_a_forked_child_waits_for_ever_for_a_thread_it_does_not_have(served: WriterProcess, job: str) -> None:
    with Child(forks_while_the_sender_is_busy, served.directory, job) as parent:
        parent.expect(0)
        parent.ends_well()


def leaves_its_pid_to_a_grandchild(directory: str, job: str) -> None:
    """Uses a client, forks and ends; the child, when it is told that the pid is free, forks one that gets this pid."""
    client = connect(directory)
    client.create(job)
    ours = os.getpid()

    def grandchild() -> None:
        signal.alarm(10)
        tell("taken") if os.getpid() != ours else ask_in_threads(client, f"{job}-again")

    if os.fork() == 0:
        hear()
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(ours - 1))
        tell(joined(forked(grandchild)))
    os._exit(0)


def test_a_pid_that_comes_again_finds_the_sockets_of_its_predecessor(served: WriterProcess, job: str) -> None:
    told: object = "taken"
    errors = ""
    for number in range(5):
        with Child(leaves_its_pid_to_a_grandchild, served.directory, f"{job}-{number}") as parent:
            parent.ends_well()
            parent.say()
            told, errors = parent.read(), parent.errors()
        if told != "taken":
            break
    assert told == 0, errors


# --- multiprocessing ----------------------------------------------------------------------------------------

_inherited: list[Client] = []


def counts(directory: str, job: str, rows: int) -> None:
    """A multiprocessing worker: uses the client it inherited, if it did, and a run of its own."""
    client = _inherited[0] if _inherited else connect(directory, settings=LIVELY)
    ask_in_threads(client, f"{job}-{os.getpid()}")
    with client.attach(job) as run:
        for _row in run.track(range(rows), name=str(os.getpid())):
            pass


def starts_workers(directory: str, job: str, method: str) -> None:
    """Four workers of one start method, with a client that was used before."""
    client = connect(directory, settings=LIVELY)
    client.create(job)
    _inherited.append(client)
    with client.attach(job) as run:
        run.progress(succeeded=1)
        crew = [PROCESSES[method](target=counts, args=(directory, job, 50)) for _ in range(4)]
        for process in crew:
            process.start()
        for process in crew:
            process.join(30)
            assert process.exitcode == 0
        run.progress(succeeded=1)
    ask_in_threads(client, f"{job}-parent")
    tell("unharmed")


@pytest.mark.parametrize("method", ["fork", "forkserver", pytest.param("spawn", marks=SLOW)])
def test_multiprocessing_workers_lose_a_row(served: WriterProcess, client: Client, job: str, method: str) -> None:
    with Child(starts_workers, served.directory, job, method) as parent:
        parent.expect("unharmed")
        parent.ends_well()
    state = client.get(job)
    assert (state.progress.processed, state.workers) == (202, {})
