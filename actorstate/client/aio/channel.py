"""One event loop's socket: it sends what it can, and gives each reply to who waits for its number.

The socket's descriptor wakes the loop; what is then to be done, only the socket's EVENTS tell. With
IMMEDIATE and without a high-water mark, a socket that takes nothing has no connection.
"""

import asyncio
import contextlib
import time
from typing import cast

import zmq

from actorstate.client.calls import Call
from actorstate.client.sync.pool import Link, Transport
from actorstate.core import codec
from actorstate.core.messages.replies import Reply
from actorstate.errors import BadMessage, Busy

MAX_CALLS = 10_000
"""Calls of one loop under way; one more gets `Busy`, which is retried until its deadline."""


class Channel:
    """Used by its loop alone; `heard_at` is when (monotonic) the writer last answered anything."""

    def __init__(self, transport: Transport, link: Link, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self.link, self.loop = transport, link, loop
        with link.lock:
            if link.closed.is_set():
                raise transport.no_answer("the client was closed")
            self._socket = link.open(send_hwm=0)
            link.using += 1
        self._descriptor = cast("int", self._socket.getsockopt(zmq.FD))
        self._unsent: dict[int, Call] = {}
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._connected = False
        self.heard_at = 0.0
        self.ended = False
        loop.add_reader(self._descriptor, self._wake)

    async def exchange(self, call: Call, until: float) -> Reply:
        """One attempt: sends the call's frame once there is a connection, and awaits its answer.

        Raises NoAnswer at `until`, and at once when the connection ends. A call that was not sent by then,
        or whose task is cancelled, is never sent.
        """
        if len(self._waiting) >= MAX_CALLS:
            raise Busy(f"{MAX_CALLS} calls of this event loop are under way", retry_after_s=0.1)
        heard = self._waiting[call.id] = self.loop.create_future()
        self._unsent[call.id] = call
        late = self.loop.call_later(max(0.0, until - time.monotonic()), self._give_up, heard)
        self._wake()
        try:
            reply: Reply = await heard
        finally:
            late.cancel()
            self._waiting.pop(call.id, None)
            self._unsent.pop(call.id, None)
        return reply

    def close(self, linger_s: float = 0.0) -> None:
        """Ends the socket; who still waits gets NoAnswer. Fine more than once, and after its loop was closed."""
        if self.ended:
            return
        self.ended = True
        if not self.loop.is_closed():
            self.loop.remove_reader(self._descriptor)
        self._socket.close(int(linger_s * 1000))
        with self.link.lock:
            self.link.using -= 1
        self._fail("the client was closed")

    def _wake(self) -> None:
        """Whatever the socket is ready for; again until it is ready for nothing, since it tells of each change once."""
        while not self.ended:
            events = cast("int", self._socket.getsockopt(zmq.EVENTS))
            if events & zmq.POLLIN:
                self._receive()
            elif not events & zmq.POLLOUT:
                self._disconnected()
                return
            elif self._unsent:
                self._connected = True
                self._send(next(iter(self._unsent)))
            else:
                return

    def _send(self, number: int) -> None:
        call = self._unsent[number]
        with contextlib.suppress(zmq.Again):  # the connection ended since it was looked at
            self._socket.send(call.frame, zmq.NOBLOCK)
            del self._unsent[number]
            call.first_sent = call.first_sent or time.monotonic()

    def _receive(self) -> None:
        try:
            replies = codec.decode_replies(self._socket.recv(zmq.NOBLOCK))
        except (BadMessage, zmq.Again):
            return
        self.heard_at = time.monotonic()
        for reply in replies:
            heard = self._waiting.get(reply.id)
            if heard is not None and not heard.done() and reply.epoch >= self.link.epoch:
                self.link.epoch = reply.epoch
                heard.set_result(reply)

    def _disconnected(self) -> None:
        """Answers to what was sent will not come any more; what was not sent waits for the next connection."""
        if self._connected:
            self._connected = False
            self._fail("the connection to its writer ended", but=frozenset(self._unsent))

    def _fail(self, why: str, but: frozenset[int] = frozenset()) -> None:
        for number, heard in self._waiting.items():
            if number not in but and not heard.done() and not self.loop.is_closed():
                heard.set_exception(self._transport.no_answer(why))

    def _give_up(self, heard: asyncio.Future[Reply]) -> None:
        if not heard.done():
            heard.set_exception(self._transport.no_answer("its writer did not answer"))
