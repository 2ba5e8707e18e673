"""Rows as items with named values: out of a table or view, and into a table, each judged by itself.

Values are compared as the table would store them: `wanted`, a table in memory with the columns' affinities, is
given what is to be written, and is joined with the table by the key. So 7 and '7' are one key where the column
says so, and a CSV file's '1.50' is the number that is there already.
"""

import json
import math
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self, cast

from actorstate.errors import BadRequest, ItemRefused
from actorstate.migrate.items.rules import refused
from actorstate.migrate.items.shape import DUPLICATE, Fields, Item, Place, Seen
from actorstate.migrate.sqlitefiles.tables import (
    Mode,
    Table,
    definitions,
    described,
    opened,
    quoted,
    reading,
    transaction,
    writing,
)

PAGE = 1_000
"""Rows that are read at once: between two pages nobody who writes to the database has to wait."""
_REFUSING = (sqlite3.IntegrityError, sqlite3.DataError, ItemRefused)
"""How one row is refused."""

Value = str | int | float | bytes | None


class _Opened:
    """A database file with one table of interest; closes with its block."""

    def __init__(self, path: Path, table: str, mode: Mode) -> None:
        self.path, self.table = path, table
        with (reading if mode == "ro" else writing)(path), opened(path, mode) as self._connection:
            self._connection.text_factory = _text
            self._found = _described(self._connection, path, table)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()

    @property
    def _name(self) -> str:
        return f"main.{quoted(self._found.name)}"

    def _columns(self, prefix: str = "") -> str:
        return ", ".join(prefix + quoted(name) for name in self._found.columns)


class TableSource(_Opened):
    """A table or view as a source; its owner may go on. Rows come by rowid, or else as the table has them."""

    def __init__(self, path: Path, table: str) -> None:
        super().__init__(path, table, "ro")

    def fields(self) -> Sequence[str]:
        """See Source: the columns."""
        return self._found.columns

    def count(self) -> int:
        """See Source."""
        with reading(self.path):
            return int(self._connection.execute(f"SELECT count(*) FROM {self._name}").fetchone()[0])  # noqa: S608 - quoted

    def items(self, after: Place | None) -> Iterator[tuple[Place, Fields | ItemRefused]]:
        """See Source. A place is the row's rowid; where there is none, how many rows there were before and with it."""
        by_key = self._found.kind == "rowid"
        key = self._found.key[0] if by_key else "0"
        first = f"SELECT {key}, {self._columns()} FROM {self._name} "  # noqa: S608 - quoted
        rest = f"WHERE {key} > ? ORDER BY {key} LIMIT {PAGE}" if by_key else f"LIMIT {PAGE} OFFSET ?"
        place = int(after) if after is not None else _BEFORE_ALL if by_key else 0
        while True:
            with reading(self.path):
                page = self._connection.execute(first + rest, (place,)).fetchall()
            for rowid, *values in page:
                place = rowid if by_key else place + 1
                yield place, dict(zip(self._found.columns, values, strict=True))
            if len(page) < PAGE:
                return


