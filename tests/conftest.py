"""What all tests share: Hypothesis profiles, a fresh directory, and real writer processes that end with the test."""

import fcntl
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

READY_WITHIN_S = 30.0
"""A writer that is not ready by then fails the test, with what it printed."""

# A test that kills its writer must not be handed another one by a client; those about it allow it (test_start.py).
os.environ["ACTORSTATE_AUTOSTART"] = "0"
# Processes that tests start compile the package once, as after an installation, and not each of them anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("nightly", parent=settings.get_profile("default"), max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

DOOR, ROOM = Path(__file__), Path(__file__).parent
"""Two things of every checkout that the test processes of one run can lock."""


@contextmanager
def locked(path: Path, kind: int) -> Iterator[int]:
    """The flock of `path`, released though a forked child may still hold the descriptor."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, kind)
        yield descriptor
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Tests run beside one another; one that is marked `alone` waits until it has the machine for itself.

    All go through the door one by one, so that it is not kept waiting by an endless row of others.
    """
    alone = item.get_closest_marker("alone") is not None
    room = os.open(ROOM, os.O_RDONLY)
    try:
        with locked(DOOR, fcntl.LOCK_EX):
            fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        return (yield)
    finally:
        fcntl.flock(room, fcntl.LOCK_UN)
        os.close(room)


@dataclass(slots=True)
class WriterProcess:
    """A writer as users run it: `python -m actorstate serve DIR`, in a process of its own."""

    directory: Path
    process: subprocess.Popen[str]
    log: Path
    ready: str = ""

    def wait_ready(self) -> None:
        """Wait for the line on its standard output that says it serves; fail with its log otherwise."""
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], READY_WITHIN_S)
        self.ready = self.process.stdout.readline().rstrip("\n") if readable else ""
        if not self.ready:
            self.kill()
            pytest.fail(f"the writer did not become ready: {self.log.read_text()}")

    def kill(self) -> None:
        """SIGKILL, and wait for the end: what a power cut or the OOM killer does to it."""
        self.process.kill()
        self.process.wait()

    def bury(self) -> None:
        """Kill it if it still runs, and close its pipe."""
        self.kill()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def terminate(self) -> int:
        """SIGTERM, and the exit code: what systemd does to it."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=READY_WITHIN_S)


StartWriter = Callable[..., WriterProcess]


def launched(directory: Path, log: Path, *options: str) -> WriterProcess:
    """A writer that has been started and may not be ready yet."""
    command = [sys.executable, "-m", "actorstate", "serve", str(directory), *options]
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    return WriterProcess(directory, process, log)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory for jobs that does not exist yet."""
    return tmp_path / "jobs"


@pytest.fixture
def start_writer(directory: Path, tmp_path: Path) -> Iterator[StartWriter]:
    """Start a writer of the directory and wait until it is ready; every one is killed when the test ends."""
    started: list[WriterProcess] = []

    def start(*options: str, at: Path = directory) -> WriterProcess:
        writer = launched(at, tmp_path / f"writer-{len(started)}.log", *options)
        started.append(writer)
        writer.wait_ready()
        return writer

    yield start
    for writer in started:
        writer.bury()


@pytest.fixture
def writer(start_writer: StartWriter) -> WriterProcess:
    """One running writer of `directory`."""
    return start_writer()


@pytest.fixture(scope="module")
def shared_writer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WriterProcess]:
    """One writer for all tests of a module that leave it alone."""
    folder = tmp_path_factory.mktemp("shared")
    writer = launched(folder / "jobs", folder / "writer.log")
    try:
        writer.wait_ready()
        yield writer
    finally:
        writer.bury()
