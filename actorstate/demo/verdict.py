"""The verdict: what was expected, what was found, and whether every one of the promises held. Pure."""

import signal
from dataclasses import asdict, dataclass

from actorstate.migrate.sqlitefiles.tables import Skipped


@dataclass(frozen=True, slots=True)
class TableFound:
    """One table afterwards: rows in the source, rows in the target, and whether each has the same content."""

    name: str
    expected: int
    found: int
    same: bool

    @property
    def ok(self) -> bool:
        """Whether every row is there exactly once, as it was."""
        return self.expected == self.found and self.same


@dataclass(frozen=True, slots=True)
class Kill:
    """One SIGKILL of the writer.

    What readers had been told by then, how long before it the last change was committed, and how long
    it took until the next writer was ready.
    """

    pid: int
    status: int
    processed: int
    workers: int
    since_report_s: float
    away_s: float


@dataclass(frozen=True, slots=True)
class Updates:
    """Rows that the workers counted, those that were acknowledged to them, those in the job's final state."""

    sent: int
    acknowledged: int
    applied: int


@dataclass(frozen=True, slots=True)
class Reads:
    """The findings of all readers together; `longest_s` is the one read that took longest."""

    reads: int = 0
    per_s: float = 0.0
    longest_s: float = 0.0
    torn: int = 0
    backwards: int = 0
    revived: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the verdict."""

    name: str
    told: str
    ok: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """Everything that was found; `ok` is whether all `checks` are."""

    source: str
    tables: tuple[TableFound, ...]
    skipped: tuple[Skipped, ...]
    updates: Updates
    kills: tuple[Kill, ...]
    kills_wanted: int
    epochs: int
    status: str
    reads: Reads
    seconds: float

    @property
    def expected(self) -> int:
        """Rows in the source."""
        return sum(table.expected for table in self.tables)

    @property
    def found(self) -> int:
        """Rows in the target."""
        return sum(table.found for table in self.tables)

    @property
    def lost(self) -> int:
        """Updates that were sent, or acknowledged, and are not in the job."""
        return max(0, max(self.updates.sent, self.updates.acknowledged, self.expected) - self.updates.applied)

    @property
    def counted_twice(self) -> int:
        """Updates in the job beyond the rows that there are."""
        return max(0, self.updates.applied - self.expected)

    @property
    def ok(self) -> bool:
        """Whether all of it held."""
        return all(check.ok for check in self.checks())

    def checks(self) -> tuple[Check, ...]:
        """The lines of the verdict, in the order in which they are told."""
        return (*self._of_rows(), *self._of_updates(), *self._of_reads(), *self._of_the_writer())

    def as_json(self) -> dict[str, object]:
        """The same for machines."""
        facts = asdict(self)
        counts = {"expected": self.expected, "found": self.found}
        more = {
            "lost": self.lost,
            "counted_twice": self.counted_twice,
            "checks": [asdict(one) for one in self.checks()],
        }
        return {"ok": self.ok, **counts, **more, **facts}

    def _of_rows(self) -> tuple[Check, ...]:
        whole = sum(table.ok for table in self.tables)
        rows = f"{self.found:,} found of {self.expected:,} expected"
        tables = f"{whole} of {len(self.tables)} with every row exactly once, the same to the byte"
        return Check("rows", rows, self.found == self.expected), Check("tables", tables, whole == len(self.tables) > 0)

    def _of_updates(self) -> tuple[Check, ...]:
        told = self.updates
        return (
            Check("updates sent", f"{told.sent:,}", told.sent == self.expected),
            Check("acknowledged", f"{told.acknowledged:,}", told.acknowledged == told.sent),
            Check("applied", f"{told.applied:,}", told.applied == told.sent),
            _none("lost", self.lost),
            _none("counted twice", self.counted_twice),
        )

    def _of_reads(self) -> tuple[Check, ...]:
        reads = self.reads
        return (
            _none("torn reads", reads.torn),
            _none("revisions backwards", reads.backwards),
            _none("finished job revived", reads.revived),
            _none("reads without an answer", reads.failed),
            Check("reads per second", f"{reads.per_s:,.0f} ({reads.reads:,} reads)", reads.reads > 0),
            Check("longest read", f"{reads.longest_s:.2f} s (across a restart of the writer)", ok=True),
        )

    def _of_the_writer(self) -> tuple[Check, ...]:
        hit = sum(self._hit(kill) for kill in self.kills)
        told = f"{hit} of {self.kills_wanted} while workers were reporting"
        late_s = max((kill.since_report_s for kill in self.kills), default=0.0)
        away_s = max((kill.away_s for kill in self.kills), default=0.0)
        return (
            Check("writer killed", told, hit == self.kills_wanted == self.epochs - 1),
            Check("killed after a report by", f"{late_s:.3f} s at most", ok=True),
            Check("writer ready again in", f"{away_s:.2f} s at most", ok=True),
            Check("job", self.status, self.status == "completed"),
        )

    def _hit(self, kill: Kill) -> bool:
        """Whether it was a kill, and in the middle: workers were attached, and told of more rows afterwards."""
        return kill.status == -signal.SIGKILL and kill.workers > 0 and kill.processed < self.updates.applied


def _none(name: str, count: int) -> Check:
    return Check(name, f"{count:,}", count == 0)
