"""State for long jobs: one writer process, one actor per job, and nothing lost between processes."""

from actorstate.client.run import Run
from actorstate.client.sync import Client, connect
from actorstate.config import VERSION, ClientSettings, WriterSettings
from actorstate.core.messages.document import JobState
from actorstate.errors import ActorStateError, JobCancelled

__all__ = [
    "ActorStateError",
    "Client",
    "ClientSettings",
    "JobCancelled",
    "JobState",
    "Run",
    "WriterSettings",
    "connect",
]
__version__ = VERSION
