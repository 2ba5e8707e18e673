"""Keeps a copy true: listens to the feed, fetches what changed, and looks at everything anew after a loss.

    subscribe     the writer answers with a beat: from here on nothing is missed without a gap in the sequence
    look          at each job that the copy is of, once; what changes meanwhile comes on the feed
    fetch         the jobs of which the feed said something, each once a round, however often they changed

After a gap, in a new epoch, and after silence: look again. The copy only ever goes forwards.
"""

import asyncio
import time
from collections.abc import Callable

from actorstate.client import operations
from actorstate.client.aio.transport import AsyncTransport
from actorstate.client.mirror.copy import Copy
from actorstate.client.mirror.feed import SILENCE_S, Feed
from actorstate.client.operations import next_item
from actorstate.core.messages.document import Status
from actorstate.errors import ActorStateError, Busy, CorruptJob, OutcomeUnknown, WriterUnavailable

AGAIN_AFTER_S = 0.1
MAX_FETCHES = 64
"""Reads under way at once."""
UNFINISHED: tuple[Status, ...] = ("pending", "running", "waiting", "paused")


class Follower:
    """One copy's keeper, in one event loop. `on_turn` is called there after each round in which the copy was whole."""

    def __init__(self, transport: AsyncTransport, copy: Copy, on_turn: Callable[[], None]) -> None:
        self._transport, self._copy, self._on_turn = transport, copy, on_turn
        self._lost = True

    async def follow(self) -> None:
        """Until it is cancelled. While no writer answers the copy stays as it is, and ages."""
        while True:
            try:
                await self._transport.result_of(operations.ask())  # starts the writer where a client may
                await self._listen()
            except ActorStateError:
                await asyncio.sleep(AGAIN_AFTER_S)

    async def _listen(self) -> None:
        feed = Feed(self._transport.blocking)
        try:
            while True:
                facts = await feed.facts(SILENCE_S)
                heard_at, before = time.monotonic(), self._copy.position
                self._lost |= [self._copy.hear(fact) for fact in facts].count(False) > 0
                if self._lost:
                    await self._look()
                await self._fetch()
                self._copy.fresh_at = heard_at
                self._on_turn()
                if self._copy.position != before:
                    await asyncio.sleep(self._copy.scope.every_s)
        finally:
            feed.close()

    async def _look(self) -> None:
        copy = self._copy
        if copy.scope.names is not None:
            copy.look_again_at(copy.scope.names)
        else:
            before, copy.left_out = set(copy.held), 0
            for status in UNFINISHED:
                before -= await self._take_all(status)
            copy.look_again_at(before)
        self._lost = False

    async def _take_all(self, status: Status) -> set[str]:
        taken: set[str] = set()
        stream = operations.jobs(status=status)
        while len(taken) < self._copy.scope.max_jobs:
            try:
                item = await self._transport.result_of(next_item(stream))
            except CorruptJob as error:
                self._copy.left_out += int(error.details.get("number") or 0)
                break
            if item is None:
                break
            self._copy.take(item.item)
            taken.add(item.item.id)
        return taken

    async def _fetch(self) -> None:
        jobs = list(self._copy.awaited)
        for begin in range(0, len(jobs), MAX_FETCHES):
            await asyncio.gather(*(self._fetch_one(job) for job in jobs[begin : begin + MAX_FETCHES]))

    async def _fetch_one(self, job: str) -> None:
        try:
            self._copy.take(await self._transport.result_of(operations.get(job)))
        except (WriterUnavailable, OutcomeUnknown, Busy):
            raise
        except ActorStateError:
            self._copy.drop(job)
