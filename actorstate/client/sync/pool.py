"""Sockets of the blocking client: a pool per process, and one request to its answer over it.

All that belongs to one process is one `Link`, built whole and published by one assignment, so that no
thread ever sees half of it; the pid is compared on every call, because uWSGI runs no at-fork hooks, and
the hook is there as well, because pids come again.
"""

import contextlib
import os
import select
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Protocol, cast

import zmq

from actorstate.client.calls import Call, NoAnswer, Numbers, again, settled
from actorstate.client.operations import Item, Operation, Result, Stream, driven, next_item
from actorstate.client.start import Starter
from actorstate.config import ClientSettings
from actorstate.core import codec
from actorstate.core.messages.replies import Reply
from actorstate.core.messages.requests import Body, ChangeRequest, CreateJob, Request
from actorstate.endpoint import boot_id, is_published, lock_holder, read_endpoint
from actorstate.errors import ActorStateError, BadRequest, WriterUnavailable
from actorstate.store.location import Location, other_store, quoted

HANDSHAKE_MS = 1_000
"""A connection into a dead writer's backlog is given up after this long; libzmq's default is 30 s."""
RECONNECT_MS = 10
TAKE_OVER = "actorstate serve DIR --detach --take-over"
_clients: "weakref.WeakSet[Transport]" = weakref.WeakSet()


class Link:
    """What one process holds: context, addresses, idle sockets, numbers. Built whole, never changed after a fork."""

    def __init__(self, location: Location, settings: ClientSettings) -> None:
        self._location, self._settings = location, settings
        self.boot = boot_id()
        self.numbers = Numbers()
        self.starter = Starter(location, settings)
        self.context = zmq.Context()
        self.idle: list[zmq.Socket[bytes]] = []
        self.lock = threading.Lock()
        self.using = 0
        self.closed = threading.Event()
        self.ended = False
        self.epoch = 0

    def close(self) -> None:
        """Closes idle sockets; those in use are closed by their threads, and the last one ends the context."""
        self.closed.set()
        self.drop_idle(int(self._settings.linger_s * 1000))
        self.end_unused()

    def drop_idle(self, linger_ms: int) -> None:
        """Closes the idle sockets, waiting so long for unsent frames."""
        with self.lock:
            while self.idle:
                self.idle.pop().close(linger_ms)

    def end_unused(self) -> None:
        """Ends the context, once, when the link is closed and no thread has a socket of it: else that would hang."""
        with self.lock:
            ends = self.closed.is_set() and not self.using and not self.ended
            self.ended = self.ended or ends
        if ends:
            self.context.term()

    def open(self, send_hwm: int = 1_000) -> "zmq.Socket[bytes]":
        """A new socket on its way to the writer. Raises NoAnswer when the directory names none, OtherStore."""
        try:
            endpoint = read_endpoint(self._location.directory)
            if endpoint.store != self._location.kind:
                raise other_store(Location(endpoint.store, self._location.directory))
            channel: zmq.Socket[bytes] = self.context.socket(zmq.DEALER)
        except (WriterUnavailable, zmq.ZMQError) as error:
            raise NoAnswer(f"no way to {self._location}: {error}", directory=str(self._location)) from error
        for option, value in (
            (zmq.IMMEDIATE, 1),
            (zmq.LINGER, int(self._settings.linger_s * 1000)),
            (zmq.RECONNECT_IVL, RECONNECT_MS),
            (zmq.SNDHWM, send_hwm),
            (zmq.HANDSHAKE_IVL, HANDSHAKE_MS),
        ):
            channel.setsockopt(option, value)
        channel.connect(endpoint.requests)
        return channel


class Companion(Protocol):
    """What uses a client's sockets in a thread of its own, and ends before them."""

    def close(self) -> None:
        """Returns once it does not."""
        ...


