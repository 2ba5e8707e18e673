"""Client processes that a test starts, follows line by line and kills; and the ways to wait that tests share.

A child runs one function of a test module, with text arguments, in a Python of its own. It reports with
`tell` and waits with `hear`.
"""

import contextlib
import importlib
import json
import multiprocessing
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import IO, Self, cast

import pytest

from actorstate.client.run import Run
from actorstate.client.sync import Client, connect
from actorstate.config import ClientSettings
from actorstate.core.messages.document import JobState
from tests.support.writer import WriterProcess

ROOT = Path(__file__).resolve().parents[2]
WITHIN_S = 30.0
"""What a test waits for comes within this, or the test fails."""
LIVELY = ClientSettings(heartbeat_s=0.1)
"""Beats, and with them control intents, ten times as often as usual."""
SLOW = pytest.mark.slow
"""For the cases of a table that are left out of the everyday run."""
HASTY = ClientSettings(timeout_s=0.5, attempt_s=0.1, heartbeat_s=0.1, exit_flush_s=0.5)
"""Gives up soon, for tests in which nobody answers."""


class Child:
    """A Python process that runs `function(*arguments)`; killed, if it still lives, when the block ends.

    `before` is code that it executes before it imports anything of ours.
    """

    def __init__(self, function: Callable[..., object], *arguments: object, before: str = "") -> None:
        code = f"{before}\nfrom tests.support.processes import main\nmain()"
        command = [sys.executable, "-c", code, function.__module__, function.__name__, *map(str, arguments)]
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        self._unread = b""
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, env=environment, bufsize=0
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.kill()
        for stream in (self.process.stdin, self.process.stdout, self._stderr):
            if stream is not None:
                stream.close()

    @property
    def pid(self) -> int:
        return self.process.pid

    def read(self) -> object:
        """The next thing that it told; fails the test, with its standard error, when it ends or dawdles instead."""
        until = time.monotonic() + WITHIN_S
        while b"\n" not in self._unread:
            data = self._more(until)
            if not data:
                pytest.fail(f"the child {self.process.args!r} said nothing more: {self.errors()}")
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return json.loads(line)

    def remaining(self) -> list[object]:
        """All that it told and nobody has read, once it has ended."""
        until = time.monotonic() + WITHIN_S
        while data := self._more(until):
            self._unread += data
        *lines, self._unread = self._unread.split(b"\n")
        return [json.loads(line) for line in lines]

    def expect(self, told: object) -> None:
        """The next thing that it told is this."""
        assert self.read() == told, self.errors()

    def say(self, line: str = "") -> None:
        """A line for its `hear`."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())

    def wait(self) -> int:
        """Its exit code, once there is one; minus the signal that ended it."""
        return self.process.wait(timeout=WITHIN_S)

    def ends_well(self) -> None:
        """Waits for exit code 0."""
        assert self.wait() == 0, self.errors()

    def send(self, number: signal.Signals) -> None:
        """A signal; SIGSTOP is effective on return."""
        self.process.send_signal(number)
        if number == signal.SIGSTOP:
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self.process.kill()
        self.process.wait()

    def errors(self) -> str:
        """Its standard error so far."""
        return os.pread(self._stderr.fileno(), 1_000_000, 0).decode(errors="replace")

    def _more(self, until: float) -> bytes:
        stdout = self.process.stdout
        assert stdout is not None
        readable, _, _ = select.select([stdout], [], [], max(0.0, until - time.monotonic()))
        return os.read(stdout.fileno(), 65_536) if readable else b""


def tell(told: object) -> None:
    """In a child: a line for the test's `read`."""
    os.write(1, json.dumps(told).encode() + b"\n")


def hear() -> str:
    """In a child: the test's next line."""
    return sys.stdin.readline().rstrip("\n")


def main() -> None:
    """Calls the function that the command line names."""
    module, name, *arguments = sys.argv[1:]
    cast("Callable[..., object]", getattr(importlib.import_module(module), name))(*arguments)


def joined(pid: int) -> int:
    """The exit code of a forked child, once there is one; a child that hangs is killed and fails the test."""
    watch = os.pidfd_open(pid)
    try:
        if not select.select([watch], [], [], WITHIN_S)[0]:
            os.kill(pid, signal.SIGKILL)
    finally:
        os.close(watch)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def forked(child: Callable[[], object]) -> int:
    """Forks; in the child `child` runs, and ends it with 0, or with 1 and a traceback. The child's pid."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        child()
        code = 0
    except BaseException:  # noqa: BLE001 - the edge of a forked process
        traceback.print_exc()
    finally:
        os._exit(code)


PROCESSES: dict[str, type[BaseProcess]] = {
    "fork": multiprocessing.get_context("fork").Process,
    "forkserver": multiprocessing.get_context("forkserver").Process,
    "spawn": multiprocessing.get_context("spawn").Process,
}
"""multiprocessing's processes by start method."""


