"""The change feed as one event loop hears it: a SUB socket, and the facts that came."""

import asyncio
from typing import cast

import zmq

from actorstate.client.sync.pool import HANDSHAKE_MS, RECONNECT_MS, Transport
from actorstate.core import codec
from actorstate.core.messages.replies import JobsChanged
from actorstate.endpoint import read_endpoint
from actorstate.errors import WriterUnavailable

MAX_FACTS = 1_000
"""Facts handed on at once; the rest waits in the socket."""
SILENCE_S = 2.5
"""The writer beats each second: without a beat for so long the feed is opened anew, where the directory says."""
HWM = 1_000
"""Facts that wait in the socket; further ones are dropped, and the gap shows in their sequence."""


class Subscription:
    """A socket on the feed, open until `close`; it never waits. For one thread at a time.

    Raises WriterUnavailable where the directory names no writer. After its first fact nothing is missed
    without a gap in the sequence.
    """

    def __init__(self, transport: Transport) -> None:
        self._link = transport.link()
        endpoint = read_endpoint(transport.location.directory)
        with self._link.lock:
            if self._link.closed.is_set():
                raise transport.no_answer("the client was closed")
            self._socket: zmq.Socket[bytes] = self._link.context.socket(zmq.SUB)
            self._link.using += 1
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.RCVHWM, HWM),
            (zmq.RECONNECT_IVL, RECONNECT_MS),
            (zmq.HANDSHAKE_IVL, HANDSHAKE_MS),
        ):
            self._socket.setsockopt(option, value)
        self._socket.setsockopt(zmq.SUBSCRIBE, b"")
        self._socket.connect(endpoint.changes)
        self.descriptor = cast("int", self._socket.getsockopt(zmq.FD))

    def facts(self) -> list[JobsChanged]:
        """What has come since the last time, at most `MAX_FACTS`."""
        facts: list[JobsChanged] = []
        while len(facts) < MAX_FACTS and cast("int", self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            facts.append(codec.decode_jobs_changed(self._socket.recv(zmq.NOBLOCK)))
        return facts

    def close(self) -> None:
        """Ends the socket."""
        self._socket.close(0)
        with self._link.lock:
            self._link.using -= 1
        if self._link.closed.is_set():
            self._link.end_unused()


class Feed:
    """A subscription that a task awaits news of. Raises what `Subscription` raises."""

    def __init__(self, transport: Transport) -> None:
        self._transport, self._subscription = transport, Subscription(transport)
        self._loop, self._news = asyncio.get_running_loop(), asyncio.Event()
        self._loop.add_reader(self._subscription.descriptor, self._news.set)

    async def facts(self, within_s: float) -> list[JobsChanged]:
        """What has come since the last time, at least one. Raises WriterUnavailable when nothing does `within_s`."""
        until = self._loop.time() + within_s
        while not (facts := self._receive()):
            try:
                async with asyncio.timeout_at(until):  # wait_for forgets a cancellation that meets the news (bpo-37658)
                    await self._news.wait()
            except TimeoutError:
                raise WriterUnavailable("the change feed is silent", directory=str(self._transport.location)) from None
        return facts

    def close(self) -> None:
        """Ends the subscription."""
        self._loop.remove_reader(self._subscription.descriptor)
        self._subscription.close()

    def _receive(self) -> list[JobsChanged]:
        self._news.clear()
        return self._subscription.facts()
