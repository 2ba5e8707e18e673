"""What a report or a retry makes of the item ledger, and of the counts. Pure, like all of the core.

    said        a failed, skipped or duplicate item becomes a row; said again it keeps its first time, one attempt more
    RetryItems  failed items are taken out of the counts and are `retrying`
    retried     the outcome of one of those: counts once, while the row is `retrying`, whoever says it how often

The change that is stored carries what came of this, not the items: a replay needs no ledger.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from msgspec.structs import replace

from actorstate.core.messages.document import Document, ItemState, Progress
from actorstate.core.messages.replies import JobRestored, Taken
from actorstate.core.messages.requests import Counts, ErrorReport, ItemReport, Report, RetryItems

MAX_TOLD = 50
"""Failures that go into the document's tail of errors; the ledger has them all."""
MAX_NAMED = 63
"""Categories of one message; failures of further ones are counted under `other`."""
OTHER, UNKNOWN = "other", "unknown"

Rows = Mapping[str, ItemState]


@dataclass(slots=True)
class Entry:
    """What is stored of a report or a retry: the change without its items, the rows, and what is taken back.

    Of a restore it is the state that is brought back; the ledger stays as it is.
    """

    body: Report | RetryItems | JobRestored
    rows: dict[str, ItemState] = field(default_factory=dict[str, ItemState])
    taken: Taken | None = None
    retrying: int = 0


def keys_in(body: Report | RetryItems) -> list[str]:
    """The keys whose rows matter to `entered`."""
    if isinstance(body, RetryItems):
        return list(body.keys)
    return [item.key for item in body.items if item.key]


def entered(body: Report | RetryItems, rows: Rows, at: datetime) -> Entry:
    """What `body` makes of the ledger, of which `rows` are those of its keys."""
    return _taken_out(body, rows, at) if isinstance(body, RetryItems) else _reported(body, rows, at)


def without(progress: Progress, taken: Taken | None, retrying: int) -> Progress:
    """The counts after the ledger has taken some back, never below zero."""
    taken = taken or Taken(0, {})
    failed, by_category = min(taken.failed, progress.failed), dict(progress.by_category)
    for category, count in taken.by_category.items():
        have = by_category.get(category, 0)
        by_category[category] = max(0, have - count)
        by_category[OTHER] = max(0, by_category.get(OTHER, 0) - max(0, count - have))
    return replace(
        progress,
        processed=progress.processed - failed,
        failed=progress.failed - failed,
        by_category={category: count for category, count in by_category.items() if count},
        retrying=max(0, progress.retrying + retrying),
    )


def reopened_items(document: Document, _body: RetryItems, _at: datetime) -> Document:
    """Rows that count anew are no work done backwards: the rate is measured afresh."""
    return replace(document, rate=replace(document.rate, samples=(), per_s=None, eta=None, eta_low=None, eta_high=None))


def _reported(body: Report, rows: Rows, at: datetime) -> Entry:
    entry, counts = Entry(body), body.counts
    failures: list[ItemReport] = []
    for item in body.items:
        before = entry.rows.get(item.key) or rows.get(item.key)
        waited = before is not None and before.outcome == "retrying"
        if item.retried and before is not None and not waited:
            continue
        if item.retried:
            counts = _plus(counts or Counts(), item)
        if item.outcome == "failed":
            failures.append(item)
        if item.key:
            entry.retrying -= waited
            entry.rows[item.key] = _row(item, before, at)
    told = [ErrorReport(item.key, item.error, item.category or UNKNOWN) for item in failures[-MAX_TOLD:]]
    errors, number = (*body.errors, *told)[-MAX_TOLD:], body.error_count + len(failures)
    entry.body = replace(body, items=(), counts=counts, errors=errors, error_count=number)
    return entry


def _row(item: ItemReport, before: ItemState | None, at: datetime) -> ItemState:
    category = item.category or (UNKNOWN if item.outcome == "failed" else "")
    if before is None:
        return ItemState(item.key, item.outcome, at, at, category, 1, item.error)
    if item.outcome == "failed":
        return ItemState(item.key, "failed", before.first_at, at, category, before.attempts + 1, item.error)
    return replace(before, outcome=item.outcome, last_at=at, attempts=before.attempts + 1)


def _plus(counts: Counts, item: ItemReport) -> Counts:
    failed = item.outcome == "failed"
    by_category = dict(counts.by_category)
    if failed:
        _count(by_category, item.category or UNKNOWN)
    return replace(
        counts,
        succeeded=counts.succeeded + (item.outcome == "succeeded"),
        failed=counts.failed + failed,
        skipped=counts.skipped + (item.outcome == "skipped"),
        duplicates=counts.duplicates + (item.outcome == "duplicate"),
        by_category=by_category,
    )


def _count(by_category: dict[str, int], category: str) -> None:
    name = category if category in by_category or len(by_category) < MAX_NAMED else OTHER
    by_category[name] = by_category.get(name, 0) + 1


def _taken_out(body: RetryItems, rows: Rows, at: datetime) -> Entry:
    found = {key: row for key in body.keys if (row := rows.get(key)) is not None and row.outcome == "failed"}
    by_category = dict(Counter(row.category for row in found.values()))
    moved = {key: replace(row, outcome="retrying", last_at=at) for key, row in found.items()}
    return Entry(replace(body, keys=()), moved, Taken(len(found), by_category), len(found))
