"""A worker's process ends, one way or another, and nothing that it said is lost; what cannot be said is told."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import pytest

from actorstate.client.run import Run
from actorstate.client.sync import Client, connect
from actorstate.config import ClientSettings
from tests.support.processes import (
    HASTY,
    LIVELY,
    PROCESSES,
    SLOW,
    Child,
    client,
    ends_within,
    forked,
    hear,
    job,
    joined,
    served,
    tell,
)
from tests.support.writer import WriterProcess, Writers, writers

__all__ = ["client", "job", "served", "writers"]

ROWS = 25
TERMINATED = 128 + signal.SIGTERM


def block_of(directory: str, job: str, kind: str, settings: ClientSettings = LIVELY) -> AbstractContextManager[Run]:
    """A block whose progress waits for an hour before it is sent by itself."""
    client = connect(directory, settings=settings)
    client.create(job)
    if kind == "run":
        return client.run(job, report_every_s=3_600)
    return client.attach(job, report_every_s=3_600)


def say_rows(run: Run) -> None:
    """Says `ROWS`, most of which have not been sent on return."""
    run.progress(succeeded=1)
    run.flush()
    for _ in range(ROWS - 1):
        run.progress(succeeded=1)
    run.phase("said last")
    assert run.totals.acknowledged < ROWS


def check_all_said(client: Client, job: str, status: str = "running") -> None:
    state = client.get(job)
    assert (state.progress.processed, state.phase, state.status) == (ROWS, "said last", status)


# --- signals ------------------------------------------------------------------------------------------------


def waits_in_its_block(directory: str, job: str, kind: str) -> None:
    with block_of(directory, job, kind) as run:
        say_rows(run)
        tell("said")
        hear()


@pytest.mark.parametrize("kind", ["attach", "run"])
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, TERMINATED), (signal.SIGINT, -signal.SIGINT)],
    ids=["term", "int"],
)
def test_a_signal_loses_what_was_said(
    client: Client, served: WriterProcess, job: str, number: signal.Signals, code: int, kind: str
) -> None:
    with Child(waits_in_its_block, served.directory, job, kind) as child:
        child.expect("said")
        child.send(number)
        assert child.wait() == code, child.errors()
    check_all_said(client, job)
    assert client.get(job).workers == {}
    with client.run(job):
        pass
    assert client.get(job).status == "completed"


def computes_in_its_block(directory: str, job: str) -> None:
    """Never waits, and says a row at a time; tells how many it has said."""
    said = 0
    with block_of(directory, job, "run") as run:
        try:
            tell("started")
            while True:
                run.progress(succeeded=1)
                said += 1
        finally:
            tell(said)


def test_a_signal_between_two_rows_loses_or_doubles_one(client: Client, served: WriterProcess, job: str) -> None:
    for number in range(3):
        with Child(computes_in_its_block, served.directory, f"{job}-{number}") as child:
            child.expect("started")
            child.send(signal.SIGTERM)
            assert child.wait() == TERMINATED, child.errors()
            said = child.read()
        state = client.get(f"{job}-{number}")
        assert (state.status, state.workers) == ("running", {})
        assert isinstance(said, int)
        assert state.progress.processed in {said, said + 1}


def has_a_handler_of_its_own(directory: str, job: str, handler: str) -> None:
    """The user's handler (or SIG_IGN) is there before the block."""
    heard = threading.Event()

    def hears(_number: int, _frame: object) -> None:
        heard.set()

    mine = signal.SIG_IGN if handler == "ignored" else hears
    signal.signal(signal.SIGTERM, mine)
    with block_of(directory, job, "attach") as run:
        say_rows(run)
        assert signal.getsignal(signal.SIGTERM) is mine
        os.kill(os.getpid(), signal.SIGTERM)
        assert handler == "ignored" or heard.wait(10)
    assert signal.getsignal(signal.SIGTERM) is mine


@pytest.mark.parametrize("handler", ["mine", "ignored"])
def test_the_users_own_handler_is_replaced(client: Client, served: WriterProcess, job: str, handler: str) -> None:
    with Child(has_a_handler_of_its_own, served.directory, job, handler) as child:
        child.ends_well()
    check_all_said(client, job)


