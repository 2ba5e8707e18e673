"""The actors in memory: found or loaded on demand, sent away when idle."""

from collections.abc import Iterator

from actorstate import telemetry
from actorstate.config import WriterSettings
from actorstate.core.actor import Actor
from actorstate.errors import CorruptJob, JobNotFound
from actorstate.store.contract import JobQuery, Store


class Residents:
    """Keeps about `max_resident` idle actors, never twice as many; those with work or workers stay while they have."""

    def __init__(self, store: Store, settings: WriterSettings) -> None:
        self._store = store
        self._settings = settings
        self.actors: dict[str, Actor] = {}
        self._repeats_before = 0

    @property
    def repeats(self) -> int:
        """Requests that were answered as before, by those that have left memory too."""
        return self._repeats_before + sum(actor.repeats for actor in self.actors.values())

    def find(self, job: str, monotonic: float) -> Actor:
        """The job's actor, loaded if need be. Raises JobNotFound, CorruptJob."""
        actor = self.actors.get(job) or self._load(job)
        if actor is None:
            raise JobNotFound(f"there is no job {job!r}", job=job)
        actor.used_at = monotonic
        return actor

    def find_or_new(self, job: str) -> Actor:
        """As `find`, with an empty actor for a job that does not exist yet."""
        actor = self.actors.get(job) or self._load(job)
        if actor is None:
            actor = self.actors[job] = Actor(job)
        return actor

    def reload(self, actor: Actor) -> None:
        """Back to what the store holds, mailbox kept; an actor that cannot be restored is parked."""
        try:
            stored = self._store.load(actor.job)
            actor.restore(stored.keyframe if stored else None, stored.changes if stored else ())
        except CorruptJob as error:
            actor.failures = self._settings.max_actor_failures
            telemetry.event("actor.lost", job=actor.job, error=error)

    def evict(self, monotonic: float) -> None:
        """Sends away actors that were idle too long, and above the maximum the idlest."""
        idle = [actor for actor in self.actors.values() if _may_leave(actor)]
        idle.sort(key=lambda actor: actor.used_at)
        surplus = len(self.actors) - self._settings.max_resident
        for place, actor in enumerate(idle):
            if place < surplus or monotonic - actor.used_at >= self._settings.idle_after_s:
                del self.actors[actor.job]
                self._repeats_before += actor.repeats
                telemetry.event("actor.evicted", job=actor.job)

    def attached_jobs(self) -> Iterator[str]:
        """Ids of jobs that had workers when they were last committed."""
        after = ""
        while page := self._store.list_jobs(JobQuery(attached=True, after=after, limit=1000)):
            yield from page
            after = page[-1]

    def _load(self, job: str) -> Actor | None:
        stored = self._store.load(job)
        if stored is None:
            return None
        if len(self.actors) >= 2 * self._settings.max_resident:
            self.evict(float("-inf"))
        actor = Actor(job)
        actor.restore(stored.keyframe, stored.changes)
        self.actors[job] = actor
        return actor


def _may_leave(actor: Actor) -> bool:
    if actor.mailbox or actor.staged is not None or actor.failures:
        return False
    return actor.document is None or actor.document.finished or not actor.document.workers
