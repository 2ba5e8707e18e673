"""Equal questions of one process, asked once: a storm of refreshes becomes one request to the writer at a time.

Whoever comes while a question is under way must not have its answer: it may be older than what this reader
was shown elsewhere. He waits with all others for the next one, which begins when that one has ended. Only a
held read (`wait_s`) is joined under way: its answer is newer than what all who ask it have. An answer that
still holds (`kept.py`) is not asked for at all.
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable

from actorstate.client.operations import Operation, Result, Send, awaited, driven
from actorstate.core.messages.replies import Reply
from actorstate.core.messages.requests import Body, ChangeRequest, Heartbeat
from actorstate.errors import ActorStateError, WriterUnavailable
from actorstate.web.kept import Kept, Read

SILENCE_S = 1.0
"""After a read without an answer further ones of its kind fail at once for so long; then one asks again for all."""
PATIENCE_S = 60.0
"""Longer than any flight; the thread that carries it out always ends it."""


class Flight:
    """One request under way, and what came of it."""

    def __init__(self) -> None:
        self.landed = threading.Event()
        self.outcome: Reply | ActorStateError = WriterUnavailable("a request of this process was given up")

    def result(self) -> Reply:
        """Waits for the outcome. Raises what the request was refused with."""
        self.landed.wait(PATIENCE_S)
        if isinstance(self.outcome, ActorStateError):
            raise self.outcome
        return self.outcome


class Flights:
    """Made in the process that uses it, at its first request: locks made before a fork are not to be trusted."""

    def __init__(
        self, call: Callable[[Body, float | None], Reply], kept: Kept, change_timeout_s: float | None = None
    ) -> None:
        self._call, self._kept, self._change_timeout_s = call, kept, change_timeout_s
        self._lock = threading.Lock()
        self._under_way: dict[Body, Flight] = {}
        self._next: dict[Body, Flight] = {}
        self._silences = Silences()

    def result_of(self, operation: Operation[Result]) -> Result:
        """Carries an operation out; raises what it raises."""
        return driven(operation, self.reply)

    def reply(self, wanted: Send) -> Reply:
        """The answer to one request; to a read perhaps one that is asked for others too."""
        body = wanted.body
        if not isinstance(body, Read):
            return self._changed(body)
        if (known := self._kept.look(body)) is not None:
            return known
        with self._lock:
            before = self._under_way.get(body)
            joined = self._next.get(body) or (before if getattr(body, "wait_s", 0.0) else None)
            flight = joined or self._next.setdefault(body, Flight())
        if joined is not None:
            return joined.result()
        if before is not None:
            before.landed.wait(PATIENCE_S)
        return self._flown(flight, wanted)

    def _flown(self, flight: Flight, wanted: Send) -> Reply:
        body = wanted.body
        with self._lock:
            del self._next[body]
            self._under_way[body] = flight
        try:
            flight.outcome = self._asked(wanted)
        except ActorStateError as error:
            flight.outcome = error
        finally:
            with self._lock:
                if self._under_way.get(body) is flight:
                    del self._under_way[body]
            flight.landed.set()
        return flight.result()

    def _asked(self, wanted: Send) -> Reply:
        self._silences.check(wanted.body)
        begun = self._kept.begin()
        try:
            reply = self._call(wanted.body, wanted.timeout_s)
        except WriterUnavailable as error:
            self._silences.begin(wanted.body, error)
            raise
        self._kept.keep(wanted.body, reply, begun)
        return reply

    def _changed(self, body: ChangeRequest | Heartbeat) -> Reply:
        try:
            return self._call(body, self._change_timeout_s)
        finally:
            self._kept.changed(body)


class AsyncFlights:
    """The same for the tasks of one event loop. A task that is cancelled takes nobody's answer with it."""

    def __init__(
        self, call: Callable[[Body, float | None], Awaitable[Reply]], kept: Kept, change_timeout_s: float | None = None
    ) -> None:
        self._call, self._kept, self._change_timeout_s = call, kept, change_timeout_s
        self._under_way: dict[Body, asyncio.Task[Reply]] = {}
        self._next: dict[Body, asyncio.Task[Reply]] = {}
        self._silences = Silences()

    async def result_of(self, operation: Operation[Result]) -> Result:
        """Carries an operation out; raises what it raises."""
        return await awaited(operation, self.reply)

    async def reply(self, wanted: Send) -> Reply:
        """The answer to one request; to a read perhaps one that is asked for others too."""
        body = wanted.body
        if not isinstance(body, Read):
            return await self._changed(body)
        if (known := self._kept.look(body)) is not None:
            return known
        before = self._under_way.get(body)
        flight = self._next.get(body) or (before if getattr(body, "wait_s", 0.0) else None)
        if flight is None:
            flight = self._next[body] = asyncio.ensure_future(self._flown(before, wanted))
            flight.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(flight)

    async def _flown(self, before: "asyncio.Task[Reply] | None", wanted: Send) -> Reply:
        body = wanted.body
        if before is not None:
            await asyncio.wait({before})
        flight = self._under_way[body] = self._next.pop(body)
        begun = self._kept.begin()
        try:
            self._silences.check(body)
            reply = await self._call(body, wanted.timeout_s)
        except WriterUnavailable as error:
            self._silences.begin(body, error)
            raise
        finally:
            if self._under_way.get(body) is flight:
                del self._under_way[body]
        self._kept.keep(body, reply, begun)
        return reply

    async def _changed(self, body: ChangeRequest | Heartbeat) -> Reply:
        try:
            return await self._call(body, self._change_timeout_s)
        finally:
            self._kept.changed(body)


class Silences:
    """Kinds of reads to which nobody answered just now."""

    def __init__(self) -> None:
        self._until: dict[type[Body], tuple[float, WriterUnavailable]] = {}

    def begin(self, body: Body, error: WriterUnavailable) -> None:
        """Nobody answered this one."""
        self._until[type(body)] = time.monotonic() + SILENCE_S, error

    def check(self, body: Body) -> None:
        """Raises what the last one of this kind ended with, while that is new."""
        until, error = self._until.get(type(body), (0.0, None))
        if error is not None and time.monotonic() < until:
            raise error
