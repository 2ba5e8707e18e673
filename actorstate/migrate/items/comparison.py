"""Source and target side by side, without a job and without a change: before a migration, and after it."""

import hashlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

from actorstate.errors import ItemRefused
from actorstate.migrate.items.batch import Entry, Reach, Workers, asked, batches, entry_of, pause_of
from actorstate.migrate.items.rules import Migration, decided, known_items
from actorstate.migrate.items.shape import Fields, Purgeable, Seen

Would = Literal["create", "update", "skip", "duplicate", "fail"]
Answer = Seen | ItemRefused | None
"""What a target says of one item."""
MAX_SHOWN = 20
"""Examples of each kind; the counts are of all items."""
MAX_CHANGES = 20
"""Fields of an example."""
MAX_VALUE = 100
"""Characters of a value."""
MAX_REMEMBERED = 2_000_000
"""Keys that a preview remembers, to tell an item that comes twice in the source: further ones are not told."""


@dataclass(frozen=True, slots=True)
class Change:
    """A field as it is and as it would be, each as text of at most 100 characters; None: it is not there."""

    field: str
    old: str | None
    new: str | None


@dataclass(frozen=True, slots=True)
class Example:
    """What would become of one item."""

    key: str
    would: Would
    changes: tuple[Change, ...] = ()
    reason: str = ""


@dataclass(slots=True)
class Preview:
    """What a run would do: how many items, and the first `MAX_SHOWN` of each kind."""

    counts: Counter[Would] = field(default_factory=Counter["Would"])
    categories: Counter[str] = field(default_factory=Counter[str])
    examples: list[Example] = field(default_factory=list[Example])
    surplus: int | None = None
    """Items that would be put up for deletion; None where nobody asked."""

    @property
    def items(self) -> int:
        """All of them."""
        return self.counts.total()

    def add(self, example: Example) -> None:
        """Counts one, and keeps it as long as there is room."""
        self.counts[example.would] += 1
        if self.counts[example.would] <= MAX_SHOWN:
            self.examples.append(example)


@dataclass(slots=True)
class Comparison:
    """What both sides say: `source` and `target` are digests over all keys and values, in whatever order they come."""

    counts: Counter[str] = field(default_factory=Counter[str])
    """items, same, missing, different, unreadable."""
    examples: list[Example] = field(default_factory=list[Example])
    surplus: int | None = None
    """Items of the target that the source does not have; None where the target does not list its own, or an item
    of the source cannot be read."""
    source: str = ""
    target: str = ""

    def add(self, kind: str, example: Example) -> None:
        """Counts one that is not the same on both sides."""
        self.counts[kind] += 1
        if self.counts[kind] <= MAX_SHOWN:
            self.examples.append(example)

    @property
    def good(self) -> bool:
        """Whether each item of the source is in the target as it should be."""
        return self.counts["same"] == self.counts["items"]


def previewed(migration: Migration) -> Preview:
    """What a run would do with all items, from the first one on. Raises BadRequest, SourceUnreadable, TargetFailed."""
    migration.check()
    preview = Preview()
    first: dict[bytes, bytes] = {}
    for entry, seen in _looked_at(migration):
        example = _foretold(migration, entry, _as_by_then(entry, seen, first))
        preview.add(example)
        if example.would == "fail":
            preview.categories[entry.category] += 1
        if example.would == "create" and entry.item is not None and len(first) < MAX_REMEMBERED:
            first[_short(entry.name)] = _short(entry.item.once)
    if migration.rules.delete_missing:
        preview.surplus = _surplus(migration)
    return preview


def compared(migration: Migration) -> Comparison:
    """What both sides say of each item of the source. Raises BadRequest, SourceUnreadable, TargetFailed."""
    migration.check()
    found = Comparison()
    sums = [0, 0]
    for entry, seen in _looked_at(migration):
        found.counts["items"] += 1
        _compare(found, sums, entry, seen)
    found.source, found.target = (f"{number % 2**256:064x}" for number in sums)
    if isinstance(migration.target, Purgeable) and migration.rules.max_items is None and not found.counts["unreadable"]:
        found.surplus = _surplus(migration)
    return found


