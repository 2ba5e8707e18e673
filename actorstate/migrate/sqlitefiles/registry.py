"""The table in which an app finds its users' profiles: read, and given the rows that are missing.

`created_at` is written once and never changed again; another release's table with more columns is left as it is.
"""

import sqlite3
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock

from actorstate.errors import ActorStateError, UserRefused
from actorstate.migrate.sqlitefiles.content import looked_at
from actorstate.migrate.sqlitefiles.tables import connect, quoted, transaction, writing
from actorstate.store.files import belong

COLUMNS = ("id", "user_id", "slug", "name", "created_at", "last_used_at")


def recorded_users(database: Path, table: str, slug: str) -> frozenset[str]:
    """Users that have a row; none where there is no such file or table. Changes nothing. Raises SourceUnreadable."""
    if not database.exists() or not database.stat().st_size:
        return frozenset()
    with looked_at(database) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE type='table' AND name=?", (table,)).fetchone():
            return frozenset()
        _check(connection, database, table)
        sql = f"SELECT user_id FROM {quoted(table)} WHERE slug=?"  # noqa: S608 - quoted
        return frozenset(str(row[0]) for row in connection.execute(sql, (slug,)))


def record(database: Path, table: str, rows: Iterable[dict[str, str]]) -> None:
    """Writes each row unless its user has one of this slug. Raises UserRefused, TargetFailed, DiskFull."""
    with _changed(database, table) as connection:
        names = ", ".join(COLUMNS)
        values = ", ".join(f":{name}" for name in COLUMNS)
        sql = f"INSERT INTO {quoted(table)} ({names}) VALUES ({values}) ON CONFLICT (user_id, slug) DO NOTHING"  # noqa: S608 - quoted
        connection.executemany(sql, rows)


@dataclass(slots=True)
class _Asked:
    """A row that a thread waits for."""

    database: Path
    table: str
    row: dict[str, str]
    written: bool = False


class Rows:
    """Writes the rows of users who are at work at once: one transaction costs its five syncs for one row or many."""

    def __init__(self) -> None:
        self._waiting = SimpleQueue[_Asked]()
        self._turn = Lock()

    def record(self, database: Path, table: str, row: dict[str, str]) -> None:
        """As `record`. What the rows of all have met with is not raised: then this one is tried alone."""
        asked = _Asked(database, table, row)
        self._waiting.put(asked)
        with self._turn:
            if asked.written:
                return
            others = [one for one in self._taken() if (one.database, one.table) == (database, table)]
            together = [asked, *(one for one in others if one is not asked)]
            try:
                record(database, table, [one.row for one in together])
            except ActorStateError:
                together = [asked]
                record(database, table, [row])
            for one in together:
                one.written = True

    def _taken(self) -> Iterator[_Asked]:
        while True:
            try:
                yield self._waiting.get_nowait()
            except Empty:
                return


def erase(database: Path, table: str, row_id: str) -> None:
    """Takes the row that `record` wrote under this id away again; none is fine. Raises TargetFailed, DiskFull."""
    if database.exists():
        with _changed(database, table) as connection:
            connection.execute(f"DELETE FROM {quoted(table)} WHERE id=?", (row_id,))  # noqa: S608 - quoted


@contextmanager
def _changed(database: Path, table: str) -> Generator[sqlite3.Connection]:
    if not database.exists():
        database.touch()
        belong(database, database.parent)
    with writing(database), closing(connect(database, "rwc")) as connection:
        # With EXTRA the folder is synced once the journal is gone: the name of a new database is durable by it too.
        connection.execute("PRAGMA synchronous=EXTRA")
        with transaction(connection):
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS {quoted(table)} (id TEXT PRIMARY KEY, user_id TEXT NOT NULL,"
                " slug TEXT NOT NULL, name TEXT NOT NULL, created_at TEXT NOT NULL, last_used_at TEXT NOT NULL,"
                " UNIQUE(user_id, slug))"
            )
            _check(connection, database, table)
            yield connection


def _check(connection: sqlite3.Connection, database: Path, table: str) -> None:
    there = {str(row[1]) for row in connection.execute(f"PRAGMA table_info({quoted(table)})")}
    if missing := [name for name in COLUMNS if name not in there]:
        raise UserRefused(f"table {table} in {database} has no column {', '.join(missing)}; it was left as it is")
