"""The blocking client: a pool of sockets per process, and the calls that readers and controllers make.

Nothing is opened at import or before the first use. All that belongs to one process is one `Link`, built
whole and published by one assignment, so that no thread ever sees half of it; the pid is compared on
every call, because uWSGI runs no at-fork hooks, and the hook is there as well, because pids come again.
"""

import contextlib
import os
import time
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Self, TypeVar

import zmq

from actorstate.client.calls import Call, NoAnswer, Numbers, again, checked_job_id, settled
from actorstate.client.run import Run, Seat, attached, run_to_end
from actorstate.config import ClientSettings
from actorstate.core import codec
from actorstate.core.messages.document import JobState
from actorstate.core.messages.payload import pack
from actorstate.core.messages.replies import Found, Listed, Reply, WriterState
from actorstate.core.messages.requests import (
    Ask,
    Body,
    ChangeRequest,
    ControlJob,
    CreateJob,
    DeleteJob,
    FinishJob,
    Get,
    ListJobs,
    Request,
)
from actorstate.endpoint import boot_id, read_endpoint
from actorstate.errors import ActorStateError, BadMessage, BadRequest, JobNotFound, WriterUnavailable

HANDSHAKE_MS = 1_000
"""A connection into a dead writer's backlog is given up after this long; libzmq's default is 30 s."""
RECONNECT_MS = 10
WAIT_SLICE_S = 20.0
"""A long poll is renewed this often, so that a lost answer delays news by no more."""

Expected = TypeVar("Expected")
_clients: "weakref.WeakSet[Transport]" = weakref.WeakSet()


class Link:
    """What one process holds: context, addresses, idle sockets, numbers. Built whole, never changed after a fork."""

    def __init__(self, directory: Path, settings: ClientSettings) -> None:
        self._directory, self._settings = directory, settings
        self.boot = boot_id()
        self.numbers = Numbers()
        self.context = zmq.Context()
        self.idle: list[zmq.Socket[bytes]] = []
        self.used: set[zmq.Socket[bytes]] = set()
        self.closed = False
        self.epoch = 0

    def close(self) -> None:
        """Closes idle sockets; those in use are closed by their threads, and the last one ends the context."""
        self.closed = True
        while self.idle:
            with contextlib.suppress(IndexError):
                self.idle.pop().close(int(self._settings.linger_s * 1000))
        if not self.used:
            self.context.term()

    def give_back(self, channel: "zmq.Socket[bytes]") -> None:
        """After `close`, for a socket that was in use at the time."""
        channel.close(int(self._settings.linger_s * 1000))
        self.close()

    def open(self) -> "zmq.Socket[bytes]":
        """A new socket on its way to the writer. Raises NoAnswer when the directory names none."""
        try:
            endpoint = read_endpoint(self._directory)
            channel: zmq.Socket[bytes] = self.context.socket(zmq.DEALER)
        except (WriterUnavailable, zmq.ZMQError) as error:
            raise NoAnswer(f"no way to {self._directory}: {error}", directory=str(self._directory)) from error
        for option, value in (
            (zmq.IMMEDIATE, 1),
            (zmq.LINGER, int(self._settings.linger_s * 1000)),
            (zmq.RECONNECT_IVL, RECONNECT_MS),
            (zmq.HANDSHAKE_IVL, HANDSHAKE_MS),
        ):
            channel.setsockopt(option, value)
        channel.connect(endpoint.requests)
        return channel


