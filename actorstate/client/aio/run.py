"""A worker's block for asyncio: the blocking run and its sender (`client/run.py`), driven from an event loop.

What returns at once is called as it is; what waits, waits in a thread of its own.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, suppress
from inspect import isawaitable
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, cast

from actorstate.client import exits
from actorstate.client.aio.aside import aside, begun_aside, to_its_end
from actorstate.client.blocks import block
from actorstate.client.carried import Method, as_method
from actorstate.client.operations import Seat
from actorstate.client.run import Run, TrackPort
from actorstate.client.sender import Totals
from actorstate.client.sync.pool import Transport
from actorstate.client.track import Course, Steps
from actorstate.client.words import checked_name
from actorstate.core.messages.document import NOTHING, ItemState
from actorstate.errors import ActorStateError

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
Row = TypeVar("Row")


def said(method: Callable[Concatenate[Run, Parameters], Result]) -> Method[Parameters, Result]:
    """A method of the blocking run that returns at once."""

    def call(run: "AsyncRun", /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        return method(run.blocking, *args, **kwargs)

    return as_method(cast("Callable[Parameters, Result]", method), call, method.__annotations__["return"])


def awaited(
    method: Callable[Concatenate[Run, Parameters], Result],
) -> Method[Parameters, Coroutine[Any, Any, Result]]:
    """A method of the blocking run that waits."""

    async def call(run: "AsyncRun", /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        return await aside(method, run.blocking, *args, **kwargs)

    return as_method(cast("Callable[Parameters, Result]", method), call, method.__annotations__["return"])


class AsyncRun:
    """One worker's view of its job, for the tasks of one event loop. The words are those of `Run`."""

    def __init__(self, blocking: Run) -> None:
        self.blocking = blocking

    @property
    def job(self) -> str:
        """The job's id."""
        return self.blocking.job

    @property
    def worker(self) -> str:
        """This worker's name."""
        return self.blocking.worker

    @property
    def totals(self) -> Totals:
        """Rows counted here so far, and those acknowledged."""
        return self.blocking.totals

    @property
    def resume_from(self) -> object:
        """What the checkpoint `default` held when this run began or saved it last; None without one."""
        return self.blocking.resume_from

    resume_from_name = said(Run.resume_from_name)
    progress = said(Run.progress)
    failed = said(Run.failed)
    skipped = said(Run.skipped)
    duplicate = said(Run.duplicate)
    phase = said(Run.phase)
    step = said(Run.step)
    meta = said(Run.meta)
    throttled = said(Run.throttled)
    items = awaited(Run.items)
    checkpoint = awaited(Run.checkpoint)
    flush = awaited(Run.flush)
    complete = awaited(Run.complete)
    fail = awaited(Run.fail)
    heed = awaited(Run.heed)
    wait_for_approval = awaited(Run.wait_for_approval)

    def track(
        self,
        rows: Iterable[Row] | AsyncIterable[Row],
        *,
        name: str = "default",
        every: int = 500,
        total: int | None = None,
        key: Callable[[Row], str | int] | None = None,
        before_save: Callable[[], object] | None = None,
    ) -> AsyncIterator[Row]:
        """For `async for`: see `Run.track`. `before_save` is called in the event loop, and may be a coroutine function.

        Tasks that are started within a row's turn speak for that row; await them before the loop goes on.
        """
        if total is not None:
            self.blocking.sender.say(lambda pending: setattr(pending, "total", total))
        loop = asyncio.get_running_loop()
        save = None if before_save is None else _in_loop(loop, before_save)
        port = TrackPort(self.blocking, checked_name(name), save)
        return _InTurns(self.blocking, _asynchronous(rows), lambda: Course(port, every, key))

    def retries(self, *, every: int = 100, before_save: Callable[[], object] | None = None) -> AsyncIterator[ItemState]:
        """For `async for`: see `Run.retries`. `before_save` as in `track`."""
        save = None if before_save is None else _in_loop(asyncio.get_running_loop(), before_save)
        retries = self.blocking.retries_of(save, every)
        return _InTurns(self.blocking, _fetched(retries.waiting()), retries.claimed)


class _InTurns(Generic[Row]):
    """Rows, each until its turn is over. No async generator: those are closed some time after their loop was left."""

    def __init__(self, run: Run, rows: AsyncIterator[Row], claim: Callable[[], Steps]) -> None:
        self._run, self._rows, self._claim = run, rows, claim
        self._course: Steps | None = None
        self._in_turn = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Row:
        course = self._course
        if course is None:
            course = self._course = await aside(self._claim)
        if self._in_turn:
            self._in_turn = False
            if course.end():
                await aside(course.save)
        async for row in self._rows:
            if course.skips(row):
                continue
            if self._run.sender.order != NOTHING:
                await aside(course.heed)
            course.begin(row)
            self._in_turn = True
            return row
        await aside(course.finish)
        raise StopAsyncIteration

    def __del__(self) -> None:
        """The loop was left within a row: as closing a generator does, in the same moment."""
        if self._in_turn and self._course is not None:
            self._in_turn = False
            self._course.leave()


async def _asynchronous(rows: Iterable[Row] | AsyncIterable[Row]) -> AsyncIterator[Row]:
    if isinstance(rows, AsyncIterable):
        async for row in rows:
            yield row
    else:
        for row in rows:
            yield row


async def _fetched(items: Iterator[ItemState]) -> AsyncIterator[ItemState]:
    """Each next one may have to be asked for."""
    while (item := await aside(next, items, None)) is not None:
        yield item


def _in_loop(loop: asyncio.AbstractEventLoop, before_save: Callable[[], object]) -> Callable[[], None]:
    """Called in a thread that saves: the user's own work is done where the user's objects live."""

    async def call() -> None:
        done = before_save()
        if isawaitable(done):
            await cast("Awaitable[object]", done)

    return lambda: asyncio.run_coroutine_threadsafe(call(), loop).result()


class Block(AbstractAsyncContextManager[AsyncRun]):
    """The block of `AsyncClient.run` and `AsyncClient.attach`. A cancelled task leaves its job to be resumed."""

    def __init__(self, transport: Transport, seat: Seat) -> None:
        self._block = block(transport, seat)
        self._signals = exits.terminated_as_exit()

    async def __aenter__(self) -> AsyncRun:
        entering = begun_aside(self._block.__enter__)
        try:
            run = await asyncio.shield(entering)
        except asyncio.CancelledError as error:
            with suppress(ActorStateError, asyncio.CancelledError):  # cancelled twice is raised once, below
                await to_its_end(entering)
            if entering.exception() is None:
                await to_its_end(begun_aside(self._block.__exit__, type(error), error, error.__traceback__))
            raise
        self._signals.__enter__()
        return AsyncRun(run)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        try:
            return await to_its_end(begun_aside(self._block.__exit__, kind, error, trace))
        finally:
            self._signals.__exit__(None, None, None)
