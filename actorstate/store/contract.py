"""What every store must do, and an in-memory reference that the contract suite holds the others to.

A store keeps bytes and knows nothing of jobs beyond the few columns of `IndexRow`. One writer process
uses it: `commit` may run in another thread than the loads, never two commits at once.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from actorstate.errors import EpochFenced

UNDATED = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class StoredChange:
    """One change of a job, as the actor encoded it, and when it was made (kept to the microsecond)."""

    revision: int
    body: bytes
    at: datetime = UNDATED


@dataclass(frozen=True, slots=True)
class IndexRow:
    """What jobs are listed by; `health` is empty for a job without workers. Times are seconds since 1970.

    `unique_key` is given while the job holds it, `expires_at` while it is to be removed then.
    """

    kind: str
    status: str
    health: str
    created_at: float = 0.0
    unique_key: str | None = None
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class StoredItem:
    """An entry of a job's item ledger: what it is found by, and its body as the core encoded it.

    An empty body, which the core never writes, tells that the stored one is damaged.
    """

    key: str
    outcome: str
    category: str
    body: bytes


@dataclass(frozen=True, slots=True)
class ItemQuery:
    """A page of one job's items in ascending order of their keys (by UTF-8), after `after`; None matches everything."""

    outcome: str | None = None
    category: str | None = None
    after: str = ""
    limit: int = 100


