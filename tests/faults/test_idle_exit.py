"""A writer that nobody needs ends, and what arrives while it leaves is answered by it or by the next one."""

import itertools
import random
import select
from pathlib import Path

import pytest
import zmq

from actorstate.client.sync import Client, connect
from actorstate.config import ClientSettings, WriterSettings
from actorstate.endpoint import lock_holder, read_endpoint
from actorstate.errors import WriterUnavailable
from actorstate.writer.server import FIRST_REQUEST_S
from tests.support.autostart import STARTING, WITHIN_S, serving, watched, zero
from tests.support.inprocess import WriterThread
from tests.support.processes import Child, hear, tell
from tests.support.wire import Producer, Wire, applied_in, asked, join

__all__ = ["zero"]

SEED = 20_261_123
IDLE_S = 0.05
BRIEF = WriterSettings(idle_exit_s=IDLE_S)
CLIENTS = 8


def ends(writer: WriterThread, within_s: float = WITHIN_S) -> bool:
    """Whether its loop ends by itself in that time."""
    writer.thread.join(within_s)
    return not writer.thread.is_alive()


def test_a_writer_that_nobody_needs_stays(tmp_path: Path) -> None:
    with WriterThread(tmp_path, BRIEF) as writer, Wire(writer.endpoint) as wire:
        assert not ends(writer, 10 * IDLE_S), "whoever started it had no time to find it"
        asked(wire)
        assert ends(writer, FIRST_REQUEST_S / 2)
        with pytest.raises(WriterUnavailable):
            read_endpoint(tmp_path)


def test_a_writer_that_may_stay_leaves(tmp_path: Path) -> None:
    with WriterThread(tmp_path) as writer, Wire(writer.endpoint) as wire:
        asked(wire)
        assert not ends(writer, 5 * IDLE_S)


def test_a_reader_that_waits_for_news_is_left_alone(tmp_path: Path) -> None:
    with WriterThread(tmp_path, BRIEF) as writer, connect(tmp_path, settings=ClientSettings(timeout_s=2.0)) as client:
        state = client.create("job")
        assert client.wait("job", after=state.revision, timeout_s=10 * IDLE_S).revision == state.revision
        assert ends(writer)


def test_a_worker_that_is_silent_for_long_is_left_alone(tmp_path: Path) -> None:
    with WriterThread(tmp_path, BRIEF) as writer, Wire(writer.endpoint) as wire:
        producer = Producer()
        report = join(wire, "job", producer=producer)
        assert not ends(writer, 10 * IDLE_S)
        applied_in(wire.ask(producer.change(report)))


def test_a_worker_whose_process_is_gone_keeps_the_writer_for_ever(tmp_path: Path) -> None:
    with WriterThread(tmp_path, BRIEF) as writer:
        with Child(attach_and_die, tmp_path) as child:
            child.expect("attached")
            assert not ends(writer, 5 * IDLE_S)
        assert ends(writer)


def attach_and_die(directory: str) -> None:
    with connect(directory) as client:
        client.create("job")
        with client.attach("job"):
            tell("attached")
            hear()


def test_somebody_who_listens_to_the_feed_is_left_alone(tmp_path: Path) -> None:
    context = zmq.Context()
    with WriterThread(tmp_path, BRIEF) as writer, connect(tmp_path) as client:
        feed: zmq.Socket[bytes] = context.socket(zmq.SUB)
        feed.setsockopt(zmq.SUBSCRIBE, b"")
        feed.connect(writer.endpoint.changes)
        for number in range(1_000):
            client.create(f"job-{number}")
            if feed.poll(10):
                break
        assert not ends(writer, 10 * IDLE_S)
        context.destroy(linger=0)
        assert ends(writer)


@pytest.mark.parametrize(
    "calls",
    [800, pytest.param(10_000, marks=pytest.mark.slow)],
)
def test_a_call_is_lost_between_two_writers(calls: int, zero: Path) -> None:
    """Eight clients call in bursts; between two bursts they wait about as long as the writer waits before it ends."""
    bursts, pauses = calls // (CLIENTS * 50), random.Random(SEED)
    clients = [Child(call_in_bursts, zero, place, 50) for place in range(CLIENTS)]
    try:
        for _ in range(bursts):
            for client in clients:
                client.say("go")
            assert [client.read() for client in clients] == [50] * CLIENTS
            wait_about(zero, pauses.uniform(0.5, 3.0) * IDLE_S)
        for client in clients:
            client.say("")
            client.ends_well()
    finally:
        for client in clients:
            client.__exit__()
    with connect(zero, settings=STARTING) as last:
        check(last, bursts)
        writers = read_endpoint(zero).epoch
        assert serving(zero) == [lock_holder(zero)]
    print(f"{calls:,} calls of {CLIENTS} clients over {writers} writers: 0 errors")
    assert writers > bursts // 4, "the writer was hardly ever away: this shows nothing"


def wait_about(directory: Path, seconds: float) -> None:
    """Until the writer has ended, but no longer than that."""
    holder = lock_holder(directory)
    if holder is not None:
        with watched(holder) as process:
            select.select([process], [], [], seconds)


def check(client: Client, bursts: int) -> None:
    """Each change was applied once: a job's revision counts them."""
    for place in range(CLIENTS):
        assert client.get(f"job-{place}").revision == 1 + bursts * 20
    assert sum(1 for state in client.jobs(kind="row")) == CLIENTS * bursts * 10


def call_in_bursts(directory: str, place: str, calls: str) -> None:
    """Of five calls two change the client's own job, one begins a new job, and two read."""
    settings = ClientSettings(timeout_s=WITHIN_S, writer_idle_exit_s=IDLE_S)
    numbers = itertools.count(1)
    with connect(directory, settings=settings) as client:
        client.create(f"job-{place}")
        for _ in iter(hear, ""):
            for _ in range(int(calls) // 5):
                client.pause(f"job-{place}")
                client.resume(f"job-{place}")
                client.create(f"row-{place}-{next(numbers)}", kind="row")
                client.get(f"job-{place}")
            tell(int(calls))
