"""The default store: one SQLite file, `DIR/jobs.sqlite`.

Schema. A change is one row: history is read per job by its primary key. All rows of a commit go in by
one INSERT of many VALUES, because each sqlite3_step lets go of the interpreter lock and waits for it
again: beside a busy loop, 64 rows by executemany took 16 to 21 ms, by one statement 2.4 to 4.0 ms, one
row for the whole batch with an index row a job 3.3 to 7.0 ms (switch interval 0.1 ms, two cores).

    writer     one row: epoch, number of commits, and a digest chained over all of them
    jobs       the revision of each job, and what jobs are listed by (`listing.py`); a deleted one stays as a tombstone
    changes    (job, revision) -> at (microseconds since 1970), body, digest
    keyframes  (job, revision) -> earliest, body, digest; older ones are kept for history (`history.py`)
    items      the item ledger (`items.py`)

Every body has a BLAKE2b digest over job, revision, time and bytes, so damage and misplaced rows are both seen.

Recovery. WAL with synchronous=FULL: a commit is durable when it returns. Every start moves the log into
the database (`wal_checkpoint(TRUNCATE)`) before anything is read. One flipped bit in the log makes SQLite
drop every later commit without a word, so `head`, a file beside the database, remembers how far the
commits had come (written each second and at close): a start that finds fewer refuses to serve.
Automatic checkpoints are off, since SQLite swallows their errors and a failed fsync must end the writer:
`_checkpoint` does it, loudly.
"""

import contextlib
import sqlite3
import time
from collections import Counter
from collections.abc import Generator, Sequence
from datetime import datetime, timedelta
from hashlib import blake2b
from pathlib import Path

from actorstate import telemetry
from actorstate.core.codec import digest
from actorstate.errors import CorruptJob, DiskFull, EpochFenced
from actorstate.store.contract import UNDATED, ItemQuery, JobCommit, JobQuery, StoredChange, StoredItem, StoredJob
from actorstate.store.files import sync_folder
from actorstate.store.sqlite import history
from actorstate.store.sqlite.errors import typed, typed_errors
from actorstate.store.sqlite.head import Head
from actorstate.store.sqlite.items import delete_items, found_items, listed_items, rows_of, write_items
from actorstate.store.sqlite.listing import count_jobs, list_row, listing, unlist_row
from actorstate.store.sqlite.schema import check_owner, connect, prepare

MICROSECOND = timedelta(microseconds=1)
PAGE_BYTES = 4_096
PRUNED_PAGES = 40
"""About what a forgotten stretch leaves in the log."""
NEWEST = 2**62
"""Above every revision."""
CHECKPOINT_WAL_BYTES = 2 * 1024 * 1024
"""After about so many bytes the log is moved into the database."""

_CHANGES = ("INSERT INTO changes VALUES ", "(?,?,?,?,?)", "")
_REVISIONS = (
    "INSERT INTO jobs (job, kind, status, health, deleted, revision) VALUES ",
    "(?,'','','',0,?)",
    " ON CONFLICT (job) DO UPDATE SET revision = excluded.revision",
)
_FENCE = "UPDATE writer SET commits = ?, chain = ? WHERE epoch = ?"


