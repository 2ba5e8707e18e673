"""Jobs whose time is over leave, a slice a tick: found by the index, judged by the job itself, deleted by a commit."""

from collections.abc import Iterator

from actorstate import telemetry
from actorstate.core.actor import Actor
from actorstate.core.messages.replies import JobExpired
from actorstate.core.rate import Now
from actorstate.errors import ActorStateError
from actorstate.store.contract import JobQuery, Store
from actorstate.writer.residents import Residents

SLICE = 100
"""Jobs that leave at one tick; a hundred thousand take a quarter of an hour, and nobody waits for them."""


class Expiry:
    """Goes through the expired jobs in the order of their ids; one that cannot be read is passed by and kept."""

    def __init__(self, store: Store, residents: Residents) -> None:
        self._store, self._residents = store, residents
        self._after = ""

    def due(self, now: Now) -> Iterator[tuple[Actor, JobExpired]]:
        """The next slice: who must hear that its time is over."""
        at = now.wall.timestamp()
        page = self._store.list_jobs(JobQuery(expired_at=at, after=self._after, limit=SLICE))
        self._after = page[-1] if len(page) == SLICE else ""
        for job in page:
            try:
                actor = self._residents.find(job, now.monotonic)
            except ActorStateError as error:
                telemetry.event("expiry.failed", job=job, error=error)
                continue
            document = actor.document
            if document is not None and document.finished_at is not None:
                yield actor, JobExpired(job, document.finished_at)
