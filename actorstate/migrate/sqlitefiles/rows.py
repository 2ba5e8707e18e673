"""Rows exactly: out of a database, and into another one, to the byte.

Text travels as the bytes that the file holds, in the file's encoding, because decoding would lose what
is not valid in it: where a value is text it is read as `CAST(c AS BLOB)`, and a row of digits, 1 for
text, goes beside the values. Back it goes over a table in memory and from there as `CAST(c AS TEXT)`:
of a bound parameter SQLite would believe that its bytes are UTF-8.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self

from actorstate.errors import SourceUnreadable
from actorstate.migrate.rowcopy import Group, Range, Row, Text, Value
from actorstate.migrate.sqlitefiles.tables import (
    Table,
    definitions,
    mentioned_collations,
    opened,
    quoted,
    reading,
    stand_in,
    survey,
    transaction,
    writing,
)

MAX_BUFFERED_BYTES = 8 * 1024 * 1024
"""Values that wait for a target's commit; above it what waits is committed at once."""
OLDEST_SQLITE = (3, 37, 0)
"""The first release whose `PRAGMA table_list` tells shadow tables and WITHOUT ROWID."""
_SETTINGS = ("encoding", "page_size", "auto_vacuum", "user_version", "application_id")
"""What a file has beside its schema, in an order in which a new file accepts it."""


class SqliteSource:
    """A database that stands still, such as a snapshot: `tables` are its groups, `skipped` is what is none."""

    def __init__(self, path: Path) -> None:
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            oldest = ".".join(map(str, OLDEST_SQLITE))
            raise SourceUnreadable(
                f"SQLite {oldest} or later is needed; this Python has {sqlite3.sqlite_version}",
                hint="use a Python that was built with a newer SQLite",
            )
        self.path = path
        with reading(path), opened(path, "ro") as self._connection:
            self.definitions = definitions(self._connection)
            self.tables, self.skipped = survey(self._connection)
            self.collations = mentioned_collations(self._connection)
            stand_in(self._connection, self.collations)
        self._by_name = {table.name: table for table in self.tables}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()

    def settings(self) -> dict[str, int | str]:
        """Encoding, page size and the other numbers of the file."""
        with reading(self.path):
            return {name: self._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in _SETTINGS}

    def groups(self) -> Sequence[Group]:
        """The tables, with the number of rows that counting them finds."""
        with reading(self.path):
            return [Group(table.name, _count(self._connection, table), table.kind != "position")
                    for table in self.tables]  # fmt: skip

    def items(self, wanted: Range) -> Iterator[Row]:
        """The rows of the range in the order of their keys."""
        return self.rows(self._by_name[wanted.group], wanted)

    def rows(self, table: Table, wanted: Range) -> Iterator[Row]:
        """The same for a table that need not be one of the groups; `items` of -1 means all."""
        primary = [at for at, name in enumerate(table.columns) if quoted(name) in table.key]
        with reading(self.path):
            found = self._connection.execute(_selection(table), (wanted.items, wanted.start))
            for position, (key, texts, *raw) in enumerate(found, wanted.start):
                values = _typed(texts, raw)
                if table.kind == "rowid":
                    yield Row(table.name, key, values)
                elif table.kind == "primary key":
                    yield Row(table.name, tuple(values[at] for at in primary), values)
                else:
                    yield Row(table.name, position, values)


class SqliteTarget:
    """A database that several processes fill at once, each with short transactions of its own.

    What is put waits in memory (bounded by MAX_BUFFERED_BYTES) for `commit`, which is one transaction,
    synced before it returns. It waits for its turn as long as LOCKED_FOR_S.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with writing(path), opened(path, "rw") as self._connection:
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.execute("PRAGMA foreign_keys=OFF")
            self._connection.execute("PRAGMA ignore_check_constraints=ON")
            self._connection.execute("PRAGMA temp_store=MEMORY")
            tables, _ = survey(self._connection)
        self._tables = {table.name: table for table in tables}
        self._waiting: dict[str, list[Row]] = {}
        self._waiting_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; what was put and not committed is not in it."""
        self._connection.close()

    def put(self, item: Row) -> None:
        """Takes the row with the next commit; where its key is there already, that row stays as it is."""
        self._waiting.setdefault(item.group, []).append(item)
        self._waiting_bytes += sum(len(value) for value in item.values if isinstance(value, bytes))
        if self._waiting_bytes > MAX_BUFFERED_BYTES:
            self.commit()

    def commit(self) -> None:
        """Returns when all that was put is on the disk; raises DiskFull or TargetFailed, and then it waits on."""
        if not self._waiting:
            return
        with writing(self.path), transaction(self._connection):
            for group, items in self._waiting.items():
                insert(self._connection, self._tables[group], items)
        self._waiting = {}
        self._waiting_bytes = 0