def sets_a_handler_within_the_block(directory: str, job: str) -> None:
    def mine(_number: int, _frame: object) -> None:
        tell("mine")

    with block_of(directory, job, "attach") as run:
        signal.signal(signal.SIGTERM, mine)
        say_rows(run)
    assert signal.getsignal(signal.SIGTERM) is mine


def test_a_handler_set_within_the_block_is_undone_at_its_end(client: Client, served: WriterProcess, job: str) -> None:
    with Child(sets_a_handler_within_the_block, served.directory, job) as child:
        child.ends_well()
    check_all_said(client, job)


def waits_after_its_blocks(directory: str, job: str) -> None:
    """Two blocks, one in the other; SIGTERM comes when both were left."""
    with block_of(directory, job, "attach") as outer:
        with block_of(directory, job, "attach"):
            pass
        assert signal.getsignal(signal.SIGTERM) not in {signal.SIG_DFL, None}
        say_rows(outer)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    tell("left")
    hear()


def test_sigterm_stays_caught_after_the_block(client: Client, served: WriterProcess, job: str) -> None:
    with Child(waits_after_its_blocks, served.directory, job) as child:
        child.expect("left")
        child.send(signal.SIGTERM)
        assert child.wait() == -signal.SIGTERM
    check_all_said(client, job)


def forks_within_its_block(directory: str, job: str) -> None:
    """A forked child that never entered a block is terminated."""
    with block_of(directory, job, "attach") as run:
        read, write = os.pipe()

        def child() -> None:
            os.write(write, b"x")
            signal.pause()

        pid = forked(child)
        os.read(read, 1)
        os.kill(pid, signal.SIGTERM)
        tell(joined(pid))
        say_rows(run)


def test_a_terminated_child_of_a_worker_does_not_die_of_the_signal(
    client: Client, served: WriterProcess, job: str
) -> None:
    with Child(forks_within_its_block, served.directory, job) as child:
        child.expect(-signal.SIGTERM)
        child.ends_well()
    check_all_said(client, job)


# --- the interpreter's own end ------------------------------------------------------------------------------

_kept: list[AbstractContextManager[Run]] = []


def never_leaves_its_block(directory: str, job: str) -> None:
    """Enters a block by hand, and never leaves it."""
    block = block_of(directory, job, "attach")
    _kept.append(block)
    say_rows(block.__enter__())


def test_the_end_of_the_interpreter_loses_what_was_said(client: Client, served: WriterProcess, job: str) -> None:
    with Child(never_leaves_its_block, served.directory, job) as child:
        child.ends_well()
        assert child.errors() == ""
    check_all_said(client, job)


def ends_with_a_block_open(directory: str, job: str, left: str) -> None:
    """The last lines of a script, with a block that is open or was left."""
    with block_of(directory, job, "attach"):
        pass
    if left == "open":
        never_leaves_its_block(directory, job)
    tell("ending")


def seconds_to_end(child: Child) -> float:
    with child:
        child.expect("ending")
        started = time.monotonic()
        child.ends_well()
        return time.monotonic() - started


def test_an_open_block_keeps_the_interpreter_from_ending(served: WriterProcess, job: str) -> None:
    left_s = seconds_to_end(Child(ends_with_a_block_open, served.directory, job, "left"))
    open_s = seconds_to_end(Child(ends_with_a_block_open, served.directory, job, "open"))
    print(f"the interpreter ended in {left_s:.3f} s, with an open block in {open_s:.3f} s")
    assert open_s <= left_s + LIVELY.exit_flush_s / 2


def exits_in_its_block(directory: str, job: str, kind: str) -> None:
    with block_of(directory, job, kind) as run:
        say_rows(run)
        sys.exit(3)


@pytest.mark.parametrize("kind", ["attach", "run"])
def test_sys_exit_loses_what_was_said(client: Client, served: WriterProcess, job: str, kind: str) -> None:
    with Child(exits_in_its_block, served.directory, job, kind) as child:
        assert child.wait() == 3
    check_all_said(client, job)
    assert client.get(job).workers == {}


def raises_in_its_block(directory: str, job: str) -> None:
    with block_of(directory, job, "run") as run:
        say_rows(run)
        raise ValueError("mine")


def test_an_uncaught_exception_loses_what_was_said(client: Client, served: WriterProcess, job: str) -> None:
    with Child(raises_in_its_block, served.directory, job) as child:
        assert child.wait() == 1
        assert child.errors().rstrip().endswith("ValueError: mine")
    check_all_said(client, job, "failed")


