"""A job's item ledger: `.items/{id}.jsonl`, one line for each outcome reported; the last one of a key counts.

Lines carry the revision of their commit, so that what a killed commit left is cut off at the next start.
A ledger in use stays in memory; the file is written anew when most of its lines are outdated.
"""

import base64
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from actorstate import telemetry
from actorstate.core.codec import digest
from actorstate.errors import CorruptJob
from actorstate.store.contract import ItemQuery, StoredItem
from actorstate.store.jsonfiles.words import Plain, plain_object

SPARE_LINES = 1_000


@dataclass(slots=True)
class Ledger:
    """The items of one job in memory, by key; `lines` counts those of the file."""

    items: dict[str, StoredItem] = field(default_factory=dict[str, StoredItem])
    lines: int = 0
    _order: list[str] = field(default_factory=list[str])

    def add(self, items: Iterable[StoredItem]) -> None:
        """Takes over what was committed."""
        for item in items:
            self.items[item.key] = item
            self.lines += 1

    def find(self, job: str, keys: Sequence[str]) -> dict[str, bytes]:
        """See `Store.find_items`."""
        found = {key: self.items[key].body for key in keys if key in self.items}
        for key in [key for key, body in found.items() if not body]:
            telemetry.event("store.damage_found", job=job, what="item", key=key)
            del found[key]
        return found

    def page(self, query: ItemQuery) -> list[StoredItem]:
        """See `Store.list_items`."""
        if len(self._order) != len(self.items):
            self._order = sorted(self.items, key=str.encode)
        page: list[StoredItem] = []
        for key in self._order[_place_after(self._order, query.after) :]:
            item = self.items[key]
            if query.outcome in {None, item.outcome} and query.category in {None, item.category}:
                page.append(item)
                if len(page) == query.limit:
                    break
        return page

    @property
    def outgrown(self) -> bool:
        """Whether most lines of the file are outdated."""
        return self.lines > 2 * len(self.items) + SPARE_LINES


def ledger_in(job: str, path: Path) -> Ledger:
    """What the file holds. An item that does not match its digest stands there without its body."""
    ledger = Ledger()
    content = path.read_bytes() if path.exists() else b""
    for number, text in enumerate(content.split(b"\n")[:-1], 1):
        ledger.add([_read(job, text, f"line {number} of {path.name}")])
    return ledger


def item_lines(job: str, revision: int, items: Iterable[StoredItem]) -> bytes:
    """The lines of these items."""
    return b"".join(_line(job, revision, item) for item in items)


def _place_after(order: list[str], after: str) -> int:
    """The place of the first key above `after`, by UTF-8."""
    low, high, wanted = 0, len(order), after.encode()
    while low < high:
        middle = (low + high) // 2
        if order[middle].encode() > wanted:
            high = middle
        else:
            low = middle + 1
    return low


def _line(job: str, revision: int, item: StoredItem) -> bytes:
    told = Plain(revision=revision, key=item.key, outcome=item.outcome, category=item.category)
    line = told | {"packed": base64.b64encode(item.body).decode(), "digest": _sign(job, item)}
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def _read(job: str, text: bytes, where: str) -> StoredItem:
    try:
        line = plain_object(json.loads(text))
        key, outcome, category = (str(line[name]) for name in ("key", "outcome", "category"))
    except (KeyError, TypeError, ValueError, RecursionError):
        return StoredItem(where, "", "", b"")
    try:
        item = StoredItem(key, outcome, category, base64.b64decode(cast("str", line["packed"]), validate=True))
        if line["digest"] != _sign(job, item):
            raise CorruptJob(f"{where} does not match its digest", job=job)
    except (CorruptJob, KeyError, TypeError, ValueError):
        return StoredItem(key, outcome, category, b"")
    return item


def _sign(job: str, item: StoredItem) -> str:
    parts = (item.key.encode(), item.outcome.encode(), item.category.encode(), item.body)
    return digest(f"{job}/item", 0, b"\0".join(parts)).hex()
