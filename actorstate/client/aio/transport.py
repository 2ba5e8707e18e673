"""Requests and replies of the asyncio client: one socket a loop, numbers and rules as in the blocking client."""

import asyncio
import threading
import time
from typing import Protocol

from actorstate.client.aio.channel import Channel
from actorstate.client.calls import Call, NoAnswer, again_later, settled
from actorstate.client.operations import Operation, Result, awaited
from actorstate.client.sync.pool import Transport
from actorstate.core.messages.replies import Reply
from actorstate.core.messages.requests import Body, CreateJob
from actorstate.errors import ActorStateError


class Companion(Protocol):
    """What uses a client's sockets in a task of its own, and ends before them."""

    async def close(self) -> None:
        """Returns once it does not."""
        ...


class AsyncTransport:
    """Safe over event loops, threads and forks. Numbers come from `blocking`, so that both are one producer."""

    def __init__(self, blocking: Transport) -> None:
        self.blocking, self.settings = blocking, blocking.settings
        self._channels: dict[asyncio.AbstractEventLoop, Channel] = {}
        self._starts: dict[tuple[asyncio.AbstractEventLoop, bool], asyncio.Future[None]] = {}
        self._lock = threading.Lock()
        self.companions: set[Companion] = set()

    async def result_of(self, operation: Operation[Result]) -> Result:
        """Carries an operation out; raises what it raises."""
        return await awaited(operation, lambda wanted: self.call(wanted.body, wanted.timeout_s))

    async def call(self, body: Body, timeout_s: float | None = None) -> Reply:
        """One request to its answer by the deadline. Raises what the writer refused with, and OutcomeUnknown.

        A task that is cancelled here gives the request up, as an interrupted blocking call does: what was not
        sent never will be; what was sent is applied once or not at all, and its number is closed.
        """
        call = self.blocking.start(body, timeout_s)
        try:
            return await self._finish(call)
        except BaseException:
            call.give_up()
            raise

    async def close(self) -> None:
        """Closes the sockets of all loops, each in its own loop, and what uses them; the next call opens new ones."""
        for companion in list(self.companions):
            await companion.close()
        self.close_channels()
        await asyncio.to_thread(self.blocking.close)

    def close_channels(self) -> None:
        """The sockets alone; called within one of the loops."""
        with self._lock:
            channels, self._channels = self._channels, {}
        here = asyncio.get_running_loop()
        for loop, channel in channels.items():
            if loop is here or loop.is_closed():
                channel.close(self.settings.linger_s)
            else:
                loop.call_soon_threadsafe(channel.close, self.settings.linger_s)

    async def _finish(self, call: Call) -> Reply:
        try:
            return await self._attempt(call)
        except ActorStateError as error:
            first = error
        if isinstance(first, NoAnswer):
            call.no_answer()

        async def attempt() -> Reply:
            await self._writer_started(call)
            call.renew()
            try:
                return await self._attempt(call)
            except NoAnswer:
                call.no_answer()
                raise

        try:
            return await again_later(first, attempt, call.deadline)
        except ActorStateError as last:
            raise self.blocking.outcome(call, last) from None

    async def _attempt(self, call: Call) -> Reply:
        channel, began = self._channel(), time.monotonic()
        until = min(call.deadline, began + self.settings.attempt_s + getattr(call.body, "wait_s", 0.0))
        try:
            return settled(call, await channel.exchange(call, until))
        except NoAnswer:
            if channel.heard_at < began:  # it leads nowhere: the next attempt looks for the writer anew
                channel.close()
            raise

    async def _writer_started(self, call: Call) -> None:
        """Once for all tasks of a loop that ask at once: each look at the lock costs a thread and a file."""
        key = asyncio.get_running_loop(), call.is_change
        start = self._starts.get(key)
        if start is None or start.done():
            patient = time.monotonic() + self.settings.timeout_s
            starter = self.blocking.link().starter
            asked = asyncio.to_thread(starter.start_unless_held, patient, may_begin=isinstance(call.body, CreateJob))
            start = self._starts[key] = asyncio.ensure_future(asked)
            start.add_done_callback(lambda done: done.cancelled() or done.exception())
        done, _ = await asyncio.wait({start}, timeout=max(0.0, call.deadline - time.monotonic()))
        if not done:
            raise self.blocking.no_answer("a writer is being started, and did not serve in time")
        start.result()

    def _channel(self) -> Channel:
        loop, link = asyncio.get_running_loop(), self.blocking.link()
        channel = self._channels.get(loop)
        if channel is not None and channel.link is link and not channel.ended:
            return channel
        with self._lock:
            for other in [other for other in self._channels if other.is_closed()]:
                self._channels.pop(other).close()
                self._starts = {key: start for key, start in self._starts.items() if key[0] is not other}
            channel = self._channels[loop] = Channel(self.blocking, link, loop)
        return channel