@dataclass(frozen=True, slots=True)
class JobCommit:
    """One job's part of a commit: its changes, and what else is written with them.

    `index` is given when it changed; `deleted` removes all older rows and leaves the keyframe as tombstone.
    `items` replace those of the same keys.
    """

    job: str
    revision: int
    changes: tuple[StoredChange, ...]
    keyframe: bytes | None = None
    index: IndexRow | None = None
    deleted: bool = False
    items: tuple[StoredItem, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredJob:
    """The newest readable keyframe, and all changes since in the order of their revisions."""

    keyframe: bytes | None
    changes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class JobQuery:
    """A page of job ids in ascending order, beginning after `after`; None matches everything.

    `newest` turns to the order of creation, the latest first. `expired_at` (seconds since 1970) finds jobs
    whose `expires_at` is not later.
    """

    status: str | None = None
    kind: str | None = None
    health: str | None = None
    attached: bool = False
    after: str = ""
    limit: int = 100
    newest: bool = False
    unique_key: str | None = None
    expired_at: float | None = None


class Store(Protocol):
    """A place for the state of all jobs. All of one `commit` becomes durable, or none of it.

    `sync_s` is how long the last commit waited for the disk, in seconds. A `whole` store writes a job anew
    at each commit, and is given a keyframe with each: it may keep generations instead of changes, and then
    shows of the past the newest one at or below what was asked for.
    """

    sync_s: float
    whole: bool

    def open(self) -> None:
        """Recovers what an earlier writer left. Raises StoreTooNew, StoreFailed, CorruptJob."""
        ...

    def epoch(self) -> int:
        """The epoch of the last writer, 0 if there was none."""
        ...

    def set_epoch(self, epoch: int) -> None:
        """Makes `epoch` durable: commits of lower epochs are refused from here on."""
        ...

    def commit(self, epoch: int, batch: Sequence[JobCommit]) -> None:
        """Writes `batch` durably before it returns.

        Raises DiskFull and EpochFenced (nothing was written), StoreFailed (unknown: the writer must exit).
        """

    def load(self, job: str) -> StoredJob | None:
        """What is committed of `job`; None if nothing ever was. Raises CorruptJob."""
        ...

    def changes(self, job: str, after_revision: int, limit: int) -> list[StoredChange]:
        """A job's history: its changes above `after_revision`, in order. Raises CorruptJob."""
        ...

    def keyframe_at(self, job: str, revision: int) -> StoredChange | None:
        """The newest readable keyframe at or below `revision`, where its replay begins; None for the first change.

        Raises CorruptJob when there is none but damaged ones. `at` is undated.
        """
        ...

    def oldest(self, job: str) -> int:
        """The lowest revision that can be rebuilt; 0 for a job without history."""
        ...

    def revision_at(self, job: str, at: datetime) -> int:
        """The last revision made at or before `at`, by the clock as it was; 0 if none is kept. Raises CorruptJob."""
        ...

    def prune(self, epoch: int, job: str, keep: int, before: datetime) -> int:
        """Forgets the oldest stretch of history, up to the next keyframe; the number of its changes, 0 for none.

        All of it must lie behind the newest `keep` revisions, or have been made before `before`. The newest
        keyframe and the stretch up to it stay, whatever they are: they are the job's state and its second
        copy. Not while a commit runs. Need not be durable. Raises EpochFenced, DiskFull, StoreFailed.
        """
        ...

    def list_jobs(self, query: JobQuery) -> list[str]:
        """Ids of the jobs that match, deleted ones excepted."""
        ...

    def count_jobs(self) -> tuple[Counter[str], Counter[str]]:
        """How many jobs there are by status, and by health. It reads a whole index: once a writer's life."""
        ...

    def size_bytes(self) -> int:
        """What the store takes on the disk. Of JSON files only those of jobs count, without their past."""
        ...

    def find_items(self, job: str, keys: Sequence[str]) -> dict[str, bytes]:
        """Bodies of those of the keys that are in the job's ledger; a damaged one is told of, and left out."""
        ...

    def list_items(self, job: str, query: ItemQuery) -> list[StoredItem]:
        """A page of the job's ledger; a damaged item stands in it with an empty body."""
        ...

    def rest(self) -> None:
        """Called about once a second between commits, for what need not be done in one."""
        ...

    def close(self) -> None:
        """Releases files and handles; nothing that was committed depends on it."""
        ...


@dataclass(slots=True)
class _Row:
    index: IndexRow
    changes: list[StoredChange] = field(default_factory=list[StoredChange])
    keyframes: list[StoredChange] = field(default_factory=list[StoredChange])
    deleted: bool = False
    items: dict[str, StoredItem] = field(default_factory=dict[str, StoredItem])


class MemoryStore:
    """The reference: correct by being obvious. It lives as long as the object."""

    whole = False

    def __init__(self) -> None:
        self.sync_s = 0.0
        self._epoch = 0
        self._rows: dict[str, _Row] = {}

    def open(self) -> None:
        """Nothing to recover."""

    def epoch(self) -> int:
        """See Store."""
        return self._epoch

    def set_epoch(self, epoch: int) -> None:
        """See Store."""
        self._epoch = epoch

    def commit(self, epoch: int, batch: Sequence[JobCommit]) -> None:
        """See Store."""
        if epoch != self._epoch:
            raise EpochFenced(f"epoch {self._epoch} has taken over from {epoch}")
        for part in batch:
            self._apply(part)

    def load(self, job: str) -> StoredJob | None:
        """See Store."""
        row = self._rows.get(job)
        if row is None:
            return None
        keyframe = row.keyframes[-1] if row.keyframes else StoredChange(0, b"")
        changes = tuple(change.body for change in row.changes if change.revision > keyframe.revision)
        return StoredJob(keyframe.body if row.keyframes else None, changes)

    def changes(self, job: str, after_revision: int, limit: int) -> list[StoredChange]:
        """See Store."""
        row = self._rows.get(job)
        return [change for change in row.changes if change.revision > after_revision][:limit] if row else []

    def keyframe_at(self, job: str, revision: int) -> StoredChange | None:
        """See Store."""
        row = self._rows.get(job)
        found = [keyframe for keyframe in row.keyframes if keyframe.revision <= revision] if row else []
        return found[-1] if found else None

    def oldest(self, job: str) -> int:
        """See Store."""
        row = self._rows.get(job)
        return row.changes[0].revision if row and row.changes else 0

    def revision_at(self, job: str, at: datetime) -> int:
        """See Store."""
        row = self._rows.get(job)
        return max((change.revision for change in row.changes if change.at <= at), default=0) if row else 0

    def prune(self, epoch: int, job: str, keep: int, before: datetime) -> int:
        """See Store."""
        if epoch != self._epoch:
            raise EpochFenced(f"epoch {self._epoch} has taken over from {epoch}")
        row = self._rows.get(job)
        later = [frame for frame in row.keyframes if frame.revision > self.oldest(job)] if row else []
        if row is None or len(later) < 2:  # noqa: PLR2004 - the next one, and the newest
            return 0
        beginning = later[0].revision
        stretch = [change for change in row.changes if change.revision < beginning]
        if beginning > row.changes[-1].revision - keep + 1 and any(change.at >= before for change in stretch):
            return 0
        row.changes = [change for change in row.changes if change.revision >= beginning]
        row.keyframes = later
        return len(stretch)

    def list_jobs(self, query: JobQuery) -> list[str]:
        """See Store."""
        ids = sorted(job for job, row in self._rows.items() if not row.deleted and matches(row.index, query))
        if query.newest:
            ids.sort(key=self._age, reverse=True)
            last = self._age(query.after) if query.after in self._rows else (0.0, "")
            return [job for job in ids if not query.after or self._age(job) < last][: query.limit]
        return [job for job in ids if job > query.after][: query.limit]

    def count_jobs(self) -> tuple[Counter[str], Counter[str]]:
        """See Store."""
        return counted((row.index.status, row.index.health, 1) for row in self._rows.values() if not row.deleted)

    def size_bytes(self) -> int:
        """Nothing is on a disk."""
        return 0

    def find_items(self, job: str, keys: Sequence[str]) -> dict[str, bytes]:
        """See Store."""
        items = self._rows[job].items if job in self._rows else {}
        return {key: items[key].body for key in keys if key in items}

    def list_items(self, job: str, query: ItemQuery) -> list[StoredItem]:
        """See Store."""
        items = self._rows[job].items if job in self._rows else {}
        page = [items[key] for key in sorted(items, key=str.encode) if key.encode() > query.after.encode()]
        wanted = (query.outcome, query.category)
        return [item for item in page if _fits(wanted, (item.outcome, item.category))][: query.limit]

    def rest(self) -> None:
        """Nothing was put off."""

    def close(self) -> None:
        """Nothing to release."""

    def _age(self, job: str) -> tuple[float, str]:
        return self._rows[job].index.created_at, job

    def _apply(self, part: JobCommit) -> None:
        row = self._rows.setdefault(part.job, _Row(IndexRow("", "", "")))
        if part.deleted:
            row.changes.clear()
            row.items.clear()
            row.keyframes.clear()
        else:
            row.changes.extend(part.changes)
            row.items.update({item.key: item for item in part.items})
        if part.keyframe is not None:
            row.keyframes.append(StoredChange(part.revision, part.keyframe))
        row.index = part.index or row.index
        row.deleted = part.deleted or (row.deleted and part.index is None)


def counted(rows: Iterable[tuple[str, str, int]]) -> tuple[Counter[str], Counter[str]]:
    """Jobs by status and, where they have workers, by health, from so many of each."""
    jobs, health = Counter[str](), Counter[str]()
    for status, healthy, number in rows:
        jobs[status] += number
        if healthy:
            health[healthy] += number
    return jobs, health


def matches(index: IndexRow, query: JobQuery) -> bool:
    """Whether a job with this index row is asked for."""
    wanted = (query.kind, query.status, query.health, query.unique_key)
    if not _fits(wanted, (index.kind, index.status, index.health, index.unique_key)):
        return False
    late = query.expired_at
    expired = late is None or (index.expires_at is not None and index.expires_at <= late)
    return expired and (bool(index.health) or not query.attached)


def _fits(wanted: Sequence[str | None], have: Sequence[str | None]) -> bool:
    return all(want is None or want == value for want, value in zip(wanted, have, strict=True))
