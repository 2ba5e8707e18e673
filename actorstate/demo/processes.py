"""The demo's processes: started in sessions of their own, so that Ctrl-C reaches only the parent, and ended by it."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, cast

from actorstate.errors import ActorStateError

READY_WITHIN_S = 30.0
"""A process that has not done by then what it should is an error."""
GRACE_S = 3.0
"""How long SIGTERM is given before SIGKILL, when the demo is broken off."""
_POLL_S = 0.005
_TAIL_BYTES = 2_000


class DemoFailed(ActorStateError):
    """The demo could not be played to its end, so there is no verdict."""

    code = "demo_failed"
    default_hint = "to keep what the processes wrote, give a directory: actorstate demo --dir DIR"


@dataclass(frozen=True, slots=True)
class Child:
    """A process whose standard output and standard error go to files; its standard input is ours."""

    name: str
    process: "subprocess.Popen[str]"
    output: Path
    errors: Path

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def last_line(self) -> str:
        """The last whole line that it printed, or nothing."""
        lines = _tail(self.output).split("\n")
        return lines[-2] if len(lines) > 1 else ""

    def report(self) -> dict[str, float]:
        """The JSON object that it printed last. Raises DemoFailed where it failed."""
        self.check()
        return self.last_report()

    def check(self) -> None:
        """Raises DemoFailed when it has ended and failed."""
        if self.process.poll():
            raise DemoFailed(f"{self.name} ended with {self.process.returncode}: {_tail(self.errors).strip()}")

    def last_report(self) -> dict[str, float]:
        """The JSON object that it printed last so far; empty before the first one."""
        return cast("dict[str, float]", json.loads(self.last_line() or "{}"))

    def tell(self, line: str) -> None:
        """Writes a line to its standard input; nothing where it has ended."""
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.write(line + "\n")
                self.process.stdin.flush()

    def end_input(self) -> None:
        """Ends its standard input, as often as one likes."""
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()

    def end(self, until: float) -> None:
        """Waits for its end, with SIGKILL when it is not there by `until` (monotonic)."""
        try:
            self.process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Children:
    """The block in which the processes live; whatever ends it, none is left behind."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._others: list[Child] = []
        self._needed: list[Child] = []

    def __enter__(self) -> Self:
        self._logs.mkdir()
        return self

    def __exit__(self, *_: object) -> None:
        # A second Ctrl-C waits until they have ended: it would leave them behind.
        masked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            _end(self._others)
            _end(self._needed)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, masked)

    def start(self, name: str, module: str, arguments: Sequence[object], *, needed: bool = False) -> Child:
        """Runs a module of ours in a new process; one that is needed is ended after those that need it."""
        output, errors = self._logs / f"{name}.out", self._logs / f"{name}.err"
        with output.open("w") as out, errors.open("w") as err:
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and modules
                [sys.executable, "-m", module, *map(str, arguments)],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                text=True,
                start_new_session=True,
            )
        child = Child(name, process, output, errors)
        (self._needed if needed else self._others).append(child)
        return child


def wait_until(what: str, condition: Callable[[], bool], child: Child) -> None:
    """Returns once `condition` holds; raises DemoFailed when `child` ends first, or after READY_WITHIN_S."""
    until = time.monotonic() + READY_WITHIN_S
    while not condition():
        if not child.running and not condition():
            raise DemoFailed(f"{child.name} ended before {what}: {_tail(child.errors).strip()}")
        if time.monotonic() > until:
            raise DemoFailed(f"{child.name}: {READY_WITHIN_S:g} s were not enough until {what}")
        time.sleep(_POLL_S)


def _end(children: Sequence[Child]) -> None:
    for child in children:
        child.end_input()
        child.process.terminate()
    until = time.monotonic() + GRACE_S
    for child in children:
        child.end(until)


def _tail(file: Path) -> str:
    with file.open("rb") as opened:
        opened.seek(max(0, file.stat().st_size - _TAIL_BYTES))
        return opened.read().decode(errors="replace")
