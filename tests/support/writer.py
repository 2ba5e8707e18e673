"""Writer processes that a test starts, stops, kills and sabotages.

`WriterProcess` is a writer as users run it. With a fault it is the same `serve`, in a process of its own
too, with a telemetry listener installed first: run as `python -m tests.support.writer FAULT DIRECTORY`.
"""

import contextlib
import logging
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pytest
from _pytest.mark.structures import ParameterSet

from actorstate import telemetry
from actorstate.config import WriterSettings
from actorstate.endpoint import Endpoint, read_endpoint
from actorstate.errors import StoreFailed
from actorstate.store.location import located
from actorstate.writer.process import serve

ROOT = Path(__file__).resolve().parents[2]
READY_WITHIN_S = 30.0
"""The longest that a test waits for a process to begin or to end; more fails it."""


@dataclass(slots=True)
class WriterProcess:
    """One directory's writer through several lives; `fault` is a name of `FAULTS`, or empty for none.

    `prefix` is put before the command (strace), `environment` is added to the process's own.
    """

    directory: Path
    fault: str = ""
    prefix: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    ready: str = ""
    location: str = ""
    process: subprocess.Popen[str] = field(init=False)

    def start(self) -> Self:
        """A new life, ready to serve."""
        self.launch()
        return self.wait_ready()

    def launch(self) -> Self:
        """A new life, without waiting for it."""
        module = ("tests.support.writer", self.fault) if self.fault else ("actorstate", "serve")
        command = [*self.prefix, sys.executable, "-m", *module, self.location or str(self.directory)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)} | dict(self.environment)
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
            )
        return self

    def wait_ready(self) -> Self:
        """Waits for the line on standard output that says it serves; fails with its log otherwise."""
        self.ready = self.first_line()
        if not self.ready:
            self.kill()
            pytest.fail(f"the writer of {self.directory} did not become ready: {self.log.read_text()}")
        return self

    def first_line(self) -> str:
        """What it says first on standard output; empty when it ended, or took too long."""
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], READY_WITHIN_S)
        return self.process.stdout.readline().rstrip("\n") if readable else ""

    @property
    def log(self) -> Path:
        """Its standard error, of all its lives."""
        return self.directory.with_name(self.directory.name + ".log")

    @property
    def endpoint(self) -> Endpoint:
        """Where it serves."""
        return read_endpoint(self.directory)

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether this life has not ended."""
        return self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL: what the OOM killer does to it. Fine on one that has ended, or was never launched."""
        if not hasattr(self, "process"):
            return
        self.process.kill()
        self.wait_end()

    def restart(self) -> Self:
        """SIGKILL, and a new life."""
        self.kill()
        return self.start()

    def stop(self) -> None:
        """SIGSTOP, effective on return: what a frozen machine or debugger does to it."""
        self.process.send_signal(signal.SIGSTOP)
        self.wait_stopped()

    def wait_stopped(self) -> None:
        """Returns once it is stopped, by a test or by its fault."""
        os.waitid(os.P_PID, self.pid, os.WSTOPPED)

    def go_on(self) -> None:
        """SIGCONT."""
        self.process.send_signal(signal.SIGCONT)

    def terminate(self) -> int:
        """SIGTERM, and the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait_end()

    def wait_end(self) -> int:
        """The exit status, once there is one."""
        status = self.process.wait(timeout=READY_WITHIN_S)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return status


Writers = Callable[..., WriterProcess]


def slow(case: str | float) -> ParameterSet:
    """A case of a parametrized test that the everyday part leaves out."""
    return pytest.param(case, marks=pytest.mark.slow)


@pytest.fixture
def writers(tmp_path: Path) -> Iterator[Writers]:
    """Makes writers of `tmp_path/jobs` (or of `directory`), not started yet; all are killed when the test ends."""
    made: list[WriterProcess] = []

    def make(directory: Path | None = None, *, fault: str = "", **options: Mapping[str, str]) -> WriterProcess:
        one = WriterProcess(directory or tmp_path / "jobs", fault, **options)  # type: ignore[arg-type]  # by name
        made.append(one)
        return one

    yield make
    for writer in made:
        writer.kill()


@contextlib.contextmanager
def listening(listener: Callable[[str, dict[str, object]], None], *names: str) -> Generator[None]:
    """While the block is open, `listener` is called for the telemetry events `names` of this process."""
    remove = telemetry.listen(listener, *names)
    try:
        yield
    finally:
        remove()


def gate_of(directory: Path) -> Path:
    """The pipe at which a writer with the fault `hang` waits, as long as there is one (see `hanging`)."""
    return directory.with_name(directory.name + ".gate")


@contextlib.contextmanager
def hanging(directory: Path, provoke: Callable[[], None]) -> Generator[None]:
    """After `provoke` the writer of `directory`, which has the fault `hang`, hangs until the block ends."""
    gate = gate_of(directory)
    os.mkfifo(gate)
    provoke()
    with gate.open("wb"):  # waits for the writer to come for its end of the pipe
        yield
        gate.unlink()


def _kill_myself(_directory: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _stop_myself(_directory: Path) -> None:
    # To this very thread, so that it stops here: one sent to the process may stop another thread first.
    signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)


def _fail_as_disks_do(directory: Path) -> None:
    raise StoreFailed(f"{directory}: injected: fsync failed")


def _fail_as_nobody_expects(_directory: Path) -> None:
    raise RuntimeError("injected: a defect in the commit")


def _wait_at_gate(directory: Path) -> None:
    if gate_of(directory).exists():
        gate_of(directory).read_bytes()


FAULTS: Mapping[str, Callable[[Path], None]] = {
    "kill": _kill_myself,
    "stop": _stop_myself,
    "store_failed": _fail_as_disks_do,
    "defect": _fail_as_nobody_expects,
    "hang": _wait_at_gate,
}


def main(fault: str, directory: Path) -> int:
    """Serves `directory` with FAULT = `what@event:n[:beside]`: what happens at the n-th event; n = 0 for each."""
    what, _, where = fault.partition("@")
    event, number, *beside = where.split(":")
    countdown = int(number)

    def strike(_name: str, _fields: dict[str, object]) -> None:
        nonlocal countdown
        countdown -= 1
        if countdown == 0 or number == "0":
            FAULTS[what](directory)

    logging.basicConfig(level=logging.INFO)
    settings = WriterSettings(beside_above_s=0.0 if beside else 10.0, drain_s=1.0)
    with listening(strike, event):
        return serve(located(directory), settings, lambda endpoint: print("ready", endpoint.epoch, flush=True))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
