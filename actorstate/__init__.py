"""State for long jobs: one writer process, one actor per job, and nothing lost between processes."""

from importlib import import_module

from actorstate.client.run import Run
from actorstate.client.sync import Client, connect
from actorstate.config import VERSION, ClientSettings, WriterSettings
from actorstate.core.messages.document import ItemState, JobState
from actorstate.errors import ActorStateError, JobCancelled

_ASYNCHRONOUS = ("AsyncClient", "connect_async")

__all__ = [
    "ActorStateError",
    "AsyncClient",  # pyright: ignore[reportUnsupportedDunderAll] - by __getattr__
    "Client",
    "ClientSettings",
    "ItemState",
    "JobCancelled",
    "JobState",
    "Run",
    "WriterSettings",
    "connect",
    "connect_async",  # pyright: ignore[reportUnsupportedDunderAll] - by __getattr__
]
__version__ = VERSION


def __getattr__(name: str) -> object:
    """The asyncio client, imported when it is asked for: asyncio would double the start-up of all the others."""
    if name not in _ASYNCHRONOUS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("actorstate.client.aio"), name)
