"""The SQLite store for an examination or a copy: one connection that may only read, beside a writer or without one."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from actorstate.core.codec import digest
from actorstate.store.contract import IndexRow
from actorstate.store.files import sync_folder
from actorstate.store.sqlite import SqliteStore
from actorstate.store.sqlite.errors import typed_errors
from actorstate.store.sqlite.head import Head
from actorstate.store.sqlite.schema import check_owner
from actorstate.store.view import Row

NAMED = 20
"""So many lines of what SQLite itself finds wrong are told."""


class SqliteView(SqliteStore):
    """See `view.View`. Neither the log nor the head is touched; a commit would fail."""

    def __init__(self, path: Path, head: Path | None = None) -> None:
        super().__init__(path)
        self._noticed = Head(head)

    def open(self) -> None:
        """See View. Raises StoreFailed where acknowledged commits are missing."""
        with typed_errors(self._path):
            check_owner(self._path)
            self._noticed.check(self._path)
            self._reading = sqlite3.connect(f"file:{quote(str(self._path))}?mode=ro", uri=True, isolation_level=None)
            self._writing = self._reading

    def forget(self) -> None:
        """Nothing is kept between two questions."""

    def known_jobs(self) -> list[str]:
        """See View."""
        query = "SELECT job FROM jobs UNION SELECT job FROM changes UNION SELECT job FROM keyframes ORDER BY 1"
        with typed_errors(self._path):
            return [job for (job,) in self._reading.execute(query)]

    def row(self, job: str) -> Row | None:
        """See View."""
        query = "SELECT kind, status, health, created_at, unique_key, expires_at, deleted FROM jobs WHERE job = ?"
        with typed_errors(self._path, job):
            found = self._reading.execute(query, (job,)).fetchone()
        return None if found is None else Row(IndexRow(*found[:6]), bool(found[6]))

    def faults(self, job: str) -> Iterator[str]:
        """See View."""
        query = "SELECT revision, body, digest FROM keyframes WHERE job = ? ORDER BY revision"
        with typed_errors(self._path, job):
            rows = self._reading.execute(query, (job,)).fetchall()
        for revision, body, stored in rows:
            with contextlib.suppress(TypeError):
                if digest(job, revision, body) == stored:
                    continue
            yield f"the stored keyframe {revision} does not match its digest"

    def copy_to(self, path: Path) -> None:
        """A copy of one moment, log included, on the disk on return, while a writer goes on. Raises StoreError."""
        with typed_errors(path), contextlib.closing(sqlite3.connect(path)) as copy:
            self._reading.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")  # one file, that may be copied anywhere
        sync_folder(path.parent)

    def general_faults(self) -> Iterator[str]:
        """See View."""
        with typed_errors(self._path):
            for (line,) in self._reading.execute(f"PRAGMA integrity_check({NAMED})"):
                if line != "ok":
                    yield f"SQLite: {line}"
