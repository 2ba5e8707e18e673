"""Looks into the past: replays from the store in slices between the loop's other work, so that none stalls it.

A replay costs at most one keyframe's interval (`core/actor.py`), tens of milliseconds at worst; a slice of it
about one. Looks under way take turns. They read committed rows alone and change nothing; a restore ends in a
request to the job's actor, like any other change.
"""

import time
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from datetime import datetime

from actorstate import telemetry
from actorstate.config import WriterSettings
from actorstate.core import codec
from actorstate.core.actor import Envelope
from actorstate.core.history import entry
from actorstate.core.messages.document import Document
from actorstate.core.messages.replies import Answer, HistoryEntry, HistoryPage, JobRestored, found
from actorstate.core.messages.requests import GetAt, ReadHistory, Recalling, Request, RestoreJob
from actorstate.core.replay import Replay
from actorstate.errors import ActorFailed, ActorStateError, BadRequest, Busy, CorruptJob, HistoryPruned, JobNotFound
from actorstate.store.contract import Store, StoredChange
from actorstate.writer.commit import Committer
from actorstate.writer.residents import Residents

SLICE_CHANGES = 64
SLICE_BYTES = 256 * 1024
"""A slice reads about so much: the number of changes in the next one follows the bytes of this one."""
MAX_PAGE_BYTES = 8 * 1024 * 1024
"""A page of history ends early when the changes read for it were so large."""

Recalled = Answer | JobRestored
Told = tuple[bytes, int, Answer | ActorStateError]
"""A client, the number of its request, and what it gets."""
Look = Generator[None, None, Recalled]


@dataclass(slots=True)
class Recall:
    """One look under way, for `client`, whose patience ends at `expires_at` (monotonic, seconds)."""

    client: bytes
    request: Request
    expires_at: float
    look: Look