# --- multiprocessing ----------------------------------------------------------------------------------------


def waits_for_ever(directory: str, job: str) -> None:
    with block_of(directory, job, "attach") as run:
        say_rows(run)
        tell("said")
        signal.pause()


def starts_a_worker(directory: str, job: str, method: str, target: str, place: str = "outside") -> None:
    """Starts one multiprocessing worker, within a block of its own or outside; tells the worker's exit code."""
    targets: dict[str, Callable[[str, str], None]] = {"never": never_leaves_its_block, "waits": waits_for_ever}
    worker = PROCESSES[method](target=targets[target], args=(directory, job))
    own = block_of(directory, f"{job}-of-the-parent", "attach") if place == "within" else nullcontext()
    with own:
        worker.start()
        if target == "waits":
            hear()
            worker.terminate()
        worker.join(30)
        tell(worker.exitcode)


@pytest.mark.parametrize(
    ("method", "place"),
    [
        ("fork", "outside"),
        ("fork", "within"),
        pytest.param("forkserver", "within", marks=SLOW),
        ("spawn", "within"),
    ],
)
def test_the_end_of_a_multiprocessing_worker_loses_what_it_said(
    client: Client, served: WriterProcess, job: str, method: str, place: str
) -> None:
    with Child(starts_a_worker, served.directory, job, method, "never", place) as parent:
        parent.expect(0)
        parent.ends_well()
    check_all_said(client, job)


@pytest.mark.parametrize(
    ("method", "place"),
    [
        ("fork", "outside"),
        ("fork", "within"),
        ("forkserver", "within"),
        ("spawn", "within"),
    ],
)
def test_a_terminated_multiprocessing_worker_loses_what_it_said(
    client: Client, served: WriterProcess, job: str, method: str, place: str
) -> None:
    with Child(starts_a_worker, served.directory, job, method, "waits", place) as parent:
        parent.expect("said")
        parent.say()
        parent.expect(TERMINATED)
        parent.ends_well()
    check_all_said(client, job)
    assert client.get(job).workers == {}


# --- with the writer away -----------------------------------------------------------------------------------


BRISK = replace(HASTY, exit_flush_s=1.0, timeout_s=0.3)


def leaves_somehow(directory: str, job: str, how: str) -> None:
    """Says rows, and when it hears a line, ends with most of them unsaid or not."""
    block = block_of(directory, job, "attach", BRISK)
    if how == "open":
        _kept.append(block)
        say_rows(block.__enter__())
        tell("said")
        hear()
        return
    with block as run:
        say_rows(run)
        tell("said")
        hear()
        if how == "exit":
            sys.exit(3)


WAYS = {"open": 0, "exit": 3, "end": 1, "term": TERMINATED}
"""How a process leaves, and the exit code where the writer is away."""
ways = pytest.mark.parametrize("how", ["term", *(pytest.param(how, marks=SLOW) for how in WAYS if how != "term")])


def seconds_to_leave(child: Child, how: str) -> float:
    """From the line, or the signal, to the end of the process."""
    started = time.monotonic()
    child.send(signal.SIGTERM) if how == "term" else child.say()
    child.wait()
    return time.monotonic() - started


@ways
def test_a_process_cannot_end_while_the_writer_is_away(writers: Writers, how: str) -> None:
    writer = writers().start()
    with Child(leaves_somehow, writer.directory, "job", how) as there:
        there.expect("said")
        usual_s = seconds_to_leave(there, how)
    with Child(leaves_somehow, writer.directory, "job", how) as child:
        child.expect("said")
        writer.kill()
        with ends_within(usual_s + BRISK.exit_flush_s + BRISK.timeout_s):
            seconds_to_leave(child, how)
        assert child.wait() == WAYS[how], child.errors()
        told = child.errors()
    writer.start()
    with connect(writer.directory) as client:
        assert client.get("job").progress.processed == ROWS + 1
    if how in {"open", "end"}:
        assert "did not answer" in told


@ways
def test_a_process_ends_and_does_not_say_what_was_lost(writers: Writers, how: str) -> None:
    writer = writers().start()
    with Child(leaves_somehow, writer.directory, "import-42", how) as child:
        child.expect("said")
        writer.kill()
        seconds_to_leave(child, how)
        told = child.errors()
    assert "import-42" in told
    assert str(ROWS - 1) in told
