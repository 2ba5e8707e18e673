"""Which tables a database has, by what their rows are known, and which of them cannot be copied.

Names come from strangers: quotes, spaces, keywords, columns called `rowid`, bytes that are no UTF-8.
They enter statements through `quoted` only.
"""

import sqlite3
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from actorstate.errors import DiskFull, SourceUnreadable, TargetFailed

LOCKED_FOR_S = 60.0
"""How long another process may hold a lock that is needed here; then it is an error."""
INTERNAL = ("sqlite_sequence", "sqlite_stat1", "sqlite_stat4")
"""Tables that SQLite keeps for itself; `finish_target` brings them over."""
_ROWID_NAMES = ("rowid", "_rowid_", "oid")
_COLLATIONS = frozenset({"BINARY", "NOCASE", "RTRIM"})
"""SQLite's own. `PRAGMA collation_list` names those as well that a schema only mentions."""
_UNCOPIED = {
    "view": "it has no rows of its own; its definition goes over",
    "virtual": "its rows belong to the module that made it",
    "shadow": "a virtual table keeps its rows in it",
}

Kind = Literal["rowid", "primary key", "position"]
Mode = Literal["ro", "rw", "rwc"]


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose rows can be copied.

    `kind` says what `key` (quoted names) is: the rowid, under a name by which it can be reached; the
    primary key of a WITHOUT ROWID table; or nothing, where three columns have taken all names of the
    rowid: such rows have only their position. Generated columns are not among `columns`.
    """

    name: str
    sql: str
    kind: Kind
    key: tuple[str, ...]
    columns: tuple[str, ...]

    @property
    def hides_key(self) -> bool:
        """Whether the rowid is none of the columns and has to be copied beside them."""
        return self.kind == "rowid" and self.key[0] in _ROWID_NAMES


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something in a database that is not copied, or not as it is, and why."""

    name: str
    kind: str
    reason: str


class Definition(NamedTuple):
    """A row of the schema: a table, index, view or trigger, and the statement that makes it."""

    kind: str
    name: str
    sql: str


def connect(path: Path, mode: Mode) -> sqlite3.Connection:
    """A connection in autocommit mode; raises sqlite3.Error where the file is not what `mode` needs."""
    address = f"{path.resolve().as_uri()}?mode={mode}"
    return sqlite3.connect(address, uri=True, isolation_level=None, timeout=LOCKED_FOR_S)


@contextmanager
def opened(path: Path, mode: Mode) -> Generator[sqlite3.Connection]:
    """The same for somebody who keeps it; closed only when the block raises."""
    connection = connect(path, mode)
    try:
        yield connection
    except BaseException:
        connection.close()
        raise


@contextmanager
def reading(path: Path) -> Generator[None]:
    """Makes SQLite's errors SourceUnreadable, or DiskFull."""
    try:
        yield
    except sqlite3.Error as error:
        _raise_when_full(error)
        raise SourceUnreadable(f"{str(path)!r} cannot be read: {error}") from error


@contextmanager
def writing(path: Path) -> Generator[None]:
    """Makes SQLite's errors TargetFailed, or DiskFull."""
    try:
        yield
    except sqlite3.Error as error:
        _raise_when_full(error)
        raise TargetFailed(f"{str(path)!r} cannot be written: {error}") from error


@contextmanager
def transaction(connection: sqlite3.Connection) -> Generator[None]:
    """One writing transaction, rolled back by whatever is raised in it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def definitions(connection: sqlite3.Connection) -> tuple[Definition, ...]:
    """The schema in the order in which it was made."""
    with _names_as_stored(connection):
        rows = connection.execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid")
        return tuple(Definition(*row) for row in rows)


def survey(connection: sqlite3.Connection) -> tuple[tuple[Table, ...], tuple[Skipped, ...]]:
    """The tables whose rows can be copied, and all others but SQLite's own."""
    ours = [one for one in definitions(connection) if one.kind in {"table", "view"} and one.name not in INTERNAL]
    with _names_as_stored(connection):
        listed = {row[1]: row for row in connection.execute("PRAGMA main.table_list")}
        found = [_judged(connection, one, listed[one.name]) for one in ours]
    tables = tuple(one for one in found if isinstance(one, Table))
    return tables, tuple(one for one in found if isinstance(one, Skipped))