class TableTarget(_Opened):
    """A table as a target; `key` is the column by which an item is known, and no two rows may share it.

    One batch is one transaction, on the disk when `write` returns. With `read_only` it can be looked at alone.
    """

    def __init__(self, path: Path, table: str, key: str, *, read_only: bool = False) -> None:
        super().__init__(path, table, "ro" if read_only else "rw")
        with writing(path):
            self._connection.execute("PRAGMA temp_store=MEMORY")
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.execute("PRAGMA foreign_keys=ON")
            self._check_key(key)
            self._key = quoted(key)
            for name, columns in (("wanted", f"0 AS {_AT}, {self._columns()}"), ("kept", f"{self._key} AS key")):
                like = f"SELECT {columns} FROM {self._name} LIMIT 0"  # noqa: S608 - quoted
                self._connection.execute(f"CREATE TEMP TABLE {name} AS {like}")

    def fields(self) -> Collection[str] | None:
        """See Target: the columns."""
        return self._found.columns

    def look(self, items: Sequence[Item]) -> Sequence[Seen | ItemRefused | None]:
        """See Target."""
        with writing(self.path):
            self._connection.execute("DELETE FROM temp.wanted")
            refusals = {at: refusal for at, item in enumerate(items) if (refusal := self._want(at, item)) is not None}
            rows = self._connection.execute(
                f"SELECT w.{_AT}, t.{self._key} IS NULL, {self._columns('w.')}, {self._columns('t.')} "  # noqa: S608 - quoted
                f"FROM temp.wanted AS w LEFT JOIN {self._name} AS t ON t.{self._key} = w.{self._key}"
            )
            found = {at: self._seen(items[at], values) for at, values in _there(rows)}
        return [refusals.get(at) or found.get(at) for at in range(len(items))]

    def write(self, creates: Sequence[Item], updates: Sequence[Item]) -> Mapping[str, ItemRefused]:
        """See Target. Where a whole transaction is refused at its end, each item gets one of its own."""
        with writing(self.path):
            try:
                return self._written(creates, updates)
            except sqlite3.IntegrityError as error:
                if len(creates) + len(updates) == 1:
                    return {item.key: _refusal(error) for item in (*creates, *updates)}
        apart = [*(self.write([item], ()) for item in creates), *(self.write((), [item]) for item in updates)]
        return {key: refusal for refusals in apart for key, refusal in refusals.items()}

    def surplus(self, items: Iterable[Item]) -> Iterator[str]:
        """See Purgeable."""
        key = next(name for name in self._found.columns if quoted(name) == self._key)
        with writing(self.path):
            self._connection.execute("DELETE FROM temp.kept")
            self._connection.executemany(
                "INSERT INTO temp.kept VALUES (?)", ((_bindable(item.fields[key]),) for item in items)
            )
            rows = self._connection.execute(
                f"SELECT CAST({self._key} AS TEXT) FROM {self._name} WHERE {self._key} IS NOT NULL "  # noqa: S608 - quoted
                f"AND {self._key} NOT IN (SELECT key FROM temp.kept WHERE key IS NOT NULL) ORDER BY {self._key}"
            ).fetchall()
        return (str(row[0]) for row in rows)

    def delete(self, keys: Sequence[str]) -> int:
        """See Purgeable. A key is that of the row whose own reads like it."""
        statement = f"DELETE FROM {self._name} WHERE {self._key} = ? AND CAST({self._key} AS TEXT) = ?"  # noqa: S608 - quoted
        deleted = 0
        with writing(self.path), transaction(self._connection):
            for key in keys:
                for value in _readings(key):
                    deleted += self._connection.execute(statement, (value, key)).rowcount
        return deleted

    def _written(self, creates: Sequence[Item], updates: Sequence[Item]) -> dict[str, ItemRefused]:
        refusals: dict[str, ItemRefused] = {}
        with transaction(self._connection):
            for items, carry_out in ((creates, self._insert), (updates, self._update)):
                for item in items:
                    try:
                        carry_out(item)
                    except _REFUSING as error:
                        if not self._connection.in_transaction:
                            raise sqlite3.IntegrityError(str(error)) from error  # a trigger has undone all of it
                        refusals[item.key] = _refusal(error, self._found.name, self._key)
        return refusals

    def _insert(self, item: Item) -> None:
        names, marks = ", ".join(map(quoted, item.fields)), ", ".join("?" * len(item.fields))
        values = [_bindable(value) for value in item.fields.values()]
        self._connection.execute(f"INSERT INTO {self._name} ({names}) VALUES ({marks})", values)  # noqa: S608 - quoted

    def _update(self, item: Item) -> None:
        key = next(name for name in item.fields if quoted(name) == self._key)
        names = [name for name in item.fields if name != key]
        if names:
            changes = ", ".join(f"{quoted(name)} = ?" for name in names)
            values = [_bindable(item.fields[name]) for name in (*names, key)]
            statement = f"UPDATE {self._name} SET {changes} WHERE {self._key} = ?"  # noqa: S608 - quoted
            if not self._connection.execute(statement, values).rowcount:
                raise refused("it is not there any more", DUPLICATE)  # looked at once more, and judged anew

    def _want(self, at: int, item: Item) -> ItemRefused | None:
        try:
            names = ", ".join((_AT, *map(quoted, item.fields)))
            marks = ", ".join("?" * (len(item.fields) + 1))
            values = [at, *map(_bindable, item.fields.values())]
            self._connection.execute(f"INSERT INTO temp.wanted ({names}) VALUES ({marks})", values)  # noqa: S608 - quoted
        except _REFUSING as error:
            return _refusal(error)
        return None

    def _seen(self, item: Item, values: Sequence[Value]) -> Seen:
        columns = self._found.columns
        wanted, stored = (
            dict(zip(columns, half, strict=True)) for half in (values[: len(columns)], values[len(columns) :])
        )
        return Seen({name: stored[name] for name in item.fields}, {name: wanted[name] for name in item.fields})

    def _check_key(self, key: str) -> None:
        """Raises BadRequest unless no two rows can share the key: else they would be created or changed together."""
        if key not in self._found.columns:  # SQLite would take it as text, in an index as well
            raise BadRequest(
                f"table {self._found.name!r} in {str(self.path)!r} has no column {key!r}; "
                f"it has {', '.join(self._found.columns)}",
                hint=f"say which of them is the key: --key FIELD, or --rename {key}=COLUMN where it has another name",
            )
        info = self._connection.execute(f"PRAGMA main.table_xinfo({quoted(self._found.name)})").fetchall()
        if [row[1] for row in info if row[5]] == [key]:
            return
        for _, index, unique, _, partial in self._connection.execute(
            f"PRAGMA main.index_list({quoted(self._found.name)})"
        ):
            columns = [row[2] for row in self._connection.execute(f"PRAGMA main.index_info({quoted(index)})")]
            if unique and not partial and columns == [key]:
                return
        raise BadRequest(
            f"column {key!r} of table {self._found.name!r} in {str(self.path)!r} may hold a key twice",
            hint=f"make it unique: CREATE UNIQUE INDEX by_key ON {quoted(self._found.name)} ({quoted(key)})",
        )


