"""One batch on its way into the target: looked at, planned, written, until each of its items has an outcome.

No job in here: `course.py` makes the plan durable before `write`, and counts the outcomes after it.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple, TypeVar

from actorstate.client.words import Outcome
from actorstate.errors import ItemRefused, TargetFailed
from actorstate.migrate.items.rules import Action, Migration, decided, name_of
from actorstate.migrate.items.shape import DUPLICATE, NETWORK, RATE_LIMIT, UNKNOWN, UNTRIED, Fields, Item, Place, Seen

Result = TypeVar("Result")

TRIES = {RATE_LIMIT: 20, NETWORK: 3, DUPLICATE: 2}
"""How often an item is tried that is refused like that; then it has failed. Others fail at once."""
NETWORK_PAUSE_S = 0.2
"""Before the second try; doubled for each further one."""
LIMIT_PAUSE_S = 1.0
MAX_PAUSE_S = 3_600.0
"""A limit that does not say how long it lasts; and what is believed at most."""
MAX_UNREACHED = 3
"""So many items in a row without an answer, and the target is gone: the rest need not fail one by one."""
MAX_BROKEN = 100
"""So many in a row, each answered with an error of the target's own: it is not about the items any more."""
MARK_BYTES = 8


class Pause(NamedTuple):
    """So long, before the rest is tried again; `limited` where the target has asked for it."""

    seconds: float
    limited: bool


@dataclass(slots=True, eq=False)
class Entry:
    """One item of a batch, and what has become of it so far."""

    name: str
    place: Place
    item: Item | None
    refusal: ItemRefused | None = None
    planned: Action | None = None
    outcome: Outcome | None = None
    tries: int = 0

    @property
    def key(self) -> str:
        """What it goes by in the target; an item that was mended for a retry has another name in the ledger."""
        return self.name if self.item is None else self.item.key

    @property
    def mark(self) -> bytes:
        """Names the item in a plan: the key and its place, since a later item of the same key is another one."""
        return hashlib.sha256(repr((self.name, self.place)).encode(errors="surrogateescape")).digest()[:MARK_BYTES]

    @property
    def category(self) -> str:
        """Of its failure."""
        return "" if self.refusal is None else str(self.refusal.details.get("category") or UNKNOWN)

    def fail(self, refusal: ItemRefused) -> None:
        """It has failed."""
        self.refusal, self.outcome = refusal, "failed"

    def refuse(self, refusal: ItemRefused, *, as_duplicate: bool) -> None:
        """It has failed, unless it may be tried again, or counts `as_duplicate` if it is one."""
        self.refusal = refusal
        if self.category == UNTRIED:
            return
        self.tries += 1
        if self.tries >= TRIES.get(self.category, 1):
            self.outcome = "duplicate" if as_duplicate and self.category == DUPLICATE else "failed"


def entry_of(migration: Migration, place: Place, fields: Fields | ItemRefused) -> Entry:
    """The source's item, as it is to be migrated."""
    name = name_of(place, fields, migration.rules)
    if isinstance(fields, ItemRefused):
        return Entry(name, place, None, fields, outcome="failed")
    try:
        return Entry(name, place, migration.item(fields))
    except ItemRefused as refusal:
        return Entry(name, place, None, refusal, outcome="failed")


def batches(entries: Iterable[Entry], size: int) -> Iterator[list[Entry]]:
    """The entries in batches of at most `size`; in none of them is a key twice."""
    batch: dict[str, Entry] = {}
    for entry in entries:
        if len(batch) == size or entry.key in batch:
            yield list(batch.values())
            batch = {}
        batch[entry.key] = entry
    if batch:
        yield list(batch.values())


@dataclass(slots=True)
class Plan:
    """What is about to be written."""

    creates: list[Item] = field(default_factory=list[Item])
    updates: list[Item] = field(default_factory=list[Item])


class Workers:
    """Calls a function with a share each of some items: here, or in `number` threads at once."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._pool = ThreadPoolExecutor(number, "actorstate-items") if number > 1 else None

    def close(self) -> None:
        """Ends the threads; what they are about is waited for."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def shared(self, work: Callable[[int, int], Result]) -> list[Result]:
        """What `work(first, step)` returned for each share; raises what one of them raised, when all have ended."""
        if self._pool is None:
            return [work(0, 1)]
        futures = [self._pool.submit(work, first, self._number) for first in range(self._number)]
        errors = [error for error in (future.exception() for future in futures) if error is not None]
        if errors:
            raise errors[0]
        return [future.result() for future in futures]


