"""Directories whose clients may start a writer, and what a test needs to know of the processes that come of it."""

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from actorstate.client.start import SWITCH
from actorstate.config import ClientSettings

WITHIN_S = 30.0
STARTING = ClientSettings(timeout_s=WITHIN_S, writer_idle_exit_s=60.0)
"""Time enough to start a writer on a busy machine; and should a test leave one behind, it goes by itself."""


@pytest.fixture
def zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory that does not exist yet and whose clients may start a writer; none is left when the test ends."""
    monkeypatch.setenv(SWITCH, "1")
    yield tmp_path / "jobs"
    end_all(tmp_path)


def serving(place: Path) -> list[int]:
    """Processes with `serve` and something under `place` on their command line: writers and launchers."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it has ended
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if b"serve" in words and any(os.fsencode(place) in word for word in words):
                    found.append(int(entry.name))
    return found


def end_all(place: Path) -> None:
    """SIGKILL for writers and launchers of `place`, until there are none."""
    until = time.monotonic() + WITHIN_S
    while (pids := serving(place)) and time.monotonic() < until:
        for pid in pids:
            kill(pid)


def kill(pid: int) -> None:
    """SIGKILL, and wait for the end of a process that is no child of ours."""
    with contextlib.suppress(ProcessLookupError), watched(pid) as process:
        signal.pidfd_send_signal(process, signal.SIGKILL)
        assert select.select([process], [], [], WITHIN_S)[0]


@contextlib.contextmanager
def watched(pid: int) -> Iterator[int]:
    """The process's pidfd: readable once it has ended."""
    process = os.pidfd_open(pid)
    try:
        yield process
    finally:
        os.close(process)


def ended_within(pid: int, seconds: float) -> bool:
    """Whether the process ends in that time."""
    try:
        with watched(pid) as process:
            return bool(select.select([process], [], [], seconds)[0])
    except ProcessLookupError:
        return True


def children(pid: int) -> list[int]:
    """Its children, zombies included."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


Pythons = Callable[[str], Path]


@pytest.fixture
def as_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pythons:
    """Puts a shell script in the place of this Python: `{python}` in it is the real one. Returns the script."""

    def put(script: str) -> Path:
        path = tmp_path / "python-of-the-test"
        path.write_text("#!/bin/sh\n" + script.replace("{python}", sys.executable))
        path.chmod(0o700)
        monkeypatch.setattr(sys, "executable", str(path))
        return path

    return put
