"""Whatever comes in through the sockets, the writer goes on, others are served, and nothing changes."""

import contextlib
import itertools
import random
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq

from actorstate.config import WriterSettings
from actorstate.core import codec
from actorstate.core.messages.document import Document
from actorstate.core.messages.requests import Attach, Counts, CreateJob, FinishJob, Get, Heartbeat, Report, Request
from actorstate.endpoint import Endpoint
from tests.support.wire import Producer, Wire, applied_in, asked, code_in, join, read
from tests.support.writer import WriterProcess, Writers, writers

__all__ = ["writers"]

SEED = 20_251_125
MIB = 1024 * 1024
FRAMES = 10_000
MAX_GROWTH_BYTES = 256 * MIB
GHOST = Report("ghost", "worker", 200, counts=Counts(succeeded=1), checkpoints={"a": b"x" * 100})


@contextmanager
def stranger(endpoint: Endpoint, kind: int = zmq.DEALER) -> Generator["zmq.Socket[bytes]"]:
    """A socket that says whatever a test likes, to the writer's requests or (kind XSUB) to its change feed."""
    context = zmq.Context()
    channel: zmq.Socket[bytes] = context.socket(kind)
    for option, value in ((zmq.SNDHWM, 0), (zmq.RCVHWM, 1)):
        channel.setsockopt(option, value)
    channel.setsockopt(zmq.SNDTIMEO, 10_000)
    channel.connect(endpoint.changes if kind == zmq.XSUB else endpoint.requests)
    try:
        yield channel
    finally:
        context.destroy(linger=0)


class Bystander:
    """An honest client beside the strangers: everything that it says is answered, and counted once."""

    def __init__(self, wire: Wire) -> None:
        self._wire, self._producer = wire, Producer()
        self._report = join(wire, "honest", producer=Producer())
        self.rows = 0

    def work(self) -> None:
        """A row, and a look at it."""
        applied_in(self._wire.ask(self._producer.change(self._report)))
        self._producer.floor = self._producer.last + 1
        self.rows += 1
        assert self._wire.document("honest").progress.processed == self.rows


