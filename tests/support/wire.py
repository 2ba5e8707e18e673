"""The wire protocol spoken by hand: a test decides each number, sender, floor, repetition and order."""

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

import zmq

from actorstate.core import codec
from actorstate.core.messages.document import Document
from actorstate.core.messages.replies import Answer, Applied, Found, Refused, Reply, WriterState
from actorstate.core.messages.requests import (
    Ask,
    Attach,
    Body,
    ChangeRequest,
    Counts,
    CreateJob,
    Get,
    Report,
    Request,
)
from actorstate.endpoint import Endpoint

PATIENCE_S = 30.0
"""A reply that has not come by then fails the test."""
HWM = 200_000


class Wire:
    """One DEALER connection to one writer; it never resends by itself."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._context = zmq.Context()
        self.socket: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        for option, value in ((zmq.LINGER, 0), (zmq.SNDHWM, HWM), (zmq.RCVHWM, HWM)):
            self.socket.setsockopt(option, value)
        self.socket.connect(endpoint.requests)
        self._heard: dict[int, list[Reply]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes it; what was not sent by now is lost."""
        self._context.destroy(linger=0)

    def send(self, *requests: Request) -> None:
        """Sends each as a frame of its own."""
        for request in requests:
            self.socket.send(codec.encode(request))

    def hear(self, timeout_s: float) -> list[Reply]:
        """Everything that nobody has waited for yet, and that arrives until nothing did for `timeout_s`."""
        while self.socket.poll(int(timeout_s * 1000)):
            self._take()
        kept, self._heard = self._heard, {}
        return [reply for replies in kept.values() for reply in replies]

    def wait(self, number: int) -> Reply:
        """The next reply to request `number`; others are kept for their turn."""
        until = time.monotonic() + PATIENCE_S
        while not self._heard.get(number):
            left_s = until - time.monotonic()
            assert left_s > 0, f"no reply to request {number} within {PATIENCE_S} s"
            if self.socket.poll(int(left_s * 1000) + 1):
                self._take()
        return self._heard[number].pop(0)

    def ask(self, request: Request) -> Answer:
        """Sends one request and waits for its answer."""
        self.send(request)
        return self.wait(request.id).answer

    def document(self, job: str) -> Document:
        """The job's committed state."""
        return document_in(self.ask(Request(id=_READ, body=Get(job))))

    def _take(self) -> None:
        for reply in codec.decode_replies(self.socket.recv()):
            self._heard.setdefault(reply.id, []).append(reply)


_READ = 2**62
"""The number of reads: they carry no producer, so it collides with nothing."""


@dataclass(slots=True)
class Producer:
    """One client process life: numbers its changes from 1; `floor` goes along as `acked`."""

    floor: int = 1
    name: bytes = field(default_factory=lambda: os.urandom(16))
    last: int = 0

    def change(self, body: ChangeRequest, *, number: int | None = None, sent_ago_s: float = 0.0) -> Request:
        """A change under the next number, or under `number`."""
        self.last = self.last + 1 if number is None else max(self.last, number)
        return Request(id=number or self.last, body=body, producer=self.name, acked=self.floor, sent_ago_s=sent_ago_s)

    def changes(self, bodies: Iterable[ChangeRequest]) -> list[Request]:
        """One change for each."""
        return [self.change(body) for body in bodies]


def read(number: int, body: Body) -> Request:
    """A request without producer: a read or a heartbeat."""
    return Request(id=number, body=body)


def join(wire: Wire, job: str, *, producer: Producer | None = None) -> Report:
    """Creates the job, attaches a worker, and returns the report that counts one row of it."""
    producer = producer or Producer()
    wire.ask(producer.change(CreateJob(job)))
    applied = applied_in(wire.ask(producer.change(Attach(job, "worker", "host", 1))))
    return Report(job, "worker", applied.incarnation, counts=Counts(succeeded=1))


def applied_in(answer: Answer) -> Applied:
    """The answer of a change that was taken."""
    assert isinstance(answer, Applied), answer
    return answer


def document_in(answer: Answer) -> Document:
    """The answer of a read that found its job."""
    assert isinstance(answer, Found), answer
    return codec.decode_document(answer.document)


def code_in(answer: Answer) -> str:
    """The code of a refusal."""
    assert isinstance(answer, Refused), answer
    return answer.code


def asked(wire: Wire) -> WriterState:
    """The writer about itself."""
    answer = wire.ask(read(_READ + 1, Ask()))
    assert isinstance(answer, WriterState), answer
    return answer
