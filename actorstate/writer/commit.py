"""The law of the writer: propose -> commit -> confirm -> reply -> publish.

    gather   takes mail from the actors in turn; each proposes what its next state would be
    store    one transaction and one sync for all of it (beside the loop on a slow disk, in it on a fast one)
    settle   confirms the actors, or aborts them all; only then is anybody told anything

Nobody learns what is not on the disk. What arrives meanwhile waits in the mailboxes for the next commit.
Whatever goes wrong in the commit thread is raised in the loop, and ends the writer.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue

from actorstate import telemetry
from actorstate.config import WriterSettings
from actorstate.core.actor import Actor, Envelope
from actorstate.core.ledger import Entry
from actorstate.core.messages.replies import Applied
from actorstate.core.messages.requests import Report, Request, RetryItems
from actorstate.core.rate import Now
from actorstate.errors import ActorFailed, ActorStateError, Busy, DiskFull, JobParked
from actorstate.store.contract import IndexRow, JobCommit, Store, StoredChange
from actorstate.store.index import index_of
from actorstate.writer.keys import Keys
from actorstate.writer.ledger import entry_of, stored_items
from actorstate.writer.meter import Meter
from actorstate.writer.residents import Residents

JOIN_S = 1.0
"""How long the end waits for the commit thread; one that hangs in the kernel is a daemon, and promised nothing."""
SYNC_WEIGHT = 0.1
SYNC_OUTLIER_RATIO = 8
"""The sync time is a moving average; one outlier counts as at most this many thresholds."""
BACK_IN_LOOP_RATIO = 0.7
"""Hysteresis: the commit returns into the loop only when syncs are this much below the threshold."""

MAX_ITEMS = 4_096
"""No further actor has its turn in a commit that has so many items for the ledgers."""

Outcome = tuple[Envelope, Actor, Applied | ActorStateError]


@dataclass(slots=True)
class Batch:
    """One commit: what to write, who proposed it, and what each sender is told if it succeeds.

    `durable_at` (monotonic) is when it had succeeded, which took `took_s`.
    """

    parts: list[JobCommit] = field(default_factory=list[JobCommit])
    actors: list[Actor] = field(default_factory=list[Actor])
    outcomes: list[Outcome] = field(default_factory=list[Outcome])
    broken: list[Actor] = field(default_factory=list[Actor])
    items: int = 0
    error: BaseException | None = None
    took_s: float = 0.0
    durable_at: float = 0.0


class Committer:
    """Carries out the law for one store and epoch; `wake` is called from the commit thread when it is done.

    `sync_s` is the moving average of what the disk takes for a commit, in seconds. `disk_full` from the first
    commit that had no room until one succeeds.
    """

    def __init__(
        self, store: Store, epoch: int, settings: WriterSettings, wake: Callable[[], None], *, meter: Meter
    ) -> None:
        self._store, self._epoch, self._settings, self._wake = store, epoch, settings, wake
        self._keys, self.meter = Keys(store), meter
        self._line: dict[str, Actor] = {}
        self._orders: SimpleQueue[Batch | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._done: Batch | None = None
        self.under_way: Batch | None = None
        self.beside = settings.beside_above_s <= 0
        self.waiting = 0
        self.disk_full = False
        self.sync_s = 0.0

    def post(self, actor: Actor, envelope: Envelope) -> None:
        """Into the actor's mailbox, and the actor into the line. Raises Busy at a bound; nothing is dropped."""
        if len(actor.mailbox) >= self._settings.max_mailbox or self.waiting >= self._settings.max_waiting:
            ours = len(actor.mailbox)
            raise Busy(f"{self.waiting} requests wait for the disk, {ours} of this job", retry_after_s=0.1)
        actor.mailbox.append(envelope)
        self._line[actor.job] = actor
        self.waiting += 1

    def gather(self, now: Now) -> Batch:
        """Lets the actors in line propose, each at most `max_turn` before it goes to the end of the line."""
        batch, room = Batch(), self._settings.max_batch
        self._keys.claimed.clear()
        while room > 0 and self._line and batch.items < MAX_ITEMS:
            job = next(iter(self._line))
            actor = self._line.pop(job)
            taken = min(room, self._settings.max_turn, len(actor.mailbox))
            for _ in range(taken):
                envelope = actor.mailbox.popleft()
                if envelope.expires_at > now.monotonic:
                    self._propose(actor, envelope, now, batch)
                else:
                    self.meter.expired += 1
            room -= taken
            self.waiting -= taken
            if actor.mailbox:
                self._line[job] = actor
        for job, actor in {actor.job: actor for _, actor, _ in batch.outcomes}.items():
            staged = actor.seal(now, whole=self._store.whole)
            if staged is not None:
                first = staged.revision - len(staged.changes) + 1
                changes = tuple(
                    StoredChange(first + place, body, now.wall) for place, body in enumerate(staged.changes)
                )
                index = _index_row(actor) if staged.relisted else None
                deleted = staged.document is None
                batch.actors.append(actor)
                items = stored_items(staged) if staged.items else ()
                batch.parts.append(JobCommit(job, staged.revision, changes, staged.keyframe, index, deleted, items))
        return batch

    def hand_over(self, batch: Batch) -> None:
        """Commits the batch in the commit thread; `finished` has it afterwards."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="actorstate-commit", daemon=True)
            self._thread.start()
        self.under_way = batch
        self._orders.put(batch)

    def carry_out(self, batch: Batch) -> None:
        """Commits the batch here and now; an error waits in it for `settle`."""
        try:
            if "commit.started" in telemetry.heard:
                telemetry.event("commit.started", parts=batch.parts)
            started = time.monotonic()
            self._store.commit(self._epoch, batch.parts)
            batch.durable_at = time.monotonic()
            batch.took_s = batch.durable_at - started
        except BaseException as error:  # noqa: BLE001 - settle() raises it in the loop
            batch.error = error

    def finished(self) -> Batch | None:
        """The batch that the commit thread has done since the last call, if any."""
        batch, self._done = self._done, None
        if batch is not None:
            self.under_way = None
        return batch

    def settle(self, batch: Batch, residents: Residents) -> list[Outcome]:
        """Confirms or aborts the actors and returns what to tell whom. Raises what must end the writer."""
        if batch.error is not None:
            return self._aborted(batch, batch.error, residents)
        for actor in batch.actors:
            if self.meter.census and actor.staged and actor.staged.relisted:
                self.meter.census.follow(actor.document, actor.staged.document)
            actor.confirm()
        for actor in batch.broken:
            residents.reload(actor)
        if batch.parts:
            if self.disk_full:
                self._freed()
            limit, sync_s = self._settings.beside_above_s, self._store.sync_s
            self.sync_s += (min(sync_s, SYNC_OUTLIER_RATIO * limit) - self.sync_s) * SYNC_WEIGHT
            changes = sum([len(part.changes) for part in batch.parts])
            self.meter.made.append((changes, batch.took_s, sync_s))
            self.beside = self.sync_s >= limit * (BACK_IN_LOOP_RATIO if self.beside else 1.0)
            if "commit.synced" in telemetry.heard:
                telemetry.event("commit.synced", parts=batch.parts, sync_s=sync_s)
        return batch.outcomes

    def probe(self) -> None:
        """An empty commit, to see that the disk still takes one. Not while another is under way."""
        self._store.commit(self._epoch, ())
        if self.disk_full:
            self._freed()

    def close(self) -> None:
        """Ends the commit thread."""
        if self._thread is not None:
            self._orders.put(None)
            self._thread.join(JOIN_S)

    def _propose(self, actor: Actor, envelope: Envelope, now: Now, batch: Batch) -> None:
        request = envelope.request
        answer: Applied | ActorStateError
        try:
            if actor.failures >= self._settings.max_actor_failures:
                raise JobParked(f"job {actor.job!r} is parked after {actor.failures} failures", job=actor.job)
            if actor.staged is not None and actor.staged.document is None:
                # What comes after a deletion must not find, nor leave, anything of the deleted job in the store.
                raise Busy(f"job {actor.job!r} is being deleted", retry_after_s=0.05)
            if "actor.asked" in telemetry.heard:
                telemetry.event("actor.asked", job=actor.job, request=request)
            if not isinstance(request, Request):
                actor.judge(request, now, self._epoch)
                answer = Applied(actor.revision)
            else:
                body, entry = request.body, Entry(envelope.restores) if envelope.restores else None
                if isinstance(body, RetryItems) or (isinstance(body, Report) and body.items):
                    entry = entry_of(self._store, actor, body, now)
                    batch.items += len(entry.rows)
                answer = actor.propose(request, now, self._epoch, entry=entry, claim=self._keys.claim)
            actor.failures = 0
        except ActorStateError as refusal:
            answer = refusal
        except Exception as error:  # noqa: BLE001 - let it crash, alone: this actor is reloaded, others go on
            answer = self._crashed(actor, error, batch)
        batch.outcomes.append((envelope, actor, answer))

    def _crashed(self, actor: Actor, error: Exception, batch: Batch) -> ActorFailed:
        actor.failures += 1
        batch.broken.append(actor)
        telemetry.event("actor.failed", job=actor.job, error=error, failures=actor.failures)
        return ActorFailed(f"the actor of job {actor.job!r} failed: {error!r}", job=actor.job)

    def _aborted(self, batch: Batch, error: BaseException, residents: Residents) -> list[Outcome]:
        if not isinstance(error, DiskFull):
            raise error
        for actor in batch.actors:
            actor.abort()
        for actor in batch.broken:
            residents.reload(actor)
        if not self.disk_full:
            self.disk_full = True
            telemetry.event("disk.filled", error=error)
        telemetry.event("commit.refused", error=error)
        return [(envelope, actor, error) for envelope, actor, _ in batch.outcomes]

    def _freed(self) -> None:
        self.disk_full = False
        telemetry.event("disk.freed")

    def _work(self) -> None:
        while (batch := self._orders.get()) is not None:
            self.carry_out(batch)
            self._done = batch
            self._wake()


def _index_row(actor: Actor) -> IndexRow | None:
    document = actor.staged.document if actor.staged else None
    return None if document is None else index_of(document)