def _foretold(migration: Migration, entry: Entry, seen: Answer) -> Example:
    try:
        if isinstance(entry.refusal, ItemRefused):
            raise entry.refusal
        if isinstance(seen, ItemRefused):
            raise seen
        action = decided(migration.rules, seen, None)
    except ItemRefused as refusal:
        entry.fail(refusal)
        return Example(entry.name, "fail", (), refusal.message)
    would: Would = "skip" if action == "written" else action
    changes = {} if seen is None or would != "update" else seen.changes
    return Example(entry.name, would, _shown(changes))


def _as_by_then(entry: Entry, seen: Answer, first: Mapping[bytes, bytes]) -> Answer:
    """What the target will have when it is this item's turn: one of the same key may have been created by then."""
    content = first.get(_short(entry.name))
    if seen is not None or entry.item is None or content is None:
        return seen
    return Seen({}, {} if content == _short(entry.item.once) else entry.item.fields)


def _compare(found: Comparison, sums: list[int], entry: Entry, seen: Answer) -> None:
    """One item. A digest over all is the sum of those of each, so that the order does not matter."""
    if entry.item is None or isinstance(seen, ItemRefused):
        refusal = entry.refusal if entry.item is None else seen
        reason = refusal.message if isinstance(refusal, ItemRefused) else ""
        found.add("unreadable", Example(entry.name, "fail", (), reason))
    elif seen is None:
        sums[0] += _content(entry.name, entry.item.fields)
        found.add("missing", Example(entry.name, "create"))
    else:
        sums[0] += _content(entry.name, seen.wanted)
        sums[1] += _content(entry.name, {name: seen.stored.get(name) for name in seen.wanted})
        if seen.changes:
            found.add("different", Example(entry.name, "update", _shown(seen.changes)))
        else:
            found.counts["same"] += 1


def _looked_at(migration: Migration) -> Iterator[tuple[Entry, Answer]]:
    """All items, each with what the target has; a limit of the target is waited for."""
    rows = islice(migration.source.items(None), migration.rules.max_items)
    reach = Reach()
    with closing(Workers(migration.rules.workers)) as workers:
        for batch in batches((entry_of(migration, *row) for row in rows), migration.rules.batch_size):
            answers = _answers(migration, workers, batch, reach)
            for entry in batch:
                yield entry, answers.get(entry.name)


def _answers(migration: Migration, workers: Workers, batch: list[Entry], reach: Reach) -> dict[str, Answer]:
    left = [entry for entry in batch if entry.item is not None]
    answers: dict[str, Answer] = {}
    while left:
        for entry, seen in asked(migration, workers, left):
            answers[entry.name] = seen
            entry.outcome = "succeeded"
            if isinstance(seen, ItemRefused):
                entry.outcome = None
                entry.refuse(seen, as_duplicate=False)
        reach.check(entry for entry in left if entry.outcome is not None)
        left = [entry for entry in left if entry.outcome is None]
        if pause := pause_of(left):
            time.sleep(pause.seconds)
    return answers


def _surplus(migration: Migration) -> int:
    if not isinstance(migration.target, Purgeable):
        return 0
    return sum(1 for _ in migration.target.surplus(known_items(migration)))


def _shown(changes: Mapping[str, tuple[object, object]]) -> tuple[Change, ...]:
    pairs = islice(changes.items(), MAX_CHANGES)
    return tuple(Change(name, _text(old), _text(new)) for name, (old, new) in pairs)


def _text(value: object) -> str | None:
    return None if value is None else str(value)[:MAX_VALUE]


def _short(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()[:8]


def _content(key: str, fields: Fields) -> int:
    content = repr((key, sorted(fields.items(), key=lambda pair: pair[0])))
    return int.from_bytes(hashlib.sha256(content.encode(errors="surrogateescape")).digest())