class Transport:
    """Requests and replies over the pool of the process that calls; safe over threads and forks."""

    def __init__(self, directory: Path, settings: ClientSettings) -> None:
        self.directory, self.settings = directory, settings
        self._links: dict[int, Link] = {}
        self._buried: list[dict[int, Link]] = []
        _clients.add(self)

    def call(self, body: Body, timeout_s: float | None = None) -> Reply:
        """One request to its answer by the deadline. Raises what the writer refused with, and OutcomeUnknown."""
        call = self.start(body, timeout_s)
        try:
            return self.finish(call)
        except BaseException:
            call.give_up()
            raise

    def start(self, body: Body, timeout_s: float | None = None) -> Call:
        """Numbers and freezes a request."""
        link = self._links.get(os.getpid()) or self._new_link()
        numbers, is_change = link.numbers, isinstance(body, ChangeRequest)
        left_s = self.settings.timeout_s if timeout_s is None else timeout_s
        deadline, producer, acked = time.monotonic() + left_s, b"", 0
        with numbers.lock:
            numbers.last += 1
            number = numbers.last
            if is_change:
                numbers.open.add(number)
                producer, acked = numbers.producer, min(numbers.open)
        request = Request(number, body, producer, acked, boot=link.boot, expires_at=deadline, ttl_s=left_s)
        try:
            return Call(number, body, numbers, deadline, link.boot, is_change, codec.encode(request))
        except (UnicodeEncodeError, OverflowError) as error:
            numbers.open.discard(number)
            raise BadRequest(f"this cannot be sent: {error}", hint="mend the text or the number") from error

    def finish(self, call: Call) -> Reply:
        """Sends a request until it is answered or its deadline has come; a change may be finished again later."""
        try:
            return self._attempt(call)
        except ActorStateError as error:
            return self._attempt_again(call, error)

    def forget(self) -> None:
        """In a forked child: the parent's sockets are neither used nor closed, both would hang or lie."""
        self._buried.append(self._links)
        self._links = {}

    def close(self) -> None:
        """Closes this process's sockets; the next call opens new ones."""
        link = self._links.pop(os.getpid(), None)
        if link is not None:
            link.close()

    def _new_link(self) -> Link:
        """Of two threads that come first at once, one wins and both use its link."""
        made = Link(self.directory, self.settings)
        link = self._links.setdefault(os.getpid(), made)
        if link is not made:
            made.close()
        return link

    def _attempt(self, call: Call) -> Reply:
        link = self._links.get(os.getpid()) or self._new_link()
        until = min(call.deadline, time.monotonic() + self.settings.attempt_s + getattr(call.body, "wait_s", 0.0))
        try:
            channel = link.idle.pop()
        except IndexError:
            channel = link.open()
        reply = None
        link.used.add(channel)
        try:
            try:
                channel.send(call.frame, zmq.NOBLOCK)
            except zmq.Again:
                self._send_once_connected(channel, call, until)
            call.first_sent = call.first_sent or time.monotonic()
            while reply is None:
                if not channel.poll(max(0, int((until - time.monotonic()) * 1000) + 1)):
                    raise self._no_answer("its writer did not answer")
                replies = codec.decode_replies(channel.recv())
                ours = [each for each in replies if each.id in {call.id, 0} and each.epoch >= link.epoch]
                reply = ours[0] if ours else None
        except BaseException:
            channel.close(0)
            raise
        finally:
            link.used.discard(channel)
        link.epoch = reply.epoch
        if link.closed:
            link.give_back(channel)
        else:
            link.idle.append(channel)
        return settled(call, reply)

    def _send_once_connected(self, channel: "zmq.Socket[bytes]", call: Call, until: float) -> None:
        while channel.poll(max(0, int((until - time.monotonic()) * 1000) + 1), zmq.POLLOUT):
            with contextlib.suppress(zmq.Again):  # the connection ended between the two lines
                channel.send(call.frame, zmq.NOBLOCK)
                return
        raise self._no_answer("nobody serves it")

    def _attempt_again(self, call: Call, error: ActorStateError) -> Reply:
        try:
            return again(error, lambda: self._attempt_renewed(call), call.deadline)
        except NoAnswer as last:
            raise self._addressed(call.ended(last)) from None
        except ActorStateError as last:
            raise self._addressed(last) from None

    def _addressed(self, error: ActorStateError) -> ActorStateError:
        """The writer does not know how its directory is called here; a hint should work when typed."""
        error.hint = error.hint.replace(" DIR", f" {self.directory}")
        return error

    def _attempt_renewed(self, call: Call) -> Reply:
        call.renew()
        return self._attempt(call)

    def _no_answer(self, why: str) -> NoAnswer:
        return NoAnswer(f"no answer from {self.directory}: {why}", directory=str(self.directory))