def insert(connection: sqlite3.Connection, table: Table, items: Iterable[Row]) -> None:
    """Adds the rows that are not there, within the caller's transaction."""
    if table.kind == "position":
        have = _count(connection, table)
        items = [item for item in items if isinstance(item.key, int) and item.key >= have]
    values = [f"v{at}" for at in range(len(table.columns))]
    connection.execute(f"CREATE TEMP TABLE incoming (texts, key, {', '.join(values)})")
    marks = ", ".join("?" * (len(values) + 2))
    connection.executemany(f"INSERT INTO temp.incoming VALUES ({marks})", map(_parameters, items))  # noqa: S608 - marks
    connection.execute(_insertion(table, values))
    connection.execute("DROP TABLE temp.incoming")


def _typed(texts: str, raw: list[Value]) -> tuple[Value, ...]:
    if "1" not in texts:
        return tuple(raw)
    return tuple(
        Text(value) if text == "1" and isinstance(value, bytes) else value
        for text, value in zip(texts, raw, strict=True)
    )


def _count(connection: sqlite3.Connection, table: Table) -> int:
    """Rows of the table itself, whatever its indexes say."""
    counted = connection.execute(f"SELECT count(*) FROM main.{quoted(table.name)} NOT INDEXED")  # noqa: S608 - quoted
    return int(counted.fetchone()[0])


def _selection(table: Table) -> str:
    """The key, the digits that tell text, the values.

    Primary keys are compared as binary, the finest order there is: keys that differ never tie. Rows
    that have only a position come as they lie in the table's own tree, hence NOT INDEXED.
    """
    names = [quoted(name) for name in table.columns]
    values = ", ".join(f"CASE typeof({name}) WHEN 'text' THEN CAST({name} AS BLOB) ELSE {name} END" for name in names)
    texts = _joined([f"(typeof({name})='text')" for name in names])
    collation = "" if table.kind == "rowid" else " COLLATE BINARY"
    order = "ORDER BY " + ", ".join(name + collation for name in table.key) if table.key else ""
    key = table.key[0] if table.kind == "rowid" else "NULL"
    return (
        f"SELECT {key}, {texts} || '', {values} "  # noqa: S608 - quoted names
        f"FROM main.{quoted(table.name)} NOT INDEXED {order} LIMIT ? OFFSET ?"
    )


def _joined(digits: Sequence[str]) -> str:
    """Concatenated as a balanced tree: SQLite bounds the depth of an expression, not its length."""
    if len(digits) == 1:
        return digits[0]
    half = len(digits) // 2
    return f"({_joined(digits[:half])}||{_joined(digits[half:])})"


def _insertion(table: Table, values: Sequence[str]) -> str:
    """A row whose key is there stays as it is."""
    columns = [*(table.key if table.hides_key else ()), *map(quoted, table.columns)]
    read = [
        *(["key"] if table.hides_key else []),
        *(f"CASE substr(texts, {at}, 1) WHEN '1' THEN CAST({name} AS TEXT) ELSE {name} END"
          for at, name in enumerate(values, 1)),
    ]  # fmt: skip
    return (
        f"INSERT INTO main.{quoted(table.name)} ({', '.join(columns)}) "  # noqa: S608 - quoted names
        f"SELECT {', '.join(read)} FROM temp.incoming AS i WHERE true ORDER BY i.rowid ON CONFLICT DO NOTHING"
    )


def _parameters(item: Row) -> tuple[Value | str, ...]:
    texts = "".join("1" if isinstance(value, Text) else "0" for value in item.values)
    return (texts, item.key if isinstance(item.key, int) else None, *item.values)
