"""The law of the writer: propose -> commit -> confirm -> reply -> publish.

    gather   takes mail from the actors in turn; each proposes what its next state would be
    store    one transaction and one sync for all of it (beside the loop on a slow disk, in it on a fast one)
    settle   confirms the actors, or aborts them all; only then is anybody told anything

Nobody learns what is not on the disk. What arrives meanwhile waits in the mailboxes for the next commit.
Whatever goes wrong in the commit thread is raised in the loop, and ends the writer.
"""

import statistics
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue

from actorstate import telemetry
from actorstate.config import WriterSettings
from actorstate.core.actor import Actor, Envelope, Staged
from actorstate.core.messages.replies import Applied, WorkerJudged
from actorstate.core.rate import Now
from actorstate.errors import ActorFailed, ActorStateError, DiskFull, JobParked
from actorstate.store.contract import IndexRow, JobCommit, Store, StoredChange
from actorstate.writer.residents import Residents

SYNCS_MEASURED = 15
BACK_IN_LOOP_RATIO = 0.7
"""Hysteresis: the commit returns into the loop only when syncs are this much below the threshold."""

Outcome = tuple[Envelope, Actor, Applied | ActorStateError]


@dataclass(slots=True)
class Batch:
    """One commit: what to write, who proposed it, and what each sender is told if it succeeds."""

    parts: list[JobCommit] = field(default_factory=list)
    actors: list[Actor] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    broken: list[Actor] = field(default_factory=list)
    error: BaseException | None = None


class Committer:
    """Carries out the law for one store and epoch; `wake` is called from the commit thread when it is done."""

    def __init__(self, store: Store, epoch: int, settings: WriterSettings, wake: Callable[[], None]) -> None:
        self._store, self._epoch, self._settings, self._wake = store, epoch, settings, wake
        self._syncs: deque[float] = deque(maxlen=SYNCS_MEASURED)
        self._orders: SimpleQueue[Batch | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self.under_way: Batch | None = None
        self._done: Batch | None = None
        self.beside = settings.beside_above_s <= 0
        self.commits = 0
        self.changes = 0

    @property
    def sync_s(self) -> float:
        """Median time of the last syncs in seconds."""
        return statistics.median(self._syncs) if self._syncs else 0.0

    def gather(self, residents: Residents, now: Now) -> Batch:
        """Lets actors with mail propose, round by round, until the batch is full or nobody has more."""
        batch, room = Batch(), self._settings.max_batch
        while room > 0 and (turn := residents.take(min(room, self._settings.max_turn))):
            actor, mail = turn
            room -= len(mail)
            for envelope in mail:
                self._propose(actor, envelope, now, batch)
        for actor in dict.fromkeys(actor for _, actor, _ in batch.outcomes):
            staged = actor.seal(now)
            if staged is not None:
                batch.actors.append(actor)
                batch.parts.append(_part(actor, staged))
        return batch

    def store(self, batch: Batch) -> Batch | None:
        """Commits the batch in the loop and returns it, or hands it to the commit thread and returns None."""
        if not self.beside or not batch.parts:
            self._commit(batch)
            return batch
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="actorstate-commit", daemon=True)
            self._thread.start()
        self.under_way = batch
        self._orders.put(batch)
        return None

    def finished(self) -> Batch | None:
        """The batch that the commit thread has done since the last call, if any."""
        batch, self._done = self._done, None
        if batch is not None:
            self.under_way = None
        return batch

    def settle(self, batch: Batch, residents: Residents) -> list[Outcome]:
        """Confirms or aborts the actors and returns what to tell whom. Raises what must end the writer."""
        error = batch.error
        if error is not None and not isinstance(error, DiskFull):
            raise error
        for actor in batch.actors:
            actor.abort() if error is not None else actor.confirm()
        for actor in batch.broken:
            residents.reload(actor)
        if error is not None:
            telemetry.event("commit.refused", code=error.code)
            return [(envelope, actor, error) for envelope, actor, _ in batch.outcomes]
        if batch.parts:
            self._measured(batch)
        return batch.outcomes

    def probe(self) -> None:
        """An empty commit, to see that the disk still takes one. Not while another is under way."""
        self._store.commit(self._epoch, ())

    def close(self) -> None:
        """Ends the commit thread."""
        if self._thread is not None:
            self._orders.put(None)
            self._thread.join()

    def _propose(self, actor: Actor, envelope: Envelope, now: Now, batch: Batch) -> None:
        answer: Applied | ActorStateError
        try:
            answer = self._step(actor, envelope, now)
        except ActorStateError as refusal:
            answer = refusal
        except Exception as error:  # noqa: BLE001 - let it crash, alone: this actor is reloaded, others go on
            actor.failures += 1
            batch.broken.append(actor)
            telemetry.event("actor.failed", job=actor.job, error=error, failures=actor.failures)
            answer = ActorFailed(f"the actor of job {actor.job!r} failed: {error!r}", job=actor.job)
        batch.outcomes.append((envelope, actor, answer))

    def _step(self, actor: Actor, envelope: Envelope, now: Now) -> Applied:
        if actor.failures >= self._settings.max_actor_failures:
            raise JobParked(f"job {actor.job!r} is parked after {actor.failures} failures", job=actor.job)
        telemetry.event("actor.asked", job=actor.job, request=envelope.request)
        if isinstance(envelope.request, WorkerJudged):
            actor.judge(envelope.request, now, self._epoch)
            return Applied(actor.revision)
        applied = actor.propose(envelope.request, now, self._epoch)
        actor.failures = 0
        return applied

    def _commit(self, batch: Batch) -> None:
        if not batch.parts:
            return
        try:
            telemetry.event("commit.started", parts=len(batch.parts))
            self._store.commit(self._epoch, batch.parts)
        except BaseException as error:  # noqa: BLE001 - settle() raises it in the loop
            batch.error = error

    def _work(self) -> None:
        while (batch := self._orders.get()) is not None:
            self._commit(batch)
            self._done = batch
            self._wake()

    def _measured(self, batch: Batch) -> None:
        self.commits += 1
        changes = sum(len(part.changes) for part in batch.parts)
        self.changes += changes
        self._syncs.append(self._store.sync_s)
        telemetry.event("commit.synced", changes=changes, sync_s=self._store.sync_s)
        limit = self._settings.beside_above_s
        self.beside = self.sync_s > limit * (BACK_IN_LOOP_RATIO if self.beside else 1.0)


def _part(actor: Actor, staged: Staged) -> JobCommit:
    first = staged.revision - len(staged.changes) + 1
    return JobCommit(
        job=actor.job,
        revision=staged.revision,
        changes=tuple(StoredChange(first + place, body) for place, body in enumerate(staged.changes)),
        keyframe=staged.keyframe,
        index=_index_change(actor, staged),
        deleted=staged.document is None,
    )


def _index_change(actor: Actor, staged: Staged) -> IndexRow | None:
    before, after = actor.document, staged.document
    if after is None:
        return None
    row = IndexRow(after.kind, after.status, after.health or "")
    if before is not None and row == IndexRow(before.kind, before.status, before.health or ""):
        return None
    return row

