# The names of the package as type checkers and editors see them; `__init__.py` imports the asyncio client late.
from actorstate.client.aio import AsyncClient, connect_async
from actorstate.client.run import Run
from actorstate.client.sync import Client, connect
from actorstate.config import ClientSettings, WriterSettings
from actorstate.core.messages.document import ItemState, JobState
from actorstate.errors import ActorStateError, JobCancelled

__all__ = [
    "ActorStateError",
    "AsyncClient",
    "Client",
    "ClientSettings",
    "ItemState",
    "JobCancelled",
    "JobState",
    "Run",
    "WriterSettings",
    "connect",
    "connect_async",
]
__version__: str
