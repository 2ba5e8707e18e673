"""The default store: one SQLite file, `DIR/jobs.sqlite`.

Schema. A change is one row: history is read per job by its primary key. All rows of a commit go in by
one INSERT of many VALUES, because each sqlite3_step lets go of the interpreter lock and waits for it
again: beside a busy loop, 64 rows by executemany took 16 to 21 ms, by one statement 2.4 to 4.0 ms, one
row for the whole batch with an index row a job 3.3 to 7.0 ms (switch interval 0.1 ms, two cores).

    writer     one row: epoch, number of commits, and a digest chained over all of them
    jobs       the revision of each job, and what jobs are listed by; a deleted one stays as a tombstone
    changes    (job, revision) -> body, digest
    keyframes  (job, revision) -> body, digest; older ones are kept for history

Every body has a BLAKE2b digest over job, revision and bytes, so damage and misplaced rows are both seen.

Recovery. WAL with synchronous=FULL: a commit is durable when it returns. Every start moves the log into
the database (`wal_checkpoint(TRUNCATE)`) before anything is read. One flipped bit in the log makes SQLite
drop every later commit without a word, so `head`, a file beside the database, remembers how far the
commits had come (written each second and at close): a start that finds fewer refuses to serve.
Automatic checkpoints are off, since SQLite swallows their errors and a failed fsync must end the writer:
`_checkpoint` does it, loudly.
"""

import contextlib
import errno
import json
import sqlite3
import time
from collections.abc import Generator, Sequence
from hashlib import blake2b
from pathlib import Path
from urllib.parse import quote

from actorstate import telemetry
from actorstate.errors import CorruptJob, DiskFull, EpochFenced, StoreError, StoreFailed, StoreTooNew
from actorstate.store.contract import JobCommit, JobQuery, StoredChange, StoredJob
from actorstate.store.files import sync_folder, write_durably

APPLICATION_ID = 0x41435354
SCHEMA_VERSION = 1
PAGE_BYTES = 4_096
CHECKPOINT_WAL_BYTES = 2 * 1024 * 1024
"""After about so many bytes the log is moved into the database."""
KEYFRAMES_TRIED = 8
"""How many keyframes back a damaged one is replaced by history before the job is called corrupt."""

_SCHEMA = f"""
CREATE TABLE writer (one INTEGER PRIMARY KEY CHECK (one = 1), epoch INTEGER NOT NULL, commits INTEGER NOT NULL,
    chain BLOB NOT NULL);
INSERT INTO writer VALUES (1, 0, 0, x'');
CREATE TABLE jobs (job TEXT PRIMARY KEY, kind TEXT NOT NULL, status TEXT NOT NULL, health TEXT NOT NULL,
    deleted INTEGER NOT NULL, revision INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX jobs_by_status ON jobs (status, job) WHERE NOT deleted;
CREATE INDEX jobs_by_health ON jobs (health, job) WHERE NOT deleted AND health <> '';
CREATE TABLE changes (job TEXT NOT NULL, revision INTEGER NOT NULL, body BLOB NOT NULL, digest BLOB NOT NULL,
    PRIMARY KEY (job, revision)) WITHOUT ROWID;
CREATE TABLE keyframes (job TEXT NOT NULL, revision INTEGER NOT NULL, body BLOB NOT NULL, digest BLOB NOT NULL,
    PRIMARY KEY (job, revision)) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
"""  # noqa: S608 - constants of this module
_UPSERT_INDEX = """
INSERT INTO jobs VALUES (?, ?, ?, ?, 0, 0)
ON CONFLICT (job) DO UPDATE SET kind = excluded.kind, status = excluded.status, health = excluded.health, deleted = 0
"""
_LIST = """
SELECT job FROM jobs WHERE NOT deleted AND job > :after AND (:status IS NULL OR status = :status)
AND (:kind IS NULL OR kind = :kind) AND (:health IS NULL OR health = :health) AND (NOT :attached OR health <> '')
ORDER BY job LIMIT :limit
"""
_CHANGES = ("INSERT INTO changes VALUES ", "(?,?,?,?)", "")
_REVISIONS = (
    "INSERT INTO jobs VALUES ",
    "(?,'','','',0,?)",
    " ON CONFLICT (job) DO UPDATE SET revision = excluded.revision",
)
_FENCE = "UPDATE writer SET commits = ?, chain = ? WHERE epoch = ?"
_FULL_EXTENDED = frozenset({sqlite3.SQLITE_IOERR_SHMSIZE})


def digest(job: str, revision: int, body: bytes) -> bytes:
    """16 bytes of BLAKE2b over where a body belongs and what it is."""
    return blake2b(b"%s\0%d\0%s" % (job.encode(), revision, body), digest_size=16).digest()


