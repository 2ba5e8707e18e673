"""The asyncio client: the same calls as the blocking one (`client/operations.py`), to be awaited.

Nothing is opened at import or before the first use. One client may serve several event loops and threads.
"""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import GenericAlias
from typing import Any, Self

from actorstate.client import operations, recall
from actorstate.client.aio.mirror import AsyncMirror
from actorstate.client.aio.run import AsyncRun, Block
from actorstate.client.aio.transport import AsyncTransport
from actorstate.client.carried import Method, Parameters, as_method, item_of, result_of
from actorstate.client.mirror import copy
from actorstate.client.mirror.copy import Scope
from actorstate.client.operations import Item, Operation, Result, Seat, Stream, next_item
from actorstate.client.sync import Client, connect
from actorstate.config import ClientSettings


def carried(operation: Callable[Parameters, Operation[Result]]) -> Method[Parameters, Coroutine[Any, Any, Result]]:
    """A coroutine method that carries the operation out and returns its result."""

    async def call(client: "AsyncClient", /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        return await client.transport.result_of(operation(*args, **kwargs))

    return as_method(operation, call, result_of(operation))


def streamed(stream: Callable[Parameters, Stream[Item]]) -> Method[Parameters, AsyncIterator[Item]]:
    """A method that returns the stream's items, for `async for`."""

    async def call(
        client: "AsyncClient", /, *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> AsyncIterator[Item]:
        items = stream(*args, **kwargs)
        while (item := await client.transport.result_of(next_item(items))) is not None:
            yield item.item

    return as_method(stream, call, GenericAlias(AsyncIterator, item_of(stream)))


def entered(seat: Callable[Parameters, Seat]) -> Method[Parameters, AbstractAsyncContextManager[AsyncRun]]:
    """A method that returns a worker's block, for `async with`."""

    def call(
        client: "AsyncClient", /, *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> AbstractAsyncContextManager[AsyncRun]:
        return Block(client.transport.blocking, seat(*args, **kwargs))

    return as_method(seat, call, AbstractAsyncContextManager[AsyncRun])


def mirrored(scope: Callable[Parameters, Scope]) -> Method[Parameters, AsyncMirror]:
    """A method that returns a mirror, for `async with`."""

    def call(client: "AsyncClient", /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> AsyncMirror:
        return AsyncMirror(client.transport, scope(*args, **kwargs))

    return as_method(scope, call, AsyncMirror)


class AsyncClient:
    """The calls of `Client`, by the same names and rules. A task that is cancelled within one gives that call up."""

    def __init__(self, blocking: Client) -> None:
        self.transport = AsyncTransport(blocking.transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes this process's sockets within `linger_s`; the client can be used again."""
        await self.transport.close()

    create = carried(operations.create)
    get = carried(operations.get)
    get_if_newer = carried(operations.get_if_newer)
    wait = carried(operations.wait)
    watch = streamed(operations.watch)
    jobs = streamed(operations.jobs)
    items = streamed(operations.items)
    pause = carried(operations.pause)
    resume = carried(operations.resume)
    cancel = carried(operations.cancel)
    complete = carried(operations.complete)
    fail = carried(operations.fail)
    retry = carried(operations.retry)
    approve = carried(operations.approve)
    throttle = carried(operations.throttle)
    history = streamed(recall.history)
    diff = carried(recall.diff)
    restore = carried(recall.restore)
    delete = carried(operations.delete)
    ask = carried(operations.ask)
    mirror = mirrored(copy.mirror)
    attach = entered(operations.attach)
    run = entered(operations.run)


def connect_async(
    directory: str | Path,
    *,
    autostart: bool = True,
    redact: Callable[[str], str] | None = None,
    settings: ClientSettings | None = None,
) -> AsyncClient:
    """An asyncio client for the writer of `directory`, under the same rules as `connect`."""
    return AsyncClient(connect(directory, autostart=autostart, redact=redact, settings=settings))