def described(connection: sqlite3.Connection, one: Definition, *, without_rowid: bool = False) -> Table:
    """The table of this definition, as a statement can read it."""
    info = connection.execute(f"PRAGMA main.table_xinfo({quoted(one.name)})").fetchall()
    columns = tuple(str(row[1]) for row in info if not row[6])
    primary = tuple(quoted(row[1]) for row in sorted(info, key=lambda row: int(row[5])) if row[5])
    if without_rowid:
        return Table(one.name, one.sql, "primary key", primary, columns)
    # A primary key that is the rowid itself is the one kind that has no index.
    indexes = connection.execute(f"PRAGMA main.index_list({quoted(one.name)})").fetchall()
    if primary and all(row[3] != "pk" for row in indexes):
        return Table(one.name, one.sql, "rowid", primary, columns)
    taken = {str(row[1]).lower() for row in info}
    free = tuple(name for name in _ROWID_NAMES if name not in taken)[:1]
    return Table(one.name, one.sql, "rowid" if free else "position", free, columns)


def mentioned_collations(connection: sqlite3.Connection) -> set[str]:
    """Orders of text that the schema speaks of and that only its application knows."""
    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return {str(row[1]) for row in connection.execute("PRAGMA collation_list")} - _COLLATIONS


def stand_in(connection: sqlite3.Connection, collations: Iterable[str]) -> None:
    """Lets tables be made and read by which SQLite would ask for these. Nothing is ever sorted by a stand-in."""
    for name in collations:
        connection.create_collation(name, _in_binary_order)


def quoted(name: str) -> str:
    """The name as a statement may hold it."""
    return '"' + name.replace('"', '""') + '"'


def is_utf8(text: str) -> bool:
    """Whether a statement can hold this text at all."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _raise_when_full(error: sqlite3.Error) -> None:
    if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
        raise DiskFull(f"the rows do not fit: {error}", hint="free some space and start again") from error


@contextmanager
def _names_as_stored(connection: sqlite3.Connection) -> Generator[None]:
    """Lets a name that is not valid UTF-8 be read, so that its table can be reported."""
    before: object = connection.text_factory
    connection.text_factory = _decoded
    try:
        yield
    finally:
        connection.text_factory = before


def _decoded(raw: bytes) -> str:
    return raw.decode(errors="surrogateescape")


def _judged(connection: sqlite3.Connection, one: Definition, listed: Sequence[object]) -> Table | Skipped:
    kind = str(listed[2])
    if kind != "table":
        return Skipped(one.name, kind, _UNCOPIED[kind])
    if one.name.startswith("sqlite_"):
        return Skipped(one.name, kind, "SQLite keeps it for itself")
    if not is_utf8(one.sql):
        return Skipped(one.name, kind, "its definition is not valid UTF-8, which every statement must be")
    if unknown := _unknown_orders(connection, one.name):
        orders = ", ".join(sorted(unknown))
        return Skipped(one.name, kind, f"its keys are sorted by {orders}, which only its application knows")
    table = described(connection, one, without_rowid=bool(listed[4]))
    if len(table.columns) + 2 > connection.getlimit(sqlite3.SQLITE_LIMIT_COLUMN):
        return Skipped(one.name, kind, f"it has {len(table.columns)} columns, too many for one statement")
    return table


def _unknown_orders(connection: sqlite3.Connection, table: str) -> set[str]:
    """Collations of its primary key and unique columns; indexes made by CREATE INDEX come when the rows are there."""
    indexes = connection.execute(f"PRAGMA main.index_list({quoted(table)})").fetchall()
    used = {
        str(column[4])
        for index in indexes
        if index[3] != "c"
        for column in connection.execute(f"PRAGMA main.index_xinfo({quoted(index[1])})")
        if column[5]
    }
    return {name for name in used if name.upper() not in _COLLATIONS}


def _in_binary_order(one: str, other: str) -> int:
    return (one > other) - (one < other)