def peak_bytes(writer: WriterProcess) -> int:
    """The most memory that the writer ever had."""
    status = Path(f"/proc/{writer.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


def valid_frames() -> list[bytes]:
    """Requests that are well formed and change nothing: reads, and changes of a job that does not exist."""
    bodies = (GHOST, FinishJob("ghost", "completed"), Attach("ghost", "worker", "host", 1))
    changes = [codec.encode(Producer().change(body)) for body in bodies]
    return [*changes, codec.encode(read(5, Get("victim"))), codec.encode(read(6, Heartbeat("victim", "worker", 77)))]


def random_bytes(dice: random.Random) -> list[bytes]:
    return [dice.randbytes(dice.randrange(0, 300))]


def flipped(dice: random.Random) -> list[bytes]:
    frame = bytearray(dice.choice(valid_frames()))
    for _ in range(dice.randrange(1, 4)):
        frame[dice.randrange(len(frame))] ^= 1 << dice.randrange(8)
    return [bytes(frame)]


def cut_or_continued(dice: random.Random) -> list[bytes]:
    frame = dice.choice(valid_frames())
    return [frame[: dice.randrange(len(frame))] if dice.random() < 0.5 else frame + dice.randbytes(3)]


def lying_headers(dice: random.Random) -> list[bytes]:
    header = dice.choice([b"\xdd", b"\xdf", b"\xdb", b"\xc6", b"\xc9"])
    return [header + b"\xff\xff\xff\xff" + dice.randbytes(8)]


def deep(dice: random.Random) -> list[bytes]:
    return [dice.choice([b"\x91", b"\x81\xa4body", b"\x81\x81"]) * dice.randrange(1, 3_000)]


def many_frames(dice: random.Random) -> list[bytes]:
    return [dice.choice(valid_frames())] * dice.randrange(2, 6)


KINDS: tuple[Callable[[random.Random], list[bytes]], ...] = (
    random_bytes,
    flipped,
    cut_or_continued,
    lying_headers,
    deep,
    many_frames,
)


def victim(wire: Wire) -> None:
    """A job with something to lose."""
    report = join(wire, "victim")
    applied_in(wire.ask(Producer().change(report)))


def looks(wire: Wire) -> tuple[Document, str]:
    return wire.document("victim"), code_in(wire.ask(read(10**6, Get("ghost"))))


def test_ten_thousand_hostile_frames_change_nothing_and_keep_nobody_waiting(writers: Writers) -> None:
    writer, dice = writers().start(), random.Random(SEED)
    with Wire(writer.endpoint) as wire, stranger(writer.endpoint) as channel:
        victim(wire)
        bystander, before = Bystander(wire), looks(wire)
        for number in range(FRAMES):
            channel.send_multipart(dice.choice(KINDS)(dice))
            if number % 100 == 0:
                bystander.work()
        bystander.work()
        assert looks(wire) == before
    assert writer.running


def test_floods_of_frames_and_frames_over_the_limit_hurt_nobody_else(writers: Writers) -> None:
    writer = writers().start()
    limit = WriterSettings().max_frame_bytes
    with Wire(writer.endpoint) as wire:
        victim(wire)
        bystander, before = Bystander(wire), looks(wire)
        started = peak_bytes(writer)
        floods = (
            [b"x" * 1_000] * 5_000,
            [b""] * 5_000,
            [b"\x80" * (limit - 1)],
            [b"x" * (limit + 1)],
            [b"x" * 16 * MIB],
        )
        for frames in floods * 3:
            with stranger(writer.endpoint) as channel:
                channel.send_multipart(frames)
                bystander.work()
                channel.poll(100)
            bystander.work()
        assert looks(wire) == before
    assert writer.running
    grown = peak_bytes(writer) - started
    print(f"the writer grew by {grown / MIB:.0f} MiB at most")
    assert grown < MAX_GROWTH_BYTES


def test_a_message_of_several_frames_is_refused_whole(writers: Writers) -> None:
    writer = writers().start()
    frame = codec.encode(Producer().change(CreateJob("job")))
    with Wire(writer.endpoint) as wire:
        for frames in ([frame, frame], [b"", frame], [frame, b""], [frame] * 100):
            wire.socket.send_multipart(frames)
            assert code_in(wire.wait(0).answer) == "bad_message"
        assert code_in(wire.ask(read(1, Get("job")))) == "job_not_found"
        wire.socket.send(frame)
        applied_in(wire.wait(1).answer)


def test_a_frame_over_the_limit_ends_its_connection_unread(writers: Writers) -> None:
    writer = writers().start()
    large = CreateJob("job", meta={f"key-{number}": bytes(250 * 1024) for number in range(20)})
    with Wire(writer.endpoint) as wire, stranger(writer.endpoint) as channel:
        events = channel.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        channel.send(codec.encode(Producer().change(large)))
        assert events.poll(30_000)
        assert code_in(wire.ask(read(1, Get("job")))) == "job_not_found"
        channel.disable_monitor()


def test_frames_to_the_change_feed_hurt_nobody(writers: Writers) -> None:
    writer, dice = writers().start(), random.Random(SEED)
    with Wire(writer.endpoint) as wire, stranger(writer.endpoint, zmq.XSUB) as channel:
        bystander = Bystander(wire)
        for number in range(2_000):
            channel.send(dice.choice([b"\x01", b"\x00", b""]) + dice.randbytes(dice.randrange(0, 50)))
            if number % 100 == 0:
                bystander.work()
        bystander.work()
    assert writer.running


@pytest.mark.slow
def test_a_huge_frame_to_the_change_feed_does_not_fill_the_memory(writers: Writers) -> None:
    writer = writers().start()
    with Wire(writer.endpoint) as wire, stranger(writer.endpoint, zmq.XSUB) as channel:
        bystander = Bystander(wire)
        started = peak_bytes(writer)
        channel.send(b"\x02" + b"x" * 2 * MAX_GROWTH_BYTES)
        for _ in range(1_000):
            bystander.work()
            assert peak_bytes(writer) - started < MAX_GROWTH_BYTES


def test_half_handshakes_and_other_protocols_hurt_nobody(writers: Writers) -> None:
    writer, dice = writers().start(), random.Random(SEED)
    greetings = (
        b"",
        b"\xff",
        b"\xff" + b"\0" * 8 + b"\x7f",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff" * 64,
        dice.randbytes(500),
    )
    with Wire(writer.endpoint) as wire, contextlib.ExitStack() as open_sockets:
        bystander = Bystander(wire)
        for number, greeting in itertools.product(range(30), greetings):
            for address in (writer.endpoint.requests, writer.endpoint.changes):
                channel = open_sockets.enter_context(socket.socket(socket.AF_UNIX))
                channel.connect(address.removeprefix("ipc://"))
                channel.send(greeting)
                if number % 2:
                    channel.close()
            bystander.work()
        bystander.work()
    assert writer.running


@pytest.mark.slow
@pytest.mark.parametrize("pause_every", [1, 100])
def test_a_reader_that_never_reads_does_not_fill_the_memory(pause_every: int, writers: Writers) -> None:
    assert growth_by_an_unread_reader(writers().start(), each_kib=800, pause_every=pause_every) < MAX_GROWTH_BYTES


@pytest.mark.slow
def test_a_reader_that_never_reads_does_not_keep_others_waiting(writers: Writers) -> None:
    growth_by_an_unread_reader(writers().start(), each_kib=80, pause_every=1)


@pytest.mark.slow
def test_news_for_many_who_wait_for_a_large_job_does_not_fill_the_memory(writers: Writers) -> None:
    writer = writers().start()
    meta = dict.fromkeys("abcd", bytes(200 * 1024))
    with Wire(writer.endpoint) as wire, stranger(writer.endpoint) as channel:
        applied_in(wire.ask(Producer().change(CreateJob("job", meta=meta))))
        report = Report("job", "w", applied_in(wire.ask(Producer().change(Attach("job", "w", "host", 1)))).incarnation)
        started = peak_bytes(writer)
        for number in range(1, 1_001):
            channel.send(codec.encode(read(number, Get("job", newer_than=2, wait_s=60.0))))
        while asked(wire).reads < 1_000:
            pass
        for _ in range(5):
            applied_in(wire.ask(Producer().change(report)))
            asked(wire)
        grown = peak_bytes(writer) - started
    print(f"the writer grew by {grown / MIB:.0f} MiB at most")
    assert grown < MAX_GROWTH_BYTES


def growth_by_an_unread_reader(writer: WriterProcess, each_kib: int, pause_every: int) -> int:
    """How much the writer's memory grows by 2,000 replies of this size that nobody takes."""
    meta = dict.fromkeys("abcd", bytes(each_kib * 256))
    with Wire(writer.endpoint) as wire, stranger(writer.endpoint) as channel:
        applied_in(wire.ask(Producer().change(CreateJob("victim", meta=meta))))
        bystander = Bystander(wire)
        started = peak_bytes(writer)
        for number in range(1, 2_001):
            channel.send(codec.encode(read(number, Get("victim"))))
            if number % pause_every == 0:
                bystander.work()
        while asked(wire).reads < 2_000:
            bystander.work()
        bystander.work()
        grown = peak_bytes(writer) - started
    print(f"the writer grew by {grown / MIB:.0f} MiB at most")
    return grown


@pytest.mark.slow
def test_a_refused_request_that_is_repeated_for_ever_does_not_fill_the_memory(writers: Writers) -> None:
    writer = writers().start()
    with Wire(writer.endpoint) as wire:
        join(wire, "job")
        refused = Producer().change(Report("job", "stranger", 9, counts=Counts(succeeded=1)), number=7)
        repeat(wire, refused, 1_000)
        started = peak_bytes(writer)
        repeat(wire, refused, 50_000)
        assert wire.document("job").progress.processed == 0
    grown = peak_bytes(writer) - started
    print(f"the writer grew by {grown / MIB:.0f} MiB at most")
    assert grown < 16 * MIB


def repeat(wire: Wire, request: Request, times: int) -> None:
    """Sends the same request again and again, some at a time in flight; each time it is refused."""
    for _ in range(0, times, 250):
        wire.send(*[request] * 250)
        for _ in range(250):
            assert code_in(wire.wait(request.id).answer) == "fenced"
