"""The table in which an app finds its users' profiles: read, and given the rows that are missing.

`created_at` is written once and never changed again; another release's table with more columns is left as it is.
"""

import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

from actorstate.errors import UserRefused
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


def record(database: Path, table: str, row: dict[str, str]) -> None:
    """Writes the row unless its user has one of this slug. Raises UserRefused, TargetFailed, DiskFull."""
    with _changed(database, table) as connection:
        names = ", ".join(COLUMNS)
        values = ", ".join("?" for _ in COLUMNS)
        sql = f"INSERT INTO {quoted(table)} ({names}) VALUES ({values}) ON CONFLICT (user_id, slug) DO NOTHING"  # noqa: S608 - quoted
        connection.execute(sql, [row[name] for name in COLUMNS])


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