class SqliteStore:
    """See the head of this module, and `contract.Store` for what is promised. A commit has at most 6,000 changes."""

    whole = False

    def __init__(self, path: Path, head: Path | None = None) -> None:
        self._path, self._head = path, Head(head)
        self._commits = 0
        self._chain = b""
        self._unmoved_bytes = 0
        self.sync_s = 0.0

    def open(self) -> None:
        """See Store."""
        with typed_errors(self._path):
            check_owner(self._path)
            self._head.check(self._path)
            self._writing = connect(self._path)
            prepare(self._writing, self._path)
            self._writing.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            sync_folder(self._path.parent)
            self._reading = connect(self._path)
            self._reading.execute("PRAGMA query_only = ON")
            self._commits, self._chain = self._writing.execute("SELECT commits, chain FROM writer").fetchone()

    def epoch(self) -> int:
        """See Store."""
        with typed_errors(self._path):
            return int(self._reading.execute("SELECT epoch FROM writer").fetchone()[0])

    def set_epoch(self, epoch: int) -> None:
        """See Store."""
        with typed_errors(self._path):
            self._writing.execute("UPDATE writer SET epoch = ?", (epoch,))

    def commit(self, epoch: int, batch: Sequence[JobCommit]) -> None:  # noqa: C901 - one transaction, told in one piece
        """See Store."""
        rows = [  # as `history.microseconds`, without two more functions on each message's way
            (part.job, change.revision, at, change.body, digest(part.job, change.revision, change.body, at))
            for part in batch
            if not part.deleted
            for change in part.changes
            for at in ((change.at - UNDATED) // MICROSECOND,)
        ]
        items = rows_of(batch) if any(part.items for part in batch) else []
        digests = [self._chain, *[row[4] for row in rows], *[row[-1] for row in items]]
        chain = blake2b(b"".join(digests), digest_size=16).digest()
        try:
            self._writing.execute("BEGIN IMMEDIATE")
            fence = (self._commits + 1, chain, epoch)
            if self._writing.execute(_FENCE, fence).rowcount != 1:
                raise EpochFenced(f"another writer has taken {self._path.parent} over from epoch {epoch}")
            for part in batch:
                if part.index is not None or part.keyframe is not None or part.deleted:
                    self._write_rest(part)
            revisions = [(part.job, part.revision) for part in batch]
            for (insert, row, rest), many in ((_CHANGES, rows), (_REVISIONS, revisions)):
                if many:
                    values = [value for each in many for value in each]
                    self._writing.execute(insert + ",".join([row] * len(many)) + rest, values)
            if items:
                write_items(self._writing, items)
            if "store.written" in telemetry.heard:
                telemetry.event("store.written", commits=self._commits + 1)
            started = time.perf_counter()
            self._writing.execute("COMMIT")
        except BaseException as error:
            self._roll_back(error)
            raise
        self.sync_s = time.perf_counter() - started
        self._commits, self._chain = self._commits + 1, chain
        self._unmoved_bytes += sum([len(row[3]) for row in rows]) + PAGE_BYTES * (3 + 3 * len(batch) + 3 * len(items))
        if self._unmoved_bytes > CHECKPOINT_WAL_BYTES:
            self._checkpoint()

    def load(self, job: str) -> StoredJob | None:
        """See Store."""
        with typed_errors(self._path, job), self._one_moment():
            row = self._reading.execute("SELECT revision FROM jobs WHERE job = ?", (job,)).fetchone()
            keyframe = history.keyframe_at(self._reading, job, NEWEST)
            revision, body = (keyframe.revision, keyframe.body) if keyframe else (0, None)
            changes = self.changes(job, revision, -1)
            revision = changes[-1].revision if changes else revision
        if row is None and not revision:
            return None
        if row is None or row[0] != revision:
            known = row[0] if row else "none"
            raise CorruptJob(f"job {job!r}: revision {known} was stored last, {revision} was found", job=job)
        return StoredJob(body, tuple(change.body for change in changes))

    def changes(self, job: str, after_revision: int, limit: int) -> list[StoredChange]:
        """See Store."""
        with typed_errors(self._path, job):
            return history.changes_after(self._reading, job, after_revision, limit)

    def keyframe_at(self, job: str, revision: int) -> StoredChange | None:
        """See Store."""
        with typed_errors(self._path, job), self._one_moment():
            return history.keyframe_at(self._reading, job, revision)

    def oldest(self, job: str) -> int:
        """See Store."""
        with typed_errors(self._path, job):
            return history.oldest(self._reading, job)

    def revision_at(self, job: str, at: datetime) -> int:
        """See Store."""
        with typed_errors(self._path, job), self._one_moment():
            return history.revision_at(self._reading, job, at)

    def prune(self, epoch: int, job: str, keep: int, before: datetime) -> int:
        """See Store. Not synced: it reaches the disk with the next commit, or is done again."""
        with typed_errors(self._path):
            beginning = history.next_beginning(self._reading, job, keep, before)
            if beginning is None:
                return 0
            self._writing.execute("PRAGMA synchronous = NORMAL")
            try:
                forgotten = self._forget(epoch, job, beginning)
            finally:
                self._writing.execute("PRAGMA synchronous = FULL")
        self._unmoved_bytes += PAGE_BYTES * PRUNED_PAGES
        return forgotten

    def list_jobs(self, query: JobQuery) -> list[str]:
        """See Store."""
        with typed_errors(self._path):
            return [job for (job,) in self._reading.execute(*listing(query))]

    def count_jobs(self) -> tuple[Counter[str], Counter[str]]:
        """See Store."""
        with typed_errors(self._path):
            return count_jobs(self._reading)

    def size_bytes(self) -> int:
        """See Store. The database and its log."""
        log = self._path.with_name(self._path.name + "-wal")
        return sum(path.stat().st_size for path in (self._path, log) if path.exists())

    def find_items(self, job: str, keys: Sequence[str]) -> dict[str, bytes]:
        """See Store."""
        with typed_errors(self._path, job):
            return found_items(self._reading, job, keys)

    def list_items(self, job: str, query: ItemQuery) -> list[StoredItem]:
        """See Store."""
        with typed_errors(self._path, job):
            return listed_items(self._reading, job, query)

    def rest(self) -> None:
        """Writes the head. A full disk only makes it lag: it then notices a little less."""
        self._head.note(self._commits, self._chain)

    def close(self) -> None:
        """See Store."""
        self.rest()
        for connection in (self._reading, self._writing):
            connection.close()

    @contextlib.contextmanager
    def _one_moment(self) -> Generator[None]:
        """Several reads of one state, whatever is committed meanwhile."""
        self._reading.execute("BEGIN")
        try:
            yield
        finally:
            self._reading.execute("COMMIT")

    def _roll_back(self, error: BaseException) -> None:
        """Leaves the store as it was; what SQLite said is raised as a typed error."""
        if self._writing.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._writing.execute("ROLLBACK")
        if isinstance(error, sqlite3.Error):
            raise typed(error, self._path) from error

    def _forget(self, epoch: int, job: str, beginning: int) -> int:
        try:
            self._writing.execute("BEGIN IMMEDIATE")
            if self._writing.execute("SELECT epoch FROM writer").fetchone() != (epoch,):
                raise EpochFenced(f"another writer has taken {self._path.parent} over from epoch {epoch}")
            forgotten = history.forget_before(self._writing, job, beginning)
            self._writing.execute("COMMIT")
        except BaseException as error:
            self._roll_back(error)
            raise
        return forgotten

    def _write_rest(self, part: JobCommit) -> None:
        if part.index is not None:
            list_row(self._writing, part.job, part.index)
        if part.deleted:
            self._bury(part.job)
        if part.keyframe is not None:
            signed = digest(part.job, part.revision, part.keyframe)
            earliest = history.earliest(self._writing, part.job, () if part.deleted else part.changes)
            row = (part.job, part.revision, earliest, part.keyframe, signed)
            self._unmoved_bytes += len(part.keyframe)
            self._writing.execute("INSERT INTO keyframes VALUES (?, ?, ?, ?, ?)", row)

    def _bury(self, job: str) -> None:
        self._writing.execute("DELETE FROM changes WHERE job = ?", (job,))
        self._writing.execute("DELETE FROM keyframes WHERE job = ?", (job,))
        delete_items(self._writing, job)
        unlist_row(self._writing, job)

    def _checkpoint(self) -> None:
        """Moves the log into the database; on a full disk it stays where it is until the next time."""
        self._unmoved_bytes = 0
        with contextlib.suppress(DiskFull), typed_errors(self._path):
            self._writing.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