class SqliteStore:
    """See the head of this module, and `contract.Store` for what is promised. A commit has at most 8,000 changes."""

    def __init__(self, path: Path, head: Path | None = None) -> None:
        self._path, self._head = path, head
        self._noted = 0
        self._commits = 0
        self._chain = b""
        self._unmoved_bytes = 0
        self.sync_s = 0.0

    def open(self) -> None:
        """See Store."""
        with _typed_errors(self._path):
            _check_owner(self._path)
            self._check_head()
            self._writing = _connect(self._path)
            self._prepare()
            self._writing.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            sync_folder(self._path.parent)
            self._reading = _connect(self._path)
            self._reading.execute("PRAGMA query_only = ON")
            self._commits, self._chain = self._writing.execute("SELECT commits, chain FROM writer").fetchone()

    def epoch(self) -> int:
        """See Store."""
        with _typed_errors(self._path):
            return int(self._reading.execute("SELECT epoch FROM writer").fetchone()[0])

    def set_epoch(self, epoch: int) -> None:
        """See Store."""
        with _typed_errors(self._path):
            self._writing.execute("UPDATE writer SET epoch = ?", (epoch,))

    def commit(self, epoch: int, batch: Sequence[JobCommit]) -> None:  # noqa: C901 - one transaction, told in one piece
        """See Store."""
        rows = [
            (part.job, change.revision, change.body, digest(part.job, change.revision, change.body))
            for part in batch
            if not part.deleted
            for change in part.changes
        ]
        chain = blake2b(b"".join([self._chain, *[row[3] for row in rows]]), digest_size=16).digest()
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
            if "store.written" in telemetry.heard:
                telemetry.event("store.written", commits=self._commits + 1)
            started = time.perf_counter()
            self._writing.execute("COMMIT")
        except BaseException as error:
            self._roll_back(error)
            raise
        self.sync_s = time.perf_counter() - started
        self._commits, self._chain = self._commits + 1, chain
        self._unmoved_bytes += sum([len(row[2]) for row in rows]) + PAGE_BYTES * (3 + 3 * len(batch))
        if self._unmoved_bytes > CHECKPOINT_WAL_BYTES:
            self._checkpoint()

    def load(self, job: str) -> StoredJob | None:
        """See Store."""
        with _typed_errors(self._path, job), self._one_moment():
            row = self._reading.execute("SELECT revision FROM jobs WHERE job = ?", (job,)).fetchone()
            keyframe = self._newest_keyframe(job)
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
        query = "SELECT revision, body, digest FROM changes WHERE job = ? AND revision > ? ORDER BY revision LIMIT ?"
        with _typed_errors(self._path, job):
            rows = self._reading.execute(query, (job, after_revision, limit)).fetchall()
            for revision, body, stored in rows:
                if digest(job, revision, body) != stored:
                    raise CorruptJob(f"job {job!r}: the stored change {revision} does not match its digest", job=job)
        return [StoredChange(revision, body) for revision, body, _ in rows]

    def list_jobs(self, query: JobQuery) -> list[str]:
        """See Store."""
        values = {name: getattr(query, name) for name in ("status", "kind", "health", "attached", "after", "limit")}
        with _typed_errors(self._path):
            return [job for (job,) in self._reading.execute(_LIST, values)]

    def rest(self) -> None:
        """Writes the head. A full disk only makes it lag: it then notices a little less."""
        if self._head is None or self._noted == self._commits:
            return
        head = {"commits": self._commits, "chain": self._chain.hex()}
        try:
            write_durably(self._head, json.dumps(head).encode() + b"\n")
            self._noted = self._commits
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise StoreFailed(f"{self._head} cannot be written: {error}") from error

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

    def _check_head(self) -> None:
        """Looks before anything is moved: a damaged log is left as it is, for whoever can still read it."""
        if self._head is None or not self._head.exists():
            return
        found, kept = _committed(self._path)
        try:
            head = json.loads(self._head.read_bytes())
            commits, chain = int(head["commits"]), bytes.fromhex(head["chain"])
        except (ValueError, KeyError, TypeError) as error:
            hint = f"keep a copy of the directory; if nothing else is wrong: rm {self._head}"
            raise StoreFailed(f"{self._head} is damaged ({error!r})", hint=hint) from error
        if commits > found or (commits == found and chain != kept):
            raise StoreFailed(
                f"{self._path} is at commit {found}, but {commits} were acknowledged: "
                "its log is damaged, or the file was replaced; nothing was changed",
                hint=f"keep a copy of the directory; to go on without what is missing: rm {self._head}",
            )

    def _prepare(self) -> None:
        tables = self._writing.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        application = self._writing.execute("PRAGMA application_id").fetchone()[0]
        version = self._writing.execute("PRAGMA user_version").fetchone()[0]
        if not tables:
            self._writing.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
        elif application != APPLICATION_ID:
            raise _foreign(self._path)
        elif version > SCHEMA_VERSION:
            raise StoreTooNew(f"{self._path} has schema {version}, this release knows {SCHEMA_VERSION}")

    def _roll_back(self, error: BaseException) -> None:
        """Leaves the store as it was; what SQLite said is raised as a typed error."""
        if self._writing.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._writing.execute("ROLLBACK")
        if isinstance(error, sqlite3.Error):
            raise _typed(error, self._path) from error

    def _write_rest(self, part: JobCommit) -> None:
        if part.index is not None:
            index = (part.job, part.index.kind, part.index.status, part.index.health)
            self._writing.execute(_UPSERT_INDEX, index)
        if part.deleted:
            self._bury(part.job)
        if part.keyframe is not None:
            signed = digest(part.job, part.revision, part.keyframe)
            row = (part.job, part.revision, part.keyframe, signed)
            self._unmoved_bytes += len(part.keyframe)
            self._writing.execute("INSERT INTO keyframes VALUES (?, ?, ?, ?)", row)

    def _bury(self, job: str) -> None:
        self._writing.execute("DELETE FROM changes WHERE job = ?", (job,))
        self._writing.execute("DELETE FROM keyframes WHERE job = ?", (job,))
        self._writing.execute("INSERT OR REPLACE INTO jobs VALUES (?, '', 'deleted', '', 1, 0)", (job,))

    def _newest_keyframe(self, job: str) -> StoredChange | None:
        query = "SELECT revision, body, digest FROM keyframes WHERE job = ? ORDER BY revision DESC LIMIT ?"
        damaged = 0
        for revision, body, stored in self._reading.execute(query, (job, KEYFRAMES_TRIED)):
            if digest(job, revision, body) == stored:
                return StoredChange(revision, body)
            damaged = damaged or revision
            telemetry.event("store.damage_found", job=job, what="keyframe", revision=revision)
        if (
            damaged
            and self._reading.execute("SELECT 1 FROM changes WHERE job = ? AND revision = 1", (job,)).fetchone() is None
        ):
            raise CorruptJob(f"job {job!r}: the stored keyframe {damaged} does not match its digest", job=job)
        return None

    def _checkpoint(self) -> None:
        """Moves the log into the database; on a full disk it stays where it is until the next time."""
        self._unmoved_bytes = 0
        with contextlib.suppress(DiskFull), _typed_errors(self._path):
            self._writing.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def _check_owner(path: Path) -> None:
    """Refuses another program's database by its header, before SQLite may write to it (file format, 1.3)."""
    if not path.exists() or not path.stat().st_size:
        return
    with path.open("rb") as file:
        header = file.read(100)
    if header[:16] != b"SQLite format 3\0":
        hint = "if it is none of ours, choose another directory; else restore the newest backup of this one"
        raise StoreFailed(f"{path} is no SQLite database, or its first page is damaged; it was not touched", hint=hint)
    version, application = int.from_bytes(header[60:64]), int.from_bytes(header[68:72])
    log = path.with_name(path.name + "-wal")
    if application == 0 and log.exists() and log.stat().st_size:
        return  # a first start that was killed: what is ours lies in the log still
    if application not in {APPLICATION_ID, 0} or (application == 0 and version + int.from_bytes(header[40:44])):
        raise _foreign(path)