class Transport:
    """Requests and replies over the pool of the process that calls; safe over threads and forks."""

    def __init__(self, location: Location, settings: ClientSettings) -> None:
        self.location, self.settings = location, settings
        self._links: dict[int, Link] = {}
        self._buried: list[dict[int, Link]] = []
        self.companions: set[Companion] = set()
        _clients.add(self)

    def call(self, body: Body, timeout_s: float | None = None) -> Reply:
        """One request to its answer by the deadline. Raises what the writer refused with, and OutcomeUnknown."""
        call = self.start(body, timeout_s)
        try:
            return self.finish(call)
        except BaseException:
            call.give_up()
            raise

    def result_of(self, operation: Operation[Result]) -> Result:
        """Carries an operation out; raises what it raises."""
        return driven(operation, lambda wanted: self.call(wanted.body, wanted.timeout_s))

    def items_of(self, stream: Stream[Item]) -> Iterator[Item]:
        """Carries a stream out, as far as its items are asked for."""
        with contextlib.closing(stream):
            while (item := self.result_of(next_item(stream))) is not None:
                yield item.item

    def start(self, body: Body, timeout_s: float | None = None) -> Call:
        """Numbers and freezes a request."""
        link = self._links.get(os.getpid()) or self.link()
        numbers, is_change = link.numbers, isinstance(body, ChangeRequest)
        left_s = self.settings.timeout_s + getattr(body, "wait_s", 0.0) if timeout_s is None else timeout_s
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
        self._links, self.companions = {}, set()

    def close(self) -> None:
        """Closes this process's sockets; the next call opens new ones."""
        for companion in list(self.companions):
            companion.close()
        link = self._links.pop(os.getpid(), None)
        if link is not None:
            link.close()

    def link(self) -> Link:
        """What this process holds. Of two threads that come first at once, one wins and both use its link."""
        held = self._links.get(os.getpid())
        if held is not None:
            return held
        made = Link(self.location, self.settings)
        link = self._links.setdefault(os.getpid(), made)
        if link is not made:
            made.close()
        return link

    def _attempt(self, call: Call) -> Reply:
        link = self._links.get(os.getpid()) or self.link()
        held_s = getattr(call.body, "wait_s", 0.0)
        until = min(call.deadline, time.monotonic() + self.settings.attempt_s + held_s)
        with link.lock:
            if link.closed.is_set():
                raise self.no_answer("the client was closed")
            channel = link.idle.pop() if link.idle else link.open()
            link.using += 1
        ours: list[Reply] = []
        try:
            try:
                channel.send(call.frame, zmq.NOBLOCK)
            except zmq.Again:
                self._send_once_connected(channel, call, until)
            call.first_sent = call.first_sent or time.monotonic()
            while not ours:
                if held_s:
                    self._await_news(channel, until)
                elif not channel.poll(max(0, int((until - time.monotonic()) * 1000) + 1)):
                    raise self.no_answer("its writer did not answer")
                replies = codec.decode_replies(channel.recv())
                ours = [each for each in replies if each.id in {call.id, 0} and each.epoch >= link.epoch]
        finally:
            with link.lock:
                link.using -= 1
                link.idle.append(channel) if ours and not link.closed.is_set() else channel.close(0)
            if link.closed.is_set():
                link.end_unused()
        link.epoch = ours[0].epoch
        return settled(call, ours[0])

    def _send_once_connected(self, channel: "zmq.Socket[bytes]", call: Call, until: float) -> None:
        if not is_published(self.location.directory):
            raise self.no_answer("its writer has ended")
        while channel.poll(max(0, int((until - time.monotonic()) * 1000) + 1), zmq.POLLOUT):
            with contextlib.suppress(zmq.Again):  # the connection ended between the two lines
                channel.send(call.frame, zmq.NOBLOCK)
                return
        raise self.no_answer("nobody serves it")

    def _await_news(self, channel: "zmq.Socket[bytes]", until: float) -> None:
        """Returns when a held answer comes; raises NoAnswer when its connection ends: a restarted writer holds nothing.

        libzmq's own poll would not tell of the end; its descriptor wakes for it, and IMMEDIATE takes POLLOUT away.
        """
        news = select.poll()
        news.register(cast("int", channel.getsockopt(zmq.FD)), select.POLLIN)
        while not (events := cast("int", channel.getsockopt(zmq.EVENTS))) & zmq.POLLIN:
            if not events & zmq.POLLOUT:
                raise self.no_answer("the connection to its writer ended")
            if not news.poll(max(0, int((until - time.monotonic()) * 1000) + 1)):
                raise self.no_answer("its writer did not answer")

    def _attempt_again(self, call: Call, error: ActorStateError) -> Reply:
        if isinstance(error, NoAnswer):
            call.no_answer()

        def attempt() -> Reply:
            self.link().starter.start_unless_held(call.deadline, may_begin=isinstance(call.body, CreateJob))
            call.renew()
            try:
                return self._attempt(call)
            except NoAnswer:
                call.no_answer()
                # Where one socket had no answer the others lead nowhere either, and would cost an attempt each.
                self.link().drop_idle(0)
                raise

        try:
            return again(error, attempt, call.deadline)
        except ActorStateError as last:
            raise self.outcome(call, last) from None

    def outcome(self, call: Call, last: ActorStateError) -> ActorStateError:
        """What the caller is told after the last attempt; of a writer that is there and silent, its process."""
        error = call.outcome(last)
        if isinstance(error, WriterUnavailable) and (holder := self._silent_writer()):
            error.hint = f"process {holder} holds its lock, see: actorstate doctor DIR; if it hangs: {TAKE_OVER}"
        return self.addressed(error)

    def addressed(self, error: ActorStateError) -> ActorStateError:
        """The writer does not know how its directory is called here; a hint should work when typed."""
        error.hint = error.hint.replace(" DIR", f" {quoted(self.location)}")
        return error

    def _silent_writer(self) -> int | None:
        """The process that holds the lock, and should have answered."""
        with contextlib.suppress(OSError):
            return lock_holder(self.location.directory)
        return None

    def no_answer(self, why: str) -> NoAnswer:
        """The end of one attempt."""
        return NoAnswer(f"no answer from {self.location}: {why}", directory=str(self.location))


def _forget_all() -> None:
    for transport in list(_clients):
        transport.forget()


os.register_at_fork(after_in_child=_forget_all)