@dataclass(slots=True)
class _Reader:
    """A job's changes after a revision, slice by slice; `size` is the bytes read so far."""

    store: Store
    job: str
    size: int = 0
    _limit: int = field(default=SLICE_CHANGES // 8)

    def read(self, after: int, most: int) -> list[StoredChange]:
        """The next few, without a gap; none where a store of generations has none. Raises CorruptJob, HistoryPruned."""
        changes = self.store.changes(self.job, after, min(most, self._limit))
        if not changes and not self.store.whole:
            raise _missing(self.store, self.job, after + 1)
        for place, change in enumerate(changes, after + 1):
            if change.revision != place:
                raise _missing(self.store, self.job, place)
        size = sum(len(change.body) for change in changes)
        self._limit = max(1, self._limit // 2) if size > SLICE_BYTES else min(SLICE_CHANGES, self._limit * 2)
        self.size += size
        return changes


class Past:
    """What readers and restores want to know of jobs as they were; used by the loop."""

    def __init__(self, store: Store, residents: Residents, committer: Committer, settings: WriterSettings) -> None:
        self._store, self._residents, self._committer, self._settings = store, residents, committer, settings
        self._recalls: deque[Recall] = deque()

    @property
    def due(self) -> bool:
        """Whether a look is under way."""
        return bool(self._recalls)

    def begin(self, client: bytes, request: Request, body: Recalling, expires_at: float) -> bool:
        """Takes a request about the past; `step` brings its answer. Raises JobNotFound, Busy.

        False for a restore that is committed already: its actor knows the answer, and the past may be forgotten.
        """
        if len(self._recalls) >= self._settings.max_recalls:
            raise Busy(f"{len(self._recalls)} looks into the past are under way", retry_after_s=0.2)
        actor = self._residents.find(body.job, time.monotonic())
        if isinstance(body, RestoreJob) and actor.has_told(request):
            return False
        if actor.document is None:
            raise JobNotFound(f"there is no job {body.job!r}", job=body.job)
        look = _LOOKS[type(body)](self._store, actor.document, body)
        self._recalls.append(Recall(client, request, expires_at, look))
        return True

    def step(self, monotonic: float) -> Told | None:
        """One slice of the look whose turn it is; what to tell whom where that was its end."""
        recall = self._recalls.popleft()
        if recall.expires_at < monotonic:
            return None
        try:
            next(recall.look)
        except StopIteration as end:
            return self._ended(recall, end.value)
        except ActorStateError as error:
            return recall.client, recall.request.id, error
        except Exception as error:  # noqa: BLE001 - let it crash, alone: the others look on
            telemetry.event("recall.failed", request=recall.request, error=error)
            return recall.client, recall.request.id, ActorFailed(f"this look into the past failed: {error!r}")
        self._recalls.append(recall)
        return None

    def _ended(self, recall: Recall, found: Recalled) -> Told | None:
        client, number = recall.client, recall.request.id
        if not isinstance(found, JobRestored):
            return client, number, found
        try:
            actor = self._residents.find(found.job, time.monotonic())
            self._committer.post(actor, Envelope(recall.request, client, number, recall.expires_at, found))
        except ActorStateError as error:
            return client, number, error
        return None


def _get(store: Store, present: Document, body: GetAt) -> Look:
    document = yield from _as_it_was(store, present, body)
    return found(codec.encode(document), {})


def _restore(store: Store, present: Document, body: RestoreJob) -> Look:
    document = yield from _as_it_was(store, present, body)
    return JobRestored(body.job, document, body.by)


def _as_it_was(store: Store, present: Document, body: GetAt | RestoreJob) -> Generator[None, None, Document]:
    if (body.revision is None) == (body.at is None):
        raise BadRequest("give a revision or a time", hint="client.get(JOB, at=41), or at= a datetime with a time zone")
    revision = body.revision or present.revision if body.at is None else _revision_at(store, present, body.at)
    if revision > present.revision:
        raise BadRequest(
            f"job {present.id!r} is at revision {present.revision}; {revision} has not happened",
            hint=f"see what has: actorstate log DIR {present.id}",
        )
    if revision == present.revision:
        return present
    replay = yield from _rebuilt(store, present, revision)
    if replay.document is None:
        raise _pruned(present.id, _begins(store, present), revision)
    return replay.document


def _revision_at(store: Store, present: Document, at: datetime) -> int:
    revision = min(store.revision_at(present.id, at), present.revision)
    if revision:
        return revision
    if at >= present.updated_at:
        return present.revision
    if at < present.created_at:
        raise JobNotFound(
            f"job {present.id!r} was created later, at {present.created_at.isoformat()}",
            hint=f"see its beginning: actorstate history DIR {present.id}",
            job=present.id,
        )
    raise _pruned(present.id, _begins(store, present), 0)


def _rebuilt(store: Store, present: Document, revision: int) -> Generator[None, None, Replay]:
    """The job as it was at `revision`, or in a store of generations at the newest one below it."""
    job, frame = present.id, store.keyframe_at(present.id, revision)
    replay, reader = Replay(job, frame.body if frame else None), _Reader(store, job)
    if frame is None and [first.revision for first in store.changes(job, 0, 1)] != [1]:
        raise _pruned(job, _begins(store, present), revision)
    while replay.revision < revision:
        yield
        changes = reader.read(replay.revision, revision - replay.revision)
        if not changes:
            break
        for change in changes:
            replay.follow(change.body)
    return replay


def _page(store: Store, present: Document, body: ReadHistory) -> Look:
    oldest, last = store.oldest(body.job) or present.revision + 1, present.revision
    if not body.newest and 0 < body.after < oldest - 1:
        raise _pruned(present.id, _begins(store, present), body.after + 1)
    after = max(body.after, oldest - 1)
    if body.newest:
        last = min(last, (body.before or last + 1) - 1)
        first = max(after, last - body.limit)
    else:
        first, last = after, min(last, after + body.limit)
    entries = (yield from _entries(store, present, body, range(first, last))) if first < last else []
    more = bool(entries) and (first > after if body.newest else entries[-1].revision < present.revision)
    return HistoryPage(entries[::-1] if body.newest else entries, more)


def _entries(
    store: Store, present: Document, body: ReadHistory, span: range
) -> Generator[None, None, list[HistoryEntry]]:
    """Those above the span's start up to its end; of a page from the oldest on fewer, where the changes are large."""
    entries, first, last = list[HistoryEntry](), span.start, span.stop
    replay = (yield from _rebuilt(store, present, _beginning(store, body.job, first))) if body.states else None
    reader, revision = _Reader(store, body.job), first
    while revision < last and (body.newest or reader.size < MAX_PAGE_BYTES):
        changes = reader.read(revision, last - revision)
        if not changes:
            break
        entries += [_entry(change, replay) for change in changes]
        revision = changes[-1].revision
        yield
    return entries


def _beginning(store: Store, job: str, first: int) -> int:
    """Where the states after `first` are replayed from: nothing is left from before the oldest."""
    oldest = store.oldest(job)
    return max(first, oldest) if oldest > 1 else first


def _entry(stored: StoredChange, replay: Replay | None) -> HistoryEntry:
    if replay is None or stored.revision <= replay.revision:
        return entry(codec.decode_change(stored.body), replay.document if replay else None)
    return entry(replay.follow(stored.body), replay.document)


def _missing(store: Store, job: str, revision: int) -> ActorStateError:
    """Forgotten while it was read, or never to be missed."""
    oldest = store.oldest(job)
    if oldest > revision:
        return _pruned(job, oldest, revision)
    return CorruptJob(f"job {job!r}: the stored change {revision} is missing", job=job)


def _begins(store: Store, present: Document) -> int:
    """The oldest revision that there is: the present one of a job that came without its past, adopted or repaired."""
    return store.oldest(present.id) or present.revision


def _pruned(job: str, oldest: int, revision: int) -> HistoryPruned:
    asked = f"revision {revision}" if revision else "that time"
    return HistoryPruned(
        f"the history of job {job!r} is kept from revision {oldest} on, {asked} is before it", job=job, oldest=oldest
    )


_LOOKS: dict[type, Callable[..., Look]] = {GetAt: _get, RestoreJob: _restore, ReadHistory: _page}