_AT = '"actorstate item"'
"""A column beside those of the table."""
_BEFORE_ALL = -(2**63)
_CODES = {
    sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY,
    sqlite3.SQLITE_CONSTRAINT_UNIQUE,
    sqlite3.SQLITE_CONSTRAINT_ROWID,
}


def _described(connection: sqlite3.Connection, path: Path, table: str) -> Table:
    for one in definitions(connection):
        if one.kind in {"table", "view"} and one.name == table:
            listed = connection.execute(
                "SELECT wr FROM pragma_table_list WHERE schema='main' AND name=?", (table,)
            ).fetchone()
            found = described(connection, one, without_rowid=bool(listed[0]))
            return found if one.kind == "table" else Table(one.name, one.sql, "position", (), found.columns)
    there = ", ".join(one.name for one in definitions(connection) if one.kind in {"table", "view"})
    raise BadRequest(f"{str(path)!r} has no table {table!r}", hint=f"those there are: {there or 'none'}")


def _refusal(error: Exception, table: str = "", key: str = "") -> ItemRefused:
    """A row that is there already under its key is a duplicate; all else that SQLite has against one is its content."""
    if isinstance(error, ItemRefused):
        return error
    same = getattr(error, "sqlite_errorcode", 0) in _CODES and f"{table}.{key.strip(chr(34))}" in str(error)
    return refused(str(error), DUPLICATE) if same else refused(str(error))


def _bindable(value: object) -> Value:
    """What SQLite takes; lists and dicts are stored as JSON. Raises ItemRefused."""
    if isinstance(value, (list, dict)):
        return _as_json(cast("object", value))
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise refused(f"{value} is too large for an SQLite database")
    if isinstance(value, float) and math.isnan(value):
        raise refused("NaN would be NULL in an SQLite database")
    if value is None or isinstance(value, str | int | float | bytes):
        return value
    raise refused(f"a value of type {type(value).__name__} cannot be stored in an SQLite database")


def _as_json(value: object) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise refused(f"it cannot be JSON: {error}") from error


def _there(rows: sqlite3.Cursor) -> Iterator[tuple[int, list[Value]]]:
    for at, is_missing, *values in rows:
        if not is_missing:
            yield int(at), values


def _readings(key: str) -> list[Value]:
    """The values whose text is the key."""
    values: list[Value] = [key]
    for kind in (int, float):
        with suppress(ValueError):
            values.append(kind(key))
    return values


def _text(raw: bytes) -> str:
    return raw.decode(errors="surrogateescape")
