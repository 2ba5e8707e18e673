"""What a database says, whatever its pages look like: counts and digests of each table, and what is wrong with it.

`integrity_check` alone proves nothing: a copy without its `-wal` is in perfect order and lacks rows.
"""

import hashlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from actorstate.errors import SourceUnreadable
from actorstate.migrate.holders import has_open, identity
from actorstate.migrate.rowcopy import Content
from actorstate.migrate.sqlitefiles.tables import (
    Definition,
    connect,
    definitions,
    described,
    mentioned_collations,
    quoted,
    reading,
    stand_in,
)

MAX_PROBLEMS = 10
"""More are not listed."""
COPY_ATTEMPTS = 3
"""A database that is written to while it is copied for a look is copied anew this often."""


@dataclass(frozen=True, slots=True)
class Contents:
    """Everything that a database says: its tables, its schema, and how many rows offend a foreign key."""

    tables: dict[str, Content]
    schema: str
    orphans: int

    @classmethod
    def from_plain(cls, raw: dict[str, object]) -> "Contents":
        """What `dataclasses.asdict` made these values of. Raises KeyError, AttributeError..."""
        tables = cast("dict[str, dict[str, object]]", raw["tables"])
        read = {name: Content(int(str(one["items"])), str(one["sha256"])) for name, one in tables.items()}
        return cls(read, str(raw["schema"]), int(str(raw["orphans"])))

    @property
    def rows(self) -> int:
        """Of all tables."""
        return sum(table.items for table in self.tables.values())

    def differences(self, other: "Contents") -> str:
        """In what `other` differs from this, in words; empty when it does not."""
        names = sorted(self.tables.keys() | other.tables.keys())
        told = [
            f"{name}: {_rows(self.tables.get(name))} and {_rows(other.tables.get(name))}"
            for name in names
            if self.tables.get(name) != other.tables.get(name)
        ]
        if self.schema != other.schema:
            told.append("their definitions differ")
        if self.orphans != other.orphans:
            told.append(f"rows against a foreign key: {self.orphans} and {other.orphans}")
        return "; ".join(told)


def _rows(table: Content | None) -> str:
    return "no table" if table is None else f"{table.items:,} rows ({table.sha256[:8]})"


def contents_of(connection: sqlite3.Connection) -> Contents:
    """Reads every row. Raises sqlite3.Error."""
    stand_in(connection, mentioned_collations(connection))
    with _one_moment(connection):
        found = definitions(connection)
        virtual = _without_rows(connection)
        tables = {one.name: _table(connection, one) for one in found if one.kind == "table" and one.name not in virtual}
        schema = hashlib.sha256(repr(sorted(found)).encode(errors="surrogateescape"))
        for pragma in ("user_version", "application_id", "encoding"):
            schema.update(repr(connection.execute(f"PRAGMA {pragma}").fetchone()).encode())
        orphans = sum(1 for _ in connection.execute("PRAGMA foreign_key_check"))
    return Contents(tables, schema.hexdigest(), orphans)


def problems_of(connection: sqlite3.Connection) -> tuple[str, ...]:
    """What `integrity_check` finds; `quick_check` where indexes are in an order that only the application knows."""
    unknown = mentioned_collations(connection)
    stand_in(connection, unknown)
    check = "quick_check" if unknown else "integrity_check"
    rows = connection.execute(f"PRAGMA {check}({MAX_PROBLEMS})").fetchall()
    return tuple(str(row[0]) for row in rows if row[0] != "ok")


@contextmanager
def unchanged(path: Path) -> Generator[sqlite3.Connection]:
    """A connection that reads a file of ours which nobody writes to; no `-wal` or `-shm` is made beside it."""
    address = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
    with reading(path), closing(sqlite3.connect(address, uri=True, isolation_level=None)) as connection:
        yield connection


@contextmanager
def looked_at(path: Path) -> Generator[sqlite3.Connection]:
    """A connection that reads a database of somebody else without any change beside it.

    One with a `-wal` or a journal is copied to a private temporary folder and read there. Raises SourceUnreadable.
    """
    if not _logs(path):
        with unchanged(path) as connection:
            yield connection
    elif has_open(os.getpid(), {identity(str(path))}):
        # Closing another descriptor of the file would drop the locks that this process's SQLite holds on it.
        address = f"{path.resolve().as_uri()}?mode=ro"
        with reading(path), closing(sqlite3.connect(address, uri=True, isolation_level=None)) as connection:
            yield connection
    else:
        with tempfile.TemporaryDirectory(prefix="actorstate-look-") as folder:
            copy = _copied(path, Path(folder))
            with (
                reading(path),
                closing(connect(copy, "rw")) as connection,
            ):
                yield connection


def _logs(path: Path) -> list[Path]:
    beside = (path.with_name(path.name + suffix) for suffix in ("-wal", "-journal"))
    return [file for file in beside if file.is_file() and file.stat().st_size]


def _copied(path: Path, folder: Path) -> Path:
    for attempt in range(COPY_ATTEMPTS):
        copy = folder / f"{attempt}.sqlite"
        before = _stamps(path)
        try:
            for file in (path, *_logs(path)):
                shutil.copyfile(file, copy.with_name(copy.name + file.name.removeprefix(path.name)))
        except FileNotFoundError:
            continue
        if _stamps(path) == before:
            return copy
    raise SourceUnreadable(
        f"{path} is being written to all the time; it was not read", hint="look again a little later"
    )


def _stamps(path: Path) -> list[tuple[str, int, int]]:
    return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in (path, *_logs(path))]


@contextmanager
def _one_moment(connection: sqlite3.Connection) -> Generator[None]:
    """All reads see the same state, also of a database that others write to."""
    if connection.in_transaction:
        yield
        return
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")


def _without_rows(connection: sqlite3.Connection) -> set[str]:
    """Virtual tables: what they hold is in their shadow tables."""
    return {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type='table' AND rootpage=0")}


def _table(connection: sqlite3.Connection, one: Definition) -> Content:
    try:
        return _digested(connection, one)
    except sqlite3.OperationalError as error:
        if "decode" not in str(error):
            raise
        connection.text_factory = _bytes_in_text
        try:
            return _digested(connection, one)
        finally:
            connection.text_factory = str


def _digested(connection: sqlite3.Connection, one: Definition) -> Content:
    # In the order of the b-tree, which a copy keeps: no sorting, so no order of text is asked for.
    table = described(connection, one, without_rowid=_without_rowid(connection, one))
    key = [*table.key] if table.hides_key else []
    columns = ", ".join([*key, *map(quoted, table.columns)])
    rows = connection.execute(f"SELECT {columns} FROM main.{quoted(one.name)} NOT INDEXED")  # noqa: S608 - quoted
    digest, count = hashlib.sha256(), 0
    for row in rows:  # one at a time: a row may hold a gigabyte
        count += 1
        blobs = [value for value in row if value.__class__ is bytes]
        if (
            blobs
        ):  # as they are, behind their lengths: spelled out a blob takes four times its size, and sixteen its time
            row = [(len(value),) if value.__class__ is bytes else value for value in row]  # noqa: PLW2901 - as told
        digest.update(repr(row).encode(errors="surrogateescape"))
        for blob in blobs:
            digest.update(blob)
    return Content(count, digest.hexdigest())


def _without_rowid(connection: sqlite3.Connection, one: Definition) -> bool:
    listed = connection.execute("SELECT wr FROM pragma_table_list WHERE schema='main' AND name=?", (one.name,))
    return bool(listed.fetchone()[0])


def _bytes_in_text(raw: bytes) -> str:
    return raw.decode(errors="surrogateescape")
