"""Mending a SQLite store, job by job: damaged rows go into the table `quarantine`, the job to the best that is left."""

import contextlib
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

from actorstate.core import codec
from actorstate.core.codec import digest
from actorstate.core.messages.replies import Keyframe
from actorstate.core.salvage import salvage
from actorstate.store.contract import ItemQuery
from actorstate.store.index import index_of
from actorstate.store.sqlite.errors import typed_errors
from actorstate.store.sqlite.items import delete_items, listed_items
from actorstate.store.sqlite.listing import list_row, unlist_row
from actorstate.store.sqlite.schema import connect

_QUARANTINE = """
CREATE TABLE IF NOT EXISTS quarantine (job, what, place, body, digest, at DEFAULT CURRENT_TIMESTAMP)
"""
_REVISION = """
INSERT INTO jobs (job, kind, status, health, deleted, revision) VALUES (?, '', '', '', 0, ?)
ON CONFLICT (job) DO UPDATE SET revision = excluded.revision
"""
_ROWS = {
    "changes": "SELECT revision, CAST(body AS BLOB), CAST(digest AS BLOB), at FROM changes WHERE job = ?",
    "keyframes": "SELECT revision, CAST(body AS BLOB), CAST(digest AS BLOB), 0 FROM keyframes WHERE job = ?",
}
_KEEP = {
    "changes": "SELECT job, 'changes', revision, body, digest FROM changes WHERE job = ? AND revision = ?",
    "keyframes": "SELECT job, 'keyframes', revision, body, digest FROM keyframes WHERE job = ? AND revision = ?",
    "items": "SELECT job, 'items', key, body, digest FROM items WHERE job = ? AND key = ?",
}
_DROP = {
    "changes": "DELETE FROM changes WHERE job = ? AND revision = ?",
    "keyframes": "DELETE FROM keyframes WHERE job = ? AND revision = ?",
    "items": "DELETE FROM items WHERE job = ? AND key = ?",
}
PAGE = 1_000


class SqliteMender:
    """See `view.Mender`. One transaction a job."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def mend(self, job: str, *, adopt: bool) -> str:  # noqa: ARG002 - nobody edits a database by hand and is adopted
        """See Mender. Raises DiskFull, StoreFailed."""
        with typed_errors(self._path), contextlib.closing(connect(self._path)) as writing:
            writing.execute("BEGIN IMMEDIATE")
            writing.execute(_QUARANTINE)
            told = _Job(writing, job).mend()
            writing.execute("COMMIT")
            return told


class _Job:
    """One job's rows within the transaction."""

    def __init__(self, writing: sqlite3.Connection, job: str) -> None:
        self._writing, self._job = writing, job
        self._kept_aside = 0

    def mend(self) -> str:
        frames, changes = self._whole_rows("keyframes"), self._whole_rows("changes")
        known = self._known(frames, changes)
        items = self._without_damaged_items()
        state = salvage(frames, changes, known, datetime.now(UTC))
        if state is None:
            self._bury(known)
            return f"nothing of it can be read; {self._kept_aside} rows are kept in the table quarantine"
        if state.revision not in frames:
            frames[state.revision] = codec.encode(state)
            self._write_frame(state.revision, frames[state.revision])
        self._without_orphans(frames, changes)
        self._list(state)
        lost = f"; its newest state, up to revision {known}, is lost" if state.revision > known else ""
        aside = f"; {self._kept_aside} rows are kept in the table quarantine" if self._kept_aside else ""
        return f"whole at revision {state.revision}{lost}{aside}{items}"

    def _whole_rows(self, table: str) -> dict[int, bytes]:
        """The bodies that match their digest, by revision; the other rows are kept aside."""
        whole = dict[int, bytes]()
        for revision, body, stored, at in self._writing.execute(_ROWS[table], (self._job,)).fetchall():
            if isinstance(at, int) and digest(self._job, revision, body or b"", at) == stored:
                whole[revision] = body or b""
            else:
                self._set_aside(table, revision)
        return whole

    def _set_aside(self, table: str, place: int | str) -> None:
        keep = f"INSERT INTO quarantine (job, what, place, body, digest) {_KEEP[table]}"
        self._writing.execute(keep, (self._job, place))
        self._writing.execute(_DROP[table], (self._job, place))
        self._kept_aside += 1

    def _known(self, frames: dict[int, bytes], changes: dict[int, bytes]) -> int:
        row = self._writing.execute("SELECT revision FROM jobs WHERE job = ?", (self._job,)).fetchone()
        aside = "SELECT max(place) FROM quarantine WHERE job = ? AND what IN ('changes', 'keyframes')"
        newest = self._writing.execute(aside, (self._job,)).fetchone()[0]
        told = [value for value in (row[0] if row else 0, newest) if isinstance(value, int)]
        return max([*told, *frames, *changes], default=0)

    def _without_orphans(self, frames: dict[int, bytes], changes: dict[int, bytes]) -> None:
        """Changes that nothing leads to any more, up to the next keyframe, say nothing: they go aside as well."""
        kept = set[int]()
        for revision in sorted(changes):
            if revision == 1 or {revision - 1, revision} & frames.keys() or revision - 1 in kept:
                kept.add(revision)
        for revision in sorted(changes.keys() - kept):
            self._set_aside("changes", revision)

    def _write_frame(self, revision: int, body: bytes) -> None:
        self._writing.execute(
            "INSERT INTO keyframes (job, revision, body, digest) VALUES (?, ?, ?, ?)",
            (self._job, revision, body, digest(self._job, revision, body)),
        )

    def _list(self, state: Keyframe) -> None:
        if state.document is None:
            unlist_row(self._writing, self._job)
        else:
            list_row(self._writing, self._job, index_of(state.document))
        self._writing.execute(_REVISION, (self._job, state.revision))

    def _bury(self, known: int) -> None:
        delete_items(self._writing, self._job)
        self._write_frame(known + 1, codec.encode(Keyframe(known + 1, None)))
        unlist_row(self._writing, self._job)
        self._writing.execute(_REVISION, (self._job, known + 1))

    def _without_damaged_items(self) -> str:
        """Damaged items go aside; what they said is lost, and told."""
        damaged, after = list[str](), ""
        while page := listed_items(self._writing, self._job, ItemQuery(after=after, limit=PAGE)):
            damaged += [item.key for item in page if not item.body]
            after = page[-1].key
        for key in damaged:
            self._set_aside("items", key)
        return f"; lost items: {', '.join(damaged)}" if damaged else ""
