"""The tables, and how the file is opened: nothing in it is moved before it is known to be ours."""

import contextlib
import sqlite3
from pathlib import Path
from urllib.parse import quote

from actorstate.errors import StoreError, StoreFailed, StoreTooNew
from actorstate.store.sqlite.items import ITEMS
from actorstate.store.sqlite.listing import INDEXES

APPLICATION_ID = 0x41435354
SCHEMA_VERSION = 2

_SCHEMA = f"""
CREATE TABLE writer (one INTEGER PRIMARY KEY CHECK (one = 1), epoch INTEGER NOT NULL, commits INTEGER NOT NULL,
    chain BLOB NOT NULL);
INSERT INTO writer VALUES (1, 0, 0, x'');
CREATE TABLE jobs (job TEXT PRIMARY KEY, kind TEXT NOT NULL, status TEXT NOT NULL, health TEXT NOT NULL,
    deleted INTEGER NOT NULL, revision INTEGER NOT NULL, created_at REAL NOT NULL DEFAULT 0, unique_key TEXT,
    expires_at REAL) WITHOUT ROWID;
{INDEXES}
CREATE TABLE changes (job TEXT NOT NULL, revision INTEGER NOT NULL, at INTEGER NOT NULL, body BLOB NOT NULL,
    digest BLOB NOT NULL, PRIMARY KEY (job, revision)) WITHOUT ROWID;
CREATE TABLE keyframes (job TEXT NOT NULL, revision INTEGER NOT NULL, earliest INTEGER, body BLOB NOT NULL,
    digest BLOB NOT NULL, PRIMARY KEY (job, revision)) WITHOUT ROWID;
{ITEMS}
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
"""  # noqa: S608 - constants of this module


def connect(path: Path) -> sqlite3.Connection:
    """A connection in WAL mode whose commits wait for the disk. Raises StoreFailed where that is not possible."""
    with contextlib.ExitStack() as undone:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
        undone.callback(connection.close)
        if connection.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
            raise StoreFailed(f"{path}: this file system does not take SQLite's write-ahead log")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        undone.pop_all()
    return connection


def prepare(writing: sqlite3.Connection, path: Path) -> None:
    """Makes the tables in an empty file. Raises StoreError, StoreTooNew and leaves the file as it is."""
    tables = writing.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    application = writing.execute("PRAGMA application_id").fetchone()[0]
    version = writing.execute("PRAGMA user_version").fetchone()[0]
    if not tables:
        writing.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
    elif application != APPLICATION_ID:
        raise foreign(path)
    elif version > SCHEMA_VERSION:
        raise StoreTooNew(f"{path} has schema {version}, this release knows {SCHEMA_VERSION}")
    elif version < SCHEMA_VERSION:
        hint = "begin a new directory; no release has written this one"
        raise StoreFailed(f"{path} has schema {version}, from before the first release", hint=hint)


def check_owner(path: Path) -> None:
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
        raise foreign(path)


def committed(path: Path) -> tuple[int, bytes]:
    """How far the database has come, log included; read without the right to write, which would move the log."""
    if not path.exists():
        return 0, b""
    with contextlib.closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
        if not connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'writer'").fetchone()[0]:
            return 0, b""
        commits, chain = connection.execute("SELECT commits, chain FROM writer").fetchone()
        return commits, chain


def foreign(path: Path) -> StoreError:
    """What is said of a file that is none of ours."""
    return StoreError(f"{path} is a file of another program; it was not touched", hint="choose another directory")
