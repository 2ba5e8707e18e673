"""Equal questions of one process, asked once: a storm of refreshes becomes one request to the writer at a time.

Whoever comes while a question is under way must not have its answer: it may be older than what this reader
was shown elsewhere. He waits with all others for the next one, which begins when that one has ended. Only a
held read (`wait_s`) is joined under way: its answer is newer than what all who ask it have.
"""

import threading
import time
from collections.abc import Callable

from actorstate.client.operations import Operation, Result, Send, driven
from actorstate.core.messages.replies import Reply
from actorstate.core.messages.requests import Ask, Body, Get, ListItems, ListJobs
from actorstate.errors import ActorStateError, WriterUnavailable

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

    def __init__(self, call: Callable[[Body, float | None], Reply]) -> None:
        self._call = call
        self._lock = threading.Lock()
        self._under_way: dict[Body, Flight] = {}
        self._next: dict[Body, Flight] = {}
        self._silences: dict[type[Body], tuple[float, WriterUnavailable]] = {}

    def result_of(self, operation: Operation[Result]) -> Result:
        """Carries an operation out; raises what it raises."""
        return driven(operation, self.reply)

    def reply(self, wanted: Send) -> Reply:
        """The answer to one request; to a read perhaps one that is asked for others too."""
        body = wanted.body
        if not isinstance(body, Get | ListJobs | ListItems | Ask):
            return self._call(body, wanted.timeout_s)
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
        kind = type(wanted.body)
        until, silence = self._silences.get(kind, (0.0, None))
        if silence is not None and time.monotonic() < until:
            raise silence
        try:
            return self._call(wanted.body, wanted.timeout_s)
        except WriterUnavailable as error:
            self._silences[kind] = time.monotonic() + SILENCE_S, error
            raise