class Client:
    """The calls of readers and controllers, and the way in for workers. Every call ends by `timeout_s`.

    Raises the errors of `errors.py`: JobNotFound, JobFinished, Busy..., WriterUnavailable when nobody
    answered, OutcomeUnknown when a change was sent and no answer came.
    """

    def __init__(self, directory: Path, settings: ClientSettings) -> None:
        self._transport = Transport(directory, settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def create(
        self,
        job: str,
        *,
        kind: str = "job",
        total: int | None = None,
        unit: str = "rows",
        labels: dict[str, str] | None = None,
        meta: dict[str, object] | None = None,
    ) -> JobState:
        """Creates the job, or returns the one of this id and kind. Raises Conflict for another kind."""
        packed = {key: pack(value) for key, value in (meta or {}).items()}
        self._change(CreateJob(checked_job_id(job), kind, total, unit, labels or {}, packed))
        return self.get(job)

    def get(self, job: str, *, timeout_s: float | None = None) -> JobState:
        """The committed state. Raises JobNotFound."""
        state = self._get(Get(checked_job_id(job)), timeout_s)
        if state is None:
            raise JobNotFound(f"there is no job {job!r}", job=job)
        return state

    def get_if_newer(self, job: str, revision: int) -> JobState | None:
        """The state if its revision is above `revision`, else None."""
        return self._get(Get(checked_job_id(job), newer_than=revision))

    def wait(self, job: str, *, after: int, timeout_s: float = 30.0) -> JobState:
        """The state once its revision is above `after`; the state as it is when `timeout_s` is over."""
        until = time.monotonic() + timeout_s
        while (left := until - time.monotonic()) > 0:
            slice_s = min(left, WAIT_SLICE_S)
            held = Get(checked_job_id(job), newer_than=after, wait_s=slice_s)
            state = self._get(held, slice_s + self._transport.settings.timeout_s)
            if state is not None:
                return state
            if self.get(job).finished:
                break
        return self.get(job)

    def watch(self, job: str) -> Iterator[JobState]:
        """Each newer state as it is committed (some may be skipped), up to and with the job's end."""
        state = self.get(job)
        yield state
        while not state.finished:
            newer = self.wait(job, after=state.revision)
            if newer.revision > state.revision:
                state = newer
                yield state

    def jobs(
        self, *, status: str | None = None, kind: str | None = None, health: str | None = None
    ) -> Iterator[JobState]:
        """All jobs that match, in the order of their ids, fetched page by page."""
        after = ""
        while True:
            page = self._ask(ListJobs(status, kind, health, after), Listed)
            for packed in page.documents:
                yield codec.decode_state(packed)
            if not page.after:
                return
            after = page.after

    def pause(self, job: str, *, by: str = "") -> None:
        """Asks the workers to save and stop at their next row; without any, the job is paused at once."""
        self._change(ControlJob(checked_job_id(job), "pause", by))

    def resume(self, job: str, *, by: str = "") -> None:
        """Lets a paused job go on, or withdraws a pause."""
        self._change(ControlJob(checked_job_id(job), "resume", by))

    def cancel(self, job: str, *, by: str = "") -> None:
        """Asks the workers to save and end; without any, the job is cancelled at once."""
        self._change(ControlJob(checked_job_id(job), "cancel", by))

    def complete(self, job: str) -> None:
        """Ends the job as completed."""
        self._change(FinishJob(checked_job_id(job), "completed"))

    def fail(self, job: str, reason: str) -> None:
        """Ends the job as failed."""
        self._change(FinishJob(checked_job_id(job), "failed", reason[:2000]))

    def delete(self, job: str) -> None:
        """Removes a job that no living worker is attached to. Raises JobNotFound, IllegalTransition."""
        self._change(DeleteJob(checked_job_id(job)))

    def ask(self, *, timeout_s: float | None = None) -> WriterState:
        """The writer about itself."""
        return self._ask(Ask(), WriterState, timeout_s)

    def attach(
        self,
        job: str,
        *,
        worker: str | None = None,
        exclusive: bool = False,
        take_over: bool = False,
        report_every_s: float = 0.0,
    ) -> AbstractContextManager[Run]:
        """A block in which this process is one of the job's workers; leaving it only detaches.

        Raises JobNotFound, JobFinished, AlreadyAttached. `report_every_s` sends at most one progress
        message in so many seconds; checkpoints and the end never wait for it.
        """
        seat = Seat(checked_job_id(job), worker, exclusive, take_over, report_every_s)
        return attached(self._transport, seat)

    def run(
        self,
        job: str,
        *,
        kind: str = "job",
        total: int | None = None,
        unit: str = "rows",
        meta: dict[str, object] | None = None,
        take_over: bool = False,
        report_every_s: float = 0.0,
    ) -> AbstractContextManager[Run]:
        """A block in which this process is the job's only worker: creates or resumes it, and ends it.

        The job is completed when the block ends, failed when it raises; SystemExit and KeyboardInterrupt
        leave it to be resumed.
        """
        packed = {key: pack(value) for key, value in (meta or {}).items()}
        create = CreateJob(checked_job_id(job), kind, total, unit, {}, packed)
        return run_to_end(self._transport, create, Seat(create.job, None, True, take_over, report_every_s))

    def close(self) -> None:
        """Closes this process's sockets within `linger_s`; the client can be used again."""
        self._transport.close()

    def _change(self, body: Body) -> None:
        self._transport.call(body)

    def _ask(self, body: Body, expected: type[Expected], timeout_s: float | None = None) -> Expected:
        answer = self._transport.call(body, timeout_s).answer
        if not isinstance(answer, expected):
            raise BadMessage(f"the writer answered with {type(answer).__name__}")
        return answer

    def _get(self, body: Get, timeout_s: float | None = None) -> JobState | None:
        answer = self._transport.call(body, timeout_s).answer
        if isinstance(answer, Found):
            return codec.decode_state(answer.document, answer.last_beat_s)
        return None


def connect(directory: str | Path, *, settings: ClientSettings | None = None) -> Client:
    """A client for the writer of `directory`. Opens nothing: the first call does."""
    if "://" in str(directory):
        raise BadRequest(f"{directory} is not a directory", hint="give the directory that `actorstate serve` was given")
    return Client(Path(directory).absolute(), settings or ClientSettings())


def _forget_all() -> None:
    for transport in list(_clients):
        transport.forget()


os.register_at_fork(after_in_child=_forget_all)