def asked(
    migration: Migration, workers: Workers, entries: Sequence[Entry]
) -> Iterator[tuple[Entry, Seen | ItemRefused | None]]:
    """What the target has of those that are items and have no outcome yet."""
    items = [(entry, entry.item) for entry in entries if entry.item is not None and entry.outcome is None]

    def look(first: int, step: int) -> list[tuple[Entry, Seen | ItemRefused | None]]:
        share = items[first::step]
        answers = migration.target.look([item for _, item in share]) if share else ()
        return [(entry, seen) for (entry, _), seen in zip(share, answers, strict=True)]

    return chain.from_iterable(workers.shared(look))


def looked(migration: Migration, workers: Workers, entries: Sequence[Entry]) -> Plan:
    """What is to be written of them; those of which there is nothing to write have their outcome, or a refusal."""
    plan = Plan()
    for entry, seen in asked(migration, workers, entries):
        try:
            _judge(migration, plan, entry, seen)
        except ItemRefused as refusal:
            entry.refuse(refusal, as_duplicate=migration.rules.skips_duplicates)
    return plan


def _judge(migration: Migration, plan: Plan, entry: Entry, seen: Seen | ItemRefused | None) -> None:
    if isinstance(seen, ItemRefused):
        raise seen
    action = decided(migration.rules, seen, entry.planned)
    if entry.item is None:
        return
    match action:
        case "create":
            entry.planned = action
            plan.creates.append(entry.item)
        case "update":
            entry.planned = action
            plan.updates.append(entry.item)
        case "skip":
            entry.outcome = "skipped"
        case "duplicate":
            entry.outcome = "duplicate"
        case "written":
            entry.outcome = "succeeded"


def written(migration: Migration, workers: Workers, entries: Sequence[Entry], plan: Plan) -> None:
    """Writes what is planned; afterwards all of it has an outcome, or a refusal after which it is tried again."""
    keys = {item.key for item in (*plan.creates, *plan.updates)}
    refusals: dict[str, ItemRefused] = {}

    def write(first: int, step: int) -> Mapping[str, ItemRefused]:
        creates, updates = plan.creates[first::step], plan.updates[first::step]
        return migration.target.write(creates, updates) if creates or updates else {}

    for refused in workers.shared(write):
        refusals |= refused
    for entry in entries:
        if entry.item is None or entry.item.key not in keys:
            continue
        if (refusal := refusals.get(entry.item.key)) is None:
            entry.refusal, entry.outcome = None, "succeeded"
        else:
            entry.refuse(refusal, as_duplicate=migration.rules.skips_duplicates)


@dataclass(slots=True)
class Reach:
    """Whether the target works: the last `unreached` items got no answer, the last `broken` none that is of use."""

    unreached: int = 0
    broken: int = 0

    def check(self, entries: Iterable[Entry]) -> None:
        """Raises TargetFailed after MAX_UNREACHED or MAX_BROKEN of them in a row."""
        for entry in entries:
            lost = entry.outcome == "failed" and entry.category == NETWORK
            answered = entry.refusal is not None and bool(entry.refusal.details.get("answered"))
            self.broken = self.broken + 1 if lost else 0
            self.unreached = self.unreached + 1 if lost and not answered else 0
            told = "" if entry.refusal is None else entry.refusal.message
            if self.unreached >= MAX_UNREACHED:
                raise _gone(f"the target did not answer {self.unreached} items in a row: {told}")
            if self.broken >= MAX_BROKEN:
                raise _gone(f"the target answered none of {self.broken} items in a row without an error: {told}")


def _gone(message: str) -> TargetFailed:
    hint = "when it answers again, type the same line again; what has failed: with --retry network"
    return TargetFailed(message, hint=hint)


def pause_of(entries: Iterable[Entry]) -> Pause | None:
    """How long to wait before those without an outcome are tried again; None where there are none."""
    left = [entry for entry in entries if entry.outcome is None]
    if not left:
        return None
    limits = [_told(entry.refusal) for entry in left if entry.category == RATE_LIMIT]
    if limits:
        return Pause(min(MAX_PAUSE_S, max(limits)), limited=True)
    tries = max((entry.tries for entry in left if entry.category == NETWORK), default=0)
    return Pause(NETWORK_PAUSE_S * 2 ** (tries - 1) if tries else 0.0, limited=False)


def _told(refusal: ItemRefused | None) -> float:
    told = None if refusal is None else refusal.details.get("retry_after_s")
    return float(told) if isinstance(told, int | float) and told >= 0 else LIMIT_PAUSE_S
