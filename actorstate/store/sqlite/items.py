"""The item ledger: a row for each item of a job, in the transaction of the change that reported it.

    items   (job, key) -> outcome, category, body, digest; two indexes for the two filters, both in the order of keys

A row with an id of its own, unlike the other tables: bodies may be long, and an index entry stays short.
The digest is over all of a row. A damaged row is never taken for a missing one: a page shows it without
its body, and where a newer outcome replaces it, its bytes go into the log first.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from actorstate import telemetry
from actorstate.core.codec import digest
from actorstate.store.contract import ItemQuery, JobCommit, StoredItem

ITEMS = """
CREATE TABLE items (job TEXT NOT NULL, key TEXT NOT NULL, outcome TEXT NOT NULL, category TEXT NOT NULL,
    body BLOB NOT NULL, digest BLOB NOT NULL, UNIQUE (job, key));
CREATE INDEX items_by_outcome ON items (job, outcome, key);
CREATE INDEX items_by_category ON items (job, category, outcome, key);
"""
ROWS_AT_ONCE = 1_000
"""Rows of one statement: SQLite takes 32,766 values."""
OUTCOMES = ("failed", "skipped", "duplicate", "succeeded", "retrying")

_COLUMNS = "CAST(key AS BLOB), CAST(outcome AS BLOB), CAST(category AS BLOB), CAST(body AS BLOB), CAST(digest AS BLOB)"
"""As bytes: damaged text cannot be decoded, and would hide the others of its page."""
_INSERT = "INSERT INTO items (job, key, outcome, category, body, digest) VALUES "
_REPLACE = (
    " ON CONFLICT (job, key) DO UPDATE SET outcome = excluded.outcome, category = excluded.category,"
    " body = excluded.body, digest = excluded.digest"
)
Row = tuple[bytes, bytes, bytes, bytes, bytes]
Signed = tuple[str, str, str, str, bytes, bytes]


def rows_of(batch: Iterable[JobCommit]) -> list[Signed]:
    """The rows to write for a commit; the digest is the last value of each."""
    return [
        (part.job, item.key, item.outcome, item.category, item.body, _sign(part.job, _bytes_of(item)))
        for part in batch
        if not part.deleted
        for item in part.items
    ]


def write_items(writing: sqlite3.Connection, rows: Sequence[Signed]) -> None:
    """Inserts or replaces them, in few statements."""
    for first in range(0, len(rows), ROWS_AT_ONCE):
        some = rows[first : first + ROWS_AT_ONCE]
        values = [value for row in some for value in row]
        writing.execute(_INSERT + ",".join(["(?,?,?,?,?,?)"] * len(some)) + _REPLACE, values)


def delete_items(writing: sqlite3.Connection, job: str) -> None:
    """All of the job's."""
    writing.execute("DELETE FROM items WHERE job = ?", (job,))


def found_items(reading: sqlite3.Connection, job: str, keys: Sequence[str]) -> dict[str, bytes]:
    """See `Store.find_items`."""
    found: dict[str, bytes] = {}
    left = iter(keys)
    while some := list(islice(left, ROWS_AT_ONCE)):
        marks = ",".join("?" * len(some))
        rows = reading.execute(f"SELECT {_COLUMNS} FROM items WHERE job = ? AND key IN ({marks})", (job, *some))  # noqa: S608 - constants and question marks
        for row in rows:
            item = _read(job, row)
            if item.body:
                found[item.key] = item.body
            else:
                telemetry.event("store.damage_found", job=job, what="item", key=item.key, row=row)
    return found


def listed_items(reading: sqlite3.Connection, job: str, query: ItemQuery) -> list[StoredItem]:
    """See `Store.list_items`."""
    sql, values = items_listing(job, query)
    return [_read(job, row) for row in reading.execute(sql, values)]


def items_listing(job: str, query: ItemQuery) -> tuple[str, dict[str, object]]:
    """The statement for a page, and its values: an index leads to its first row, and no row is read in vain."""
    values: dict[str, object] = {
        "job": job,
        "outcome": query.outcome,
        "category": query.category,
        "after": query.after,
        "limit": query.limit,
    }
    if query.category is None:
        index = "sqlite_autoindex_items_1" if query.outcome is None else "items_by_outcome"
        return _page(index, "" if query.outcome is None else "AND outcome = :outcome"), values
    outcomes = OUTCOMES if query.outcome is None else (query.outcome,)
    values |= {f"outcome_{place}": outcome for place, outcome in enumerate(outcomes)}
    pages = [
        _page("items_by_category", f"AND category = :category AND outcome = :outcome_{place}")
        for place in range(len(outcomes))
    ]
    union = " UNION ALL ".join([f"SELECT * FROM ({page})" for page in pages])  # noqa: S608 - as above
    return f"{union} ORDER BY 1 LIMIT :limit", values


def _page(index: str, terms: str) -> str:
    return (
        f"SELECT {_COLUMNS} FROM items INDEXED BY {index} WHERE job = :job {terms} AND key > :after "  # noqa: S608 - constants of this module
        "ORDER BY key LIMIT :limit"
    )


def _read(job: str, row: Row) -> StoredItem:
    key, outcome, category, body, stored = (part or b"" for part in row)
    whole = _sign(job, (key, outcome, category, body)) == stored
    return StoredItem(_text(key), _text(outcome), _text(category), body if whole else b"")


def _text(stored: bytes) -> str:
    return stored.decode(errors="backslashreplace")


def _bytes_of(item: StoredItem) -> Iterator[bytes]:
    return iter((item.key.encode(), item.outcome.encode(), item.category.encode(), item.body))


def _sign(job: str, parts: Iterable[bytes]) -> bytes:
    return digest(job, 0, b"\0".join(parts))
