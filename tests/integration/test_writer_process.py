"""The writer as an operating system and a service manager see it."""

import os
import re
import signal
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq

from actorstate.writer.server import TICK_S
from tests.support.wire import Producer, Wire, applied_in, join
from tests.support.writer import Writers, hanging, writers

__all__ = ["writers"]

WATCHDOG_USEC = "2000000"


def test_a_writer_never_forks(writers: Writers, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    strace = ("strace", "-f", "-qq", "-e", "trace=fork,vfork,clone,clone3,execve", "-o", str(trace))
    writer = writers(fault="hang@commit.started:0:beside", prefix=strace).start()
    with Wire(writer.endpoint) as wire:
        producer, report = Producer(), join(wire, "job")
        for _ in range(50):
            applied_in(wire.ask(producer.change(report)))
        children = [path.read_text() for path in Path(f"/proc/{writer.endpoint.pid}/task").glob("*/children")]
        assert set(children) == {""}
        assert len(children) >= 4  # the loop, the commit thread, and two of libzmq: it looked at the right process
    os.kill(writer.endpoint.pid, signal.SIGTERM)
    assert writer.wait_end() == 0
    births = [line for line in trace.read_text().splitlines() if re.search(r"\b(fork|vfork|clone3?)\(", line)]
    assert births
    assert [line for line in births if "CLONE_THREAD" not in line] == []


def test_an_idle_writer_with_subscribers_sleeps(writers: Writers) -> None:
    writer = writers().start()
    context = zmq.Context()
    feed: zmq.Socket[bytes] = context.socket(zmq.SUB)
    feed.connect(writer.endpoint.changes)
    for job in ("one", "two"):
        feed.setsockopt_string(zmq.SUBSCRIBE, job)
    with Wire(writer.endpoint) as wire:
        join(wire, "job")
        before, began = cpu_s(writer.pid), time.monotonic()
        assert wire.hear(2 * TICK_S) == []
        share = (cpu_s(writer.pid) - before) / (time.monotonic() - began)
    context.destroy(linger=0)
    print(f"an idle writer uses {share:.0%} of a core")
    assert share < 0.5


def cpu_s(pid: int) -> float:
    """Seconds of processor time that the process has used."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@contextmanager
def service_manager(address: str) -> Generator[socket.socket]:
    """A socket such as systemd's for notifications."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(address)
        channel.settimeout(20.0)
        yield channel


def told(channel: socket.socket) -> str:
    """The next notification."""
    return channel.recv(1_000).decode()


def told_within(channel: socket.socket, seconds: float) -> list[str]:
    """All notifications until there was none for so long."""
    heard: list[str] = []
    channel.settimeout(seconds)
    try:
        while len(heard) < 100:
            heard.append(told(channel))
    except TimeoutError:
        return heard
    finally:
        channel.settimeout(20.0)
    return heard


@pytest.mark.parametrize("kind", ["path", "abstract name"])
def test_a_service_manager_is_told_of_readiness_and_of_the_end(kind: str, writers: Writers, tmp_path: Path) -> None:
    path, name = str(tmp_path / "notify"), f"actorstate-test-{os.getpid()}"
    abstract = kind == "abstract name"
    environment = {"NOTIFY_SOCKET": f"@{name}" if abstract else path}
    with service_manager(f"\0{name}" if abstract else path) as channel:
        writer = writers(environment=environment).launch()
        assert told(channel) == "READY=1"
        with Wire(writer.wait_ready().endpoint) as wire:
            join(wire, "job")
        assert told_within(channel, 0.01) == []
        assert writer.terminate() == 0
        assert told(channel) == "STOPPING=1"


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["hang@commit.started:0:beside", "hang@commit.started:0", "hang@store.written:0"])
def test_a_watchdog_is_not_fed_while_the_disk_hangs(fault: str, writers: Writers, tmp_path: Path) -> None:
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": WATCHDOG_USEC}
    with service_manager(environment["NOTIFY_SOCKET"]) as channel:
        writer = writers(fault=fault, environment=environment).start()
        with Wire(writer.endpoint) as wire:
            producer, report = Producer(), join(wire, "job")
            assert [told(channel) for _ in range(3)] == ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]
            with hanging(writer.directory, lambda: wire.send(producer.change(report))):
                told_within(channel, 0.01)
                assert told_within(channel, 3 * TICK_S) == []
            applied_in(wire.wait(1).answer)
            assert told(channel) == "WATCHDOG=1"


@pytest.mark.slow
def test_a_watchdog_learns_of_a_hanging_disk_even_when_nobody_writes(writers: Writers, tmp_path: Path) -> None:
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": WATCHDOG_USEC}
    with service_manager(environment["NOTIFY_SOCKET"]) as channel:
        writer = writers(fault="hang@store.written:0", environment=environment).start()
        assert [told(channel) for _ in range(2)] == ["READY=1", "WATCHDOG=1"]
        with hanging(writer.directory, lambda: None):
            told_within(channel, 0.01)
            assert told_within(channel, 3 * TICK_S) == []
        assert told(channel) == "WATCHDOG=1"


@pytest.mark.slow
def test_a_watchdog_of_another_process_is_none_of_ours(writers: Writers, tmp_path: Path) -> None:
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": WATCHDOG_USEC, "WATCHDOG_PID": "1"}
    with service_manager(environment["NOTIFY_SOCKET"]) as channel:
        writers(environment=environment).start()
        assert told_within(channel, 2.5 * TICK_S) == ["READY=1"]


def test_sigterm_gives_up_with_an_error_when_the_disk_hangs(writers: Writers) -> None:
    writer = writers(fault="hang@commit.started:0:beside").start()
    with Wire(writer.endpoint) as wire:
        producer, report = Producer(), join(wire, "job")
        with hanging(writer.directory, lambda: wire.send(producer.change(report))):
            writer.process.send_signal(signal.SIGTERM)
            assert writer.process.wait(5.0) not in {0, None}
