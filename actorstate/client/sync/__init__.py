"""The blocking client: the calls that readers and controllers make, and the way in for workers.

Nothing is opened at import or before the first use.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from types import GenericAlias
from typing import ParamSpec, Self

from actorstate.client import operations, recall
from actorstate.client.blocks import block
from actorstate.client.carried import Method, as_method, item_of, result_of
from actorstate.client.mirror import Mirror, copy
from actorstate.client.mirror.copy import Scope
from actorstate.client.operations import Item, Operation, Result, Seat, Stream
from actorstate.client.run import Run
from actorstate.client.sync.pool import Transport
from actorstate.config import ClientSettings
from actorstate.store.location import Location, located

Parameters = ParamSpec("Parameters")


def carried(operation: Callable[Parameters, Operation[Result]]) -> Method[Parameters, Result]:
    """A method that carries the operation out and returns its result."""

    def call(client: "Client", /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        return client.transport.result_of(operation(*args, **kwargs))

    return as_method(operation, call, result_of(operation))


def streamed(stream: Callable[Parameters, Stream[Item]]) -> Method[Parameters, Iterator[Item]]:
    """A method that returns the stream's items one by one."""

    def call(client: "Client", /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Iterator[Item]:
        return client.transport.items_of(stream(*args, **kwargs))

    return as_method(stream, call, GenericAlias(Iterator, item_of(stream)))


def entered(seat: Callable[Parameters, Seat]) -> Method[Parameters, AbstractContextManager[Run]]:
    """A method that returns a worker's block."""

    def call(client: "Client", /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> AbstractContextManager[Run]:
        return block(client.transport, seat(*args, **kwargs))

    return as_method(seat, call, AbstractContextManager[Run])


def mirrored(scope: Callable[Parameters, Scope]) -> Method[Parameters, Mirror]:
    """A method that returns a mirror, for `with`."""

    def call(client: "Client", /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Mirror:
        return Mirror(client.transport, scope(*args, **kwargs))

    return as_method(scope, call, Mirror)


class Client:
    """The calls of readers and controllers, and the way in for workers. Every call ends by `timeout_s`.

    Raises the errors of `errors.py`: JobNotFound, JobFinished, Busy..., WriterUnavailable when nobody
    answered, OutcomeUnknown when a change was sent and no answer came.
    """

    def __init__(self, location: Location, settings: ClientSettings) -> None:
        self.transport = Transport(location, settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes this process's sockets within `linger_s`; the client can be used again."""
        self.transport.close()

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


def connect(
    directory: str | Path,
    *,
    autostart: bool = True,
    redact: Callable[[str], str] | None = None,
    settings: ClientSettings | None = None,
) -> Client:
    """A client for the writer of `directory`; opens nothing: the first call does, and starts the writer if none runs.

    `json:///dir` names JSON files in /dir. A call that changes something begins a new directory, one that
    reads does not. With `autostart=False` (for servers, whose supervisor runs the writer) a call without a
    writer ends with WriterUnavailable. `redact` is given the text of each error that a worker reports, whole,
    and returns what may leave the process.
    """
    chosen = settings or ClientSettings()
    if redact is not None:
        chosen = replace(chosen, redact=redact)
    return Client(located(directory), chosen if autostart else replace(chosen, autostart=False))
