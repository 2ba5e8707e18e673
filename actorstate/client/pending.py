"""What a worker has said and the writer not yet heard: merged without losing anything, sent as one report.

A signal may raise in the main thread between any two instructions. So what belongs together is said as one
`Piece`, and taken into the book by one append: all of it or nothing.
"""

from collections.abc import Callable, Iterable, Iterator
from copy import copy
from dataclasses import dataclass, field
from itertools import islice

from actorstate.client.words import bytes_of
from actorstate.core.messages.document import Intent
from actorstate.core.messages.requests import Counts, ItemReport, Report, StepReport, TrackPoint

FULL_ITEMS = 512
FULL_ITEM_BYTES = 64 * 1024
"""A report with so many items takes no further words: they go with the next one, in their order."""
MAX_NAMES = 64
MAX_STEPS = 256
MAX_PIECES = 4_096
"""Pieces that wait to be merged; one more merges them, so that a long outage costs no more memory."""
MAX_REPORT_BYTES = 1024 * 1024
"""What is over a report's limits goes with the next one."""


@dataclass(slots=True, eq=False, repr=False)
class Pending:
    """Merged reports."""

    counts: Counts | None = None
    total: int | None = None
    phase: str | None = None
    acknowledged: Intent | None = None
    question: str | None = None
    throttled_s: float = 0.0
    throttles: int = 0
    item_bytes: int = 0
    tracks: dict[str, TrackPoint] = field(default_factory=dict[str, TrackPoint])
    checkpoints: dict[str, bytes] = field(default_factory=dict[str, bytes])
    meta: dict[str, bytes] = field(default_factory=dict[str, bytes])
    steps: list[StepReport] = field(default_factory=list[StepReport])
    items: list[ItemReport] = field(default_factory=list[ItemReport])
    anything: bool = False

    def add_counts(self, counts: Counts) -> None:
        """Adds increments."""
        self.counts = counts if self.counts is None else _sum(self.counts, counts)

    def add_items(self, items: Iterable[ItemReport]) -> None:
        """Adds outcomes for the ledger; what they count for is added apart."""
        for item in items:
            self.items.append(item)
            self.item_bytes += bytes_of(item)

    def take(self, job: str, worker: str, incarnation: int) -> Report:
        """The next report. What does not fit stays; counts always go first."""
        report = Report(
            job,
            worker,
            incarnation,
            counts=self.counts,
            total=self.total,
            tracks=self.tracks,
            checkpoints=_first(self.checkpoints),
            phase=self.phase,
            steps=self._first_steps(),
            items=tuple(self.items),
            meta=_first(self.meta),
            throttled_s=self.throttled_s,
            throttles=self.throttles,
            acknowledged=self.acknowledged,
            question=self.question,
        )
        self._forget(report)
        return report

    def _first_steps(self) -> tuple[StepReport, ...]:
        places = {str(place): step.data for place, step in enumerate(self.steps[:MAX_STEPS])}
        return tuple(self.steps[: len(_first(places, MAX_STEPS))])

    def _forget(self, report: Report) -> None:
        self.counts, self.total, self.phase, self.acknowledged, self.question = None, None, None, None, None
        self.throttled_s, self.throttles = 0.0, 0
        self.items, self.item_bytes = [], 0
        self.steps = self.steps[len(report.steps) :]
        self.tracks = {}
        self.checkpoints = {name: data for name, data in self.checkpoints.items() if name not in report.checkpoints}
        self.meta = {name: data for name, data in self.meta.items() if name not in report.meta}
        self.anything = bool(self.steps or self.checkpoints or self.meta)

    def copied(self) -> "Pending":
        """A copy whose lists and dicts are its own."""
        twin = copy(self)
        twin.tracks, twin.checkpoints, twin.meta = dict(self.tracks), dict(self.checkpoints), dict(self.meta)
        twin.steps, twin.items = list(self.steps), list(self.items)
        return twin


Piece = Callable[[Pending], None]


@dataclass(slots=True, eq=False, repr=False)
class Book:
    """What is merged, and the pieces said since. `earlier` reports are full; what follows them waits for them.

    So each report is what was said up to some piece, whole pieces alone: counts, positions and items that belong
    together are stored by one commit.
    """

    pending: Pending = field(default_factory=Pending)
    pieces: list[Piece] = field(default_factory=list[Piece])
    earlier: tuple[Pending, ...] = ()

    def merged(self) -> "Book":
        """The same words in a new book without loose pieces; this one stays as it is."""
        pending, earlier = self.pending.copied(), list(self.earlier)
        for piece in self.pieces:
            if len(pending.items) >= FULL_ITEMS or pending.item_bytes >= FULL_ITEM_BYTES:
                earlier.append(pending)
                pending = Pending()
            piece(pending)
            pending.anything = True
        return Book(pending, earlier=tuple(earlier))

    @property
    def anything(self) -> bool:
        """Whether there is something merged to say."""
        return bool(self.earlier) or self.pending.anything

    def take(self, job: str, worker: str, incarnation: int) -> Report:
        """The next report."""
        first = self.earlier[0] if self.earlier else self.pending
        report = first.take(job, worker, incarnation)
        if self.earlier and not first.anything:
            self.earlier = self.earlier[1:]
        return report


def counts_alone(report: Report) -> Report:
    """The report without the user's data: what is left when that was too large to take."""
    return Report(
        report.job,
        report.worker,
        report.incarnation,
        counts=report.counts,
        total=report.total,
        tracks=report.tracks,
        phase=report.phase,
        items=report.items,
        throttled_s=report.throttled_s,
        throttles=report.throttles,
        acknowledged=report.acknowledged,
        question=report.question,
    )


def data_alone(report: Report) -> Iterator[tuple[str, Report]]:
    """Each value of the report's data as a report of its own, under the name by which a waiter knows it."""
    member = (report.job, report.worker, report.incarnation)
    for name, packed in report.checkpoints.items():
        yield f"checkpoint {name}", Report(*member, checkpoints={name: packed})
    for name, packed in report.meta.items():
        yield f"meta {name}", Report(*member, meta={name: packed})
    for step in report.steps:
        yield f"step {step.name}", Report(*member, steps=(step,))


def rows_of(report: Report) -> int:
    """How many rows the report counts, or retries."""
    return rows_in(report.counts) + sum([item.retried for item in report.items])


def rows_in(counts: Counts | None) -> int:
    """How many rows are counted."""
    return counts.succeeded + counts.failed + counts.skipped + counts.duplicates if counts else 0


def _sum(one: Counts, other: Counts) -> Counts:
    by_category = dict(one.by_category)
    for category, count in other.by_category.items():
        name = category if category in by_category or len(by_category) < MAX_NAMES - 1 else "other"
        by_category[name] = by_category.get(name, 0) + count
    return Counts(
        one.succeeded + other.succeeded,
        one.failed + other.failed,
        one.skipped + other.skipped,
        one.duplicates + other.duplicates,
        one.bytes + other.bytes,
        by_category,
    )


def _first(named: dict[str, bytes], most: int = MAX_NAMES) -> dict[str, bytes]:
    taken: dict[str, bytes] = {}
    size = 0
    for name, value in islice(named.items(), most):
        size += len(value)
        if taken and size > MAX_REPORT_BYTES:
            break
        taken[name] = value
    return taken