def _committed(path: Path) -> tuple[int, bytes]:
    """How far the database has come, log included; read without the right to write, which would move the log."""
    if not path.exists():
        return 0, b""
    with contextlib.closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
        if not connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'writer'").fetchone()[0]:
            return 0, b""
        commits, chain = connection.execute("SELECT commits, chain FROM writer").fetchone()
        return commits, chain


def _foreign(path: Path) -> StoreError:
    return StoreError(f"{path} is a file of another program; it was not touched", hint="choose another directory")


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    if connection.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
        raise StoreFailed(f"{path}: this file system does not take SQLite's write-ahead log")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    return connection


@contextlib.contextmanager
def _typed_errors(path: Path, job: str = "") -> Generator[None]:
    try:
        yield
    except sqlite3.Error as error:
        if job and "decode to UTF-8" in str(error):
            raise CorruptJob(f"job {job!r}: a stored row is damaged ({error})", job=job) from error
        raise _typed(error, path) from error
    except OSError as error:
        raise StoreFailed(f"{path}: {error}") from error
    except (TypeError, ValueError) as error:  # a stored value of another type than was written
        if job:
            raise CorruptJob(f"job {job!r}: a stored row is damaged ({error})", job=job) from error
        raise StoreFailed(f"{path} is damaged ({error}); it was left as it is") from error


def _typed(error: sqlite3.Error, path: Path) -> StoreError:
    code = getattr(error, "sqlite_errorcode", 0)
    if code & 0xFF == sqlite3.SQLITE_FULL or code in _FULL_EXTENDED:
        return DiskFull(f"the disk under {path} is full; nothing was written")
    if code & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        hint = "keep a copy of the directory, then restore the newest backup of it"
        return StoreFailed(f"{path} is damaged ({error}); it was left as it is", hint=hint)
    return StoreFailed(f"{path} cannot be written or read: {error}")
