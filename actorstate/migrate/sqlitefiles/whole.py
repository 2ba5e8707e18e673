"""Whole databases: a copy of one as it stands, and a new one before and after its rows come."""

import shutil
import sqlite3
import tempfile
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from actorstate.errors import SourceUnreadable, TargetFailed
from actorstate.migrate.rowcopy import Range
from actorstate.migrate.sqlitefiles.rows import SqliteSource, insert
from actorstate.migrate.sqlitefiles.tables import (
    INTERNAL,
    Definition,
    Skipped,
    connect,
    definitions,
    described,
    is_utf8,
    quoted,
    reading,
    stand_in,
    transaction,
    writing,
)

_UNOPENABLE = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY})
"""How opening for reading fails where SQLite would have to write first: a hot journal, a `-wal` on a read-only disk."""


def snapshot(database: Path, copy: Path) -> None:
    """Copies `database` as it is at one moment into the new file `copy`; its owner may go on meanwhile.

    Committed rows in its `-wal` are in the copy, rows of an unfinished transaction are not. Raises
    SourceUnreadable, DiskFull.
    """
    if not database.is_file():
        raise SourceUnreadable(f"there is no file {str(database)!r}")
    with reading(database):
        try:
            with closing(connect(database, "ro")) as connection:
                _back_up(connection, copy)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in _UNOPENABLE:
                raise
            _back_up_recovered(database, copy)


def create_database(path: Path, statements: Iterable[str]) -> None:
    """Makes the new database `path`, ready for several writers at once; raises TargetFailed where it exists."""
    with _new(path, {}) as connection:
        for sql in statements:
            connection.execute(sql)


def create_target(source: SqliteSource, path: Path) -> tuple[Skipped, ...]:
    """Makes the new database `path` with the tables of `source`, empty, and returns those it could not make."""
    with _new(path, source.settings()) as connection:
        stand_in(connection, source.collations)
        return _made(connection, [Definition("table", table.name, table.sql) for table in source.tables])


def finish_target(source: SqliteSource, path: Path) -> tuple[Skipped, ...]:
    """Gives the copied tables what the source has around them, and returns what could not be brought over.

    Indexes, views, triggers, AUTOINCREMENT's counters, ANALYZE's statistics; after that the file is
    whole without a `-wal`. Doing it once more changes nothing.
    """
    kinds = ("index", "view", "trigger")
    around = sorted((one for one in source.definitions if one.kind in kinds), key=lambda one: kinds.index(one.kind))
    with writing(path), closing(connect(path, "rw")) as connection:
        skipped = (*_internal_copied(source, connection), *_made(connection, around))
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA journal_mode=DELETE")
    return skipped


@contextmanager
def _new(path: Path, settings: Mapping[str, int | str]) -> Generator[sqlite3.Connection]:
    """A file's encoding is fixed by its first table, so settings and tables come over one connection."""
    if path.exists():
        raise TargetFailed(f"{str(path)!r} exists already", hint="name a new file, or remove this one")
    with writing(path), closing(connect(path, "rwc")) as connection:
        for name, value in settings.items():
            connection.execute(f"PRAGMA {name}='{value}'")
        yield connection
        connection.execute("PRAGMA journal_mode=WAL")


def _back_up(source: sqlite3.Connection, copy: Path) -> None:
    # The lock is taken here, where waiting for it ends: `backup` itself would wait for ever.
    source.execute("BEGIN")
    source.execute("SELECT count(*) FROM sqlite_master").fetchone()
    with closing(connect(copy, "rwc")) as target:
        target.execute("PRAGMA synchronous=OFF")
        source.backup(target)
        target.execute("PRAGMA journal_mode=DELETE")


def _back_up_recovered(database: Path, copy: Path) -> None:
    """Lets SQLite recover a copy of the files: the source itself would have to be written to."""
    with tempfile.TemporaryDirectory(dir=copy.parent) as folder:
        recovered = Path(folder) / "recovered.sqlite"
        for suffix in ("", "-wal", "-journal"):
            file = database.with_name(database.name + suffix)
            if file.is_file():
                shutil.copyfile(file, recovered.with_name(recovered.name + suffix))
        with closing(connect(recovered, "rw")) as connection:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise SourceUnreadable(f"{str(database)!r} was left damaged: {found}")
            _back_up(connection, copy)


def _made(connection: sqlite3.Connection, wanted: Iterable[Definition]) -> tuple[Skipped, ...]:
    there = {one.name for one in definitions(connection)}
    return tuple(
        Skipped(one.name, one.kind, f"SQLite does not make it here: {objection}")
        for one in wanted
        if one.name not in there and (objection := _objection(connection, one.sql))
    )


def _objection(connection: sqlite3.Connection, sql: str) -> str:
    """What SQLite has against the statement, which was carried out if it has nothing; other errors are raised."""
    if not is_utf8(sql):
        return "its definition is not valid UTF-8"
    try:
        connection.execute(sql)
    except (sqlite3.OperationalError, sqlite3.IntegrityError) as error:
        if error.sqlite_errorcode & 0xFF not in {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT}:
            raise
        return str(error)
    return ""


def _internal_copied(source: SqliteSource, connection: sqlite3.Connection) -> Iterator[Skipped]:
    had = [one.name for one in source.definitions if one.name in INTERNAL]
    if any(name != "sqlite_sequence" for name in had):
        connection.execute("ANALYZE sqlite_master")
    there = {one.name: one for one in definitions(connection)}
    for name in had:
        if name not in there:
            yield Skipped(name, "table", "this SQLite keeps none")
            continue
        table = described(connection, there[name])
        with transaction(connection):
            connection.execute(f"DELETE FROM main.{quoted(name)}")  # noqa: S608 - one of three names
            insert(connection, table, source.rows(table, Range(name, 0, -1)))
