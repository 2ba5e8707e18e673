"""The asyncio client's mirror: the same copy, kept by a task of its own."""

import asyncio
import contextlib
from typing import Self

from actorstate.client.aio.transport import AsyncTransport
from actorstate.client.mirror.copy import Copy, Place, Scope, matching
from actorstate.client.mirror.follow import Follower
from actorstate.core.messages.document import JobState


class AsyncMirror:
    """A copy of jobs, kept by a task while its `async with` block and its client are open; see `Mirror`."""

    def __init__(self, transport: AsyncTransport, scope: Scope) -> None:
        self._transport, self._copy = transport, Copy(scope, str(transport.blocking.location))
        self._whole = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        follower = Follower(self._transport, self._copy, self._whole.set)
        self._task = asyncio.create_task(follower.follow(), name="actorstate-mirror")
        self._transport.companions.add(self)
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the task; the copy stays readable, and ages."""
        self._transport.companions.discard(self)
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    @property
    def age_s(self) -> float:
        """Seconds since the copy was last known to be whole; infinite before the first time."""
        return self._copy.age_s

    @property
    def left_out(self) -> int:
        """How many unfinished jobs are damaged, and therefore not in the copy: `actorstate verify DIR` names them."""
        return self._copy.left_out

    async def get(
        self,
        job: str,
        *,
        at_least: Place | None = None,
        max_age_s: float | None = None,
        timeout_s: float = 10.0,
    ) -> JobState:
        """See `Mirror.get`; returns without a turn of the loop what is in memory."""
        if not self._whole.is_set():
            await self._filled(timeout_s)
        state = self._copy.look(job, at_least, max_age_s)
        if state is not None:
            return state
        return await self._transport.result_of(self._copy.looked_up(job, at_least, timeout_s))

    async def jobs(
        self,
        *,
        status: str | None = None,
        kind: str | None = None,
        health: str | None = None,
        max_age_s: float | None = None,
    ) -> list[JobState]:
        """See `Mirror.jobs`."""
        await self._filled(self._transport.settings.timeout_s)
        self._copy.check_age(max_age_s)
        return matching(self._copy.states(), status, kind, health)

    async def _filled(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._whole.wait()
        except TimeoutError:
            raise self._copy.unfilled() from None
