"""What the writer answers without a commit: committed bytes, pages, beats, and readers held for news."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from actorstate import telemetry
from actorstate.config import WriterSettings
from actorstate.core.actor import Actor
from actorstate.core.job import check_worker
from actorstate.core.messages.document import NOTHING, Order
from actorstate.core.messages.replies import (
    Answer,
    Beaten,
    Found,
    Listed,
    NotModified,
    Refused,
    found,
    listed,
    size_of,
)
from actorstate.core.messages.requests import Ask, Body, Get, Heartbeat, ListItems, ListJobs, Request
from actorstate.errors import ActorStateError, CorruptJob, JobNotFound
from actorstate.store.contract import JobQuery, Store
from actorstate.writer.about import About
from actorstate.writer.ledger import items_page
from actorstate.writer.liveness import ages_s, follow
from actorstate.writer.residents import Residents

MAX_LIST_BYTES = 2 * 1024 * 1024
"""A page of jobs ends early when its documents reach this size."""

ANSWER_S = 0.25
"""A held reader is answered so long before its deadline: a wait that is sent again has less time than it asks for."""


@dataclass(frozen=True, slots=True)
class Waiter:
    """A reader that wants to hear when its job passes `newer_than`, at the latest at `until` (monotonic)."""

    client: bytes
    id: int
    job: str
    newer_than: int
    until: float


class Answers:
    """Reads from committed state alone; used by the loop."""

    def __init__(self, store: Store, residents: Residents, about: About, settings: WriterSettings) -> None:
        self._store, self._residents, self._about, self._settings = store, residents, about, settings
        self.waiters: dict[str, dict[tuple[bytes, int], Waiter]] = {}
        self._held = 0
        self._changed: set[str] = set()

    def read(self, client: bytes, request: Request) -> Answer | None:
        """The answer, or None when it is held back until there is news. Raises JobNotFound, Fenced, JobFinished."""
        body = request.body
        if isinstance(body, Get):
            return self._get(client, request, body)
        if isinstance(body, Heartbeat):
            return self._beat(body)
        if isinstance(body, ListJobs):
            return self._list(body)
        if isinstance(body, ListItems):
            self._found(self._residents.find(body.job, time.monotonic()), 0.0)
            return items_page(self._store, body)
        return self._about.state() if isinstance(body, Ask) else self._about.metrics()

    def order(self, body: Body) -> Order:
        """What a worker should do, told with the answer to its beat."""
        actor = self._residents.actors.get(body.job) if isinstance(body, Heartbeat) else None
        return actor.order() if actor is not None else NOTHING

    def changed(self, job: str) -> None:
        """News for those who wait for this job."""
        self._changed.add(job)

    def next_expiry(self) -> float:
        """When (monotonic) the first waiting reader must get its answer; never, if nobody waits."""
        if self._changed:
            return 0.0
        return min((waiter.until for held in self.waiters.values() for waiter in held.values()), default=float("inf"))

    def due(self, monotonic: float) -> Iterator[tuple[Waiter, Answer]]:
        """Readers whose wait is over, and what they get; those beyond a round's bytes come in the next one."""
        size = 0
        for job, held in list(self.waiters.items()):
            changed = job in self._changed
            for key in [key for key, waiter in held.items() if changed or waiter.until <= monotonic]:
                if size > MAX_LIST_BYTES:
                    return
                waiter = held.pop(key)
                self._held -= 1
                answer = self._look_again(waiter, monotonic)
                size += size_of(answer) if isinstance(answer, Found) else 0
                yield waiter, answer
            self._changed.discard(job)
            if not held:
                del self.waiters[job]
        self._changed.clear()

    def _get(self, client: bytes, request: Request, body: Get) -> Answer | None:
        monotonic = time.monotonic()
        actor = self._residents.find(body.job, monotonic)
        state = self._found(actor, monotonic)
        if body.newer_than is None or actor.revision > body.newer_than:
            return state
        finished = actor.document is not None and actor.document.finished
        if body.wait_s <= 0 or finished or self._held >= self._settings.max_waiters:
            return NotModified(actor.revision)
        held, number = self.waiters.setdefault(body.job, {}), request.id
        self._held += (client, number) not in held
        left_s = request.ttl_s - ANSWER_S if request.ttl_s else body.wait_s
        until = monotonic + min(body.wait_s, left_s)
        held[client, number] = Waiter(client, number, body.job, body.newer_than, until)
        return None

    def _found(self, actor: Actor, monotonic: float) -> Found:
        packed = actor.encoded()
        if packed is None:
            raise JobNotFound(f"there is no job {actor.job!r}", job=actor.job)
        return found(packed, ages_s(actor, monotonic))

    def _look_again(self, waiter: Waiter, monotonic: float) -> Answer:
        try:
            actor = self._residents.find(waiter.job, monotonic)
            if actor.revision > waiter.newer_than:
                return self._found(actor, monotonic)
            return NotModified(actor.revision)
        except ActorStateError as error:
            return refusal(error)

    def _beat(self, body: Heartbeat) -> Answer:
        monotonic = time.monotonic()
        actor = self._residents.find(body.job, monotonic)
        check_worker(actor.document, body)
        follow(actor, monotonic)
        actor.beats[body.worker].heard_at = monotonic
        return Beaten()

    def _list(self, body: ListJobs) -> Listed:
        query = JobQuery(body.status, body.kind, body.health, after=body.after, limit=body.limit, newest=body.newest)
        documents: list[bytes] = []
        damaged: list[str] = []
        size, after = 0, body.after
        page = self._store.list_jobs(query)
        for job in page:
            if size >= MAX_LIST_BYTES:
                return listed(documents, damaged, after)
            packed, after = self._packed(job, damaged), job
            if packed is not None:
                documents.append(packed)
                size += len(packed)
        return listed(documents, damaged, after if len(page) == body.limit else "")

    def _packed(self, job: str, damaged: list[str]) -> bytes | None:
        """A job that cannot be read is only named: the others of its page can, and `get` says what is wrong with it."""
        try:
            return self._residents.find(job, time.monotonic()).encoded()
        except CorruptJob as error:
            telemetry.event("list.left_out", job=job, error=error)
            damaged.append(job)
            return None


def refusal(error: ActorStateError) -> Refused:
    """The error's wire form."""
    return Refused(error.code, error.message, error.hint, error.details)