def together(number: int, work: Callable[[int], object]) -> None:
    """`work(0)` to `work(number - 1)`, each in a thread, all begun at once; raises what the first of them raised."""
    barrier = threading.Barrier(number)
    errors: list[BaseException] = []

    def begin(place: int) -> None:
        try:
            barrier.wait(WITHIN_S)
            work(place)
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    threads = [threading.Thread(target=begin, args=(place,), daemon=True) for place in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WITHIN_S)
    if errors:
        raise errors[0]
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"


class Aside:
    """`work` in a thread beside the test; `result` waits for what it returns, or raises what it raised."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work
        self._returned: object = None
        self._raised: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def result(self, within_s: float = WITHIN_S) -> object:
        self._thread.join(within_s)
        assert not self._thread.is_alive(), "the thread beside the test hangs"
        if self._raised is not None:
            raise self._raised
        return self._returned

    def _run(self) -> None:
        try:
            self._returned = self._work()
        except BaseException as error:  # noqa: BLE001 - `result` raises it
            self._raised = error


def until(client: Client, job: str, wanted: Callable[[JobState], object], within_s: float = WITHIN_S) -> JobState:
    """The first committed state that is as `wanted`; fails the test when there is none `within_s`."""
    end = time.monotonic() + within_s
    state = client.get(job)
    while not wanted(state):
        left_s = end - time.monotonic()
        if left_s <= 0:
            pytest.fail(f"job {job!r} did not get there: {state}")
        state = client.wait(job, after=state.revision, timeout_s=min(left_s, 5.0))
    return state


def unchanged(client: Client, job: str, for_s: float) -> JobState:
    """The state, which stays as it is for so long."""
    state = client.get(job)
    assert client.wait(job, after=state.revision, timeout_s=for_s).revision == state.revision
    return state


def wait_told(run: Run, intent: str | None) -> None:
    """Returns once a reply has told the run what is wanted of its worker."""

    def wait() -> None:
        while run.sender.order[0] != intent:
            run.sender.wait_order_change(run.sender.order)

    Aside(wait).result()


@dataclass(slots=True)
class WakeUps:
    """How late a thread beside the test was woken, in seconds: what this machine makes of a timeout just now."""

    worst_s: float = 0.0
    _over: threading.Event = field(default_factory=threading.Event)

    def measure(self) -> None:
        nap_s = 0.005
        before = time.monotonic()
        while not self._over.wait(nap_s):
            now = time.monotonic()
            self.worst_s = max(self.worst_s, now - before - nap_s)
            before = now

    def end(self) -> None:
        self._over.set()


@contextlib.contextmanager
def ends_within(deadline_s: float) -> Generator[None]:
    """The block ends by its deadline: at most 100 ms late, or five times the wake-up delay measured beside it."""
    wake_ups = WakeUps()
    beside = threading.Thread(target=wake_ups.measure)
    beside.start()
    started = time.monotonic()
    try:
        yield
    finally:
        took_s = time.monotonic() - started
        wake_ups.end()
        beside.join()
    allowed_s = max(0.1, 5 * wake_ups.worst_s)
    assert took_s <= deadline_s + allowed_s, f"{took_s:.3f} s for a deadline of {deadline_s:.3f} s (+ {allowed_s:.3f})"


@contextlib.contextmanager
def frozen(process: WriterProcess | Child) -> Generator[None]:
    """SIGSTOP before the block, SIGCONT after it, however it ends."""
    pid = process.pid
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WriterProcess]:
    """One writer for all tests of a module; a test that needs one to kill takes `writers`."""
    one = WriterProcess(tmp_path_factory.mktemp("served") / "jobs").start()
    yield one
    one.kill()


@pytest.fixture
def client(served: WriterProcess) -> Iterator[Client]:
    """A client of the module's writer."""
    if not served.running:
        served.start()
    with connect(served.directory, settings=LIVELY) as one:
        yield one


@pytest.fixture
def job(request: pytest.FixtureRequest) -> str:
    """An id that no other test of the module uses."""
    return re.sub(r"[^A-Za-z0-9]+", "-", request.node.name)[-120:].strip("-")
