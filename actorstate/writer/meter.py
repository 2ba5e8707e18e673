"""What the writer counts about itself, from its start on. Nothing is counted a second time anywhere else.

What is rare is heard through the seam (`telemetry`), under the names that the log has too. A listener on each
message's way would be two functions more to follow, and to pay for: there the loop adds to `requests`, and puts
each commit into `made` and each delay of the feed into `lags`, which `fold` takes into the histograms once a second.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from actorstate import telemetry
from actorstate.core.messages.document import Document
from actorstate.core.messages.replies import Histogram
from actorstate.errors import CorruptJob, ForeignEdit

SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
CHANGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
MAX_DAMAGED = 10_000
"""Names of damaged jobs in memory; further ones are in the log, and not in the gauge."""

Made = tuple[int, float, float]
"""One commit: its changes, the time that it took, and how much of that was the disk's, in seconds. A plain tuple,
since one is made for each commit."""
REFUSED = "request.refused"
EVENTS = (
    "actor.failed",
    "actor.lost",
    "commit.refused",
    "epoch.damaged",
    "expiry.failed",
    "history.forgotten",
    "history.kept",
    "list.left_out",
    "recall.failed",
    "recovery.failed",
    "reply.undelivered",
    "store.damage_found",
    "store.foreign_edit",
    "store.job_recovered",
    "store.parse_failed",
    "store.quarantined",
    "store.second_copy_made",
    "store.second_copy_used",
)
"""Each counts once, or `number` times where it has such a field."""


class Tally:
    """A histogram that grows."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds, self._counts, self._sum = tuple(bounds), [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        """One more value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def told(self) -> Histogram:
        """Its wire form."""
        return Histogram(self._bounds, tuple(self._counts), self._sum)


@dataclass(slots=True)
class Census:
    """Jobs by status, and those with workers by health: counted in the store once, then kept with each commit."""

    jobs: Counter[str]
    health: Counter[str]

    def follow(self, before: Document | None, after: Document | None) -> None:
        """A job was listed anew."""
        for document, step in ((before, -1), (after, 1)):
            if document is not None:
                self.jobs[document.status] += step
                if document.health:
                    self.health[document.health] += step


@dataclass(slots=True)
class Meter:
    """One writer's counters. `made` and `lags` hold what came since the last tick, so they stay small.

    `topics` are those of the change feed that somebody listens to.
    """

    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    requests: Counter[type] = field(default_factory=Counter[type])
    made: list[Made] = field(default_factory=list[Made])
    lags: list[float] = field(default_factory=list[float])
    topics: set[bytes] = field(default_factory=set[bytes])
    expired: int = 0
    most_waiting: int = 0
    events: Counter[str] = field(default_factory=Counter[str])
    refusals: Counter[str] = field(default_factory=Counter[str])
    damaged: set[str] = field(default_factory=set[str])
    census: Census | None = None
    commits: int = 0
    changes: int = 0
    changes_made: Tally = field(default_factory=lambda: Tally(CHANGES))
    commit_s: Tally = field(default_factory=lambda: Tally(SECONDS))
    sync_s: Tally = field(default_factory=lambda: Tally(SECONDS))
    feed_lag_s: Tally = field(default_factory=lambda: Tally(SECONDS))

    @contextmanager
    def listening(self) -> Generator[None]:
        """Counts what is told through the seam while the block is open."""
        stop = telemetry.listen(self._hear, REFUSED, *EVENTS)
        try:
            yield
        finally:
            stop()

    def asked(self) -> dict[str, int]:
        """Requests by kind."""
        return {kind.__name__: number for kind, number in self.requests.items()}

    def fold(self) -> None:
        """Takes what came on the messages' way into the histograms."""
        for changes, took_s, sync_s in self.made:
            self.changes_made.add(changes)
            self.commit_s.add(took_s)
            self.sync_s.add(sync_s)
            self.changes += changes
        for lag_s in self.lags:
            self.feed_lag_s.add(lag_s)
        self.commits += len(self.made)
        self.made.clear()
        self.lags.clear()

    def _hear(self, name: str, fields: dict[str, object]) -> None:
        error, number = fields.get("error"), fields.get("number", 1)
        if name == REFUSED:
            self.refusals[str(fields["code"])] += 1
        elif isinstance(number, int):
            self.events[name] += number
        if isinstance(error, CorruptJob) and not (name == REFUSED and isinstance(error, ForeignEdit)):
            self._note_damaged(error)

    def _note_damaged(self, error: CorruptJob) -> None:
        """Not for a refusal of a file that somebody else put there: that is no job of ours."""
        if "job" in error.details and len(self.damaged) < MAX_DAMAGED:
            self.damaged.add(str(error.details["job"]))
