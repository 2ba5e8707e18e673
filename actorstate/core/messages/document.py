"""The job document: what readers see. It holds nothing that depends on the present moment.

User data stays packed (`packed`); the properties `data` and `meta` unpack it. Times are aware UTC
datetimes, a msgpack timestamp on the wire. Only `core/job.py` makes new documents.
"""

from datetime import datetime
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta, Struct

from actorstate.core.messages.payload import unpack

Status = Literal["pending", "running", "waiting", "paused", "completed", "failed", "cancelled"]
Health = Literal["healthy", "late", "stalled", "dead", "paused"]
Intent = Literal["pause", "resume", "cancel"]
IntentState = Literal["requested", "acknowledged", "done"]
ItemOutcome = Literal["failed", "skipped", "duplicate", "succeeded", "retrying"]
OnDead = Literal["nothing", "fail", "free"]
Age = Annotated[float, Meta(ge=0.001, le=1e9)]
"""A time span in seconds, from a millisecond to 31 years."""
Speed = Annotated[float, Meta(ge=0.001, le=1e9)]
"""Rows per second; less than a row in 1,000 s is a pause."""

SCHEMA = 1


class Progress(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Counts of rows; `processed` is the sum of the outcomes, always.

    `retrying` items of the ledger were taken out of the counts, to be done once more.
    """

    total: int | None = None
    processed: int = 0
    succeeded: int = 0
    failed: int = 0
    skipped: int = 0
    duplicates: int = 0
    bytes: int = 0
    unit: str = "rows"
    by_category: dict[str, int] = {}
    retrying: int = 0

    @property
    def percent(self) -> float | None:
        """0 to 100, or None while the total is unknown."""
        if self.total is None:
            return None
        return min(100.0, 100.0 * self.processed / self.total) if self.total else 100.0


class Rate(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Rows per second of active time (s) over a window; `eta` is an absolute time, or None."""

    per_s: float | None = None
    window_s: float = 0.0
    eta: datetime | None = None
    eta_low: datetime | None = None
    eta_high: datetime | None = None
    active_s: float = 0.0
    paused_s: float = 0.0
    throttled_s: float = 0.0
    throttles: int = 0
    samples: tuple[tuple[float, int], ...] = ()


class Worker(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One attached worker; `boot` and `started` (clock ticks) tell its process from a later one of the same pid."""

    incarnation: int
    host: str
    pid: int
    attached_at: datetime
    boot: str = ""
    started: int = 0
    health: Health = "healthy"
    last_progress: datetime | None = None
    acknowledged: Intent | None = None
    exclusive: bool = False


class Checkpoint(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A job's resume point."""

    packed: bytes
    at: datetime
    revision: int

    @property
    def data(self) -> object:
        """What the worker saved."""
        return unpack(self.packed)


class Track(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """`done` rows need not be seen again; rows up to `counted` are counted. `worker` runs it now, if any.

    A track by key has the keys of those two rows as well, packed.
    """

    counted: int = 0
    done: int = 0
    counted_key: bytes = b""
    done_key: bytes = b""
    worker: str = ""
    incarnation: int = 0


class Step(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A named part of the job, in the order in which it was first reported."""

    name: str
    status: Literal["running", "done", "failed", "skipped"]
    started_at: datetime
    ended_at: datetime | None = None
    packed: bytes = b""

    @property
    def data(self) -> object:
        """Details that the worker gave."""
        return unpack(self.packed) if self.packed else None


class RowError(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One row's failure, as in the tail of errors."""

    key: str
    message: str
    category: str
    at: datetime


class ItemState(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What became of one item, in the ledger beside the job.

    `attempts` is how often an outcome was said of it; category and error are those of its last failure.
    """

    key: str
    outcome: ItemOutcome
    first_at: datetime
    last_at: datetime
    category: str = ""
    attempts: int = 1
    error: str = ""


class Control(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The last control intent and how far it got; `asked` is the revision that it came with."""

    intent: Intent
    at: datetime
    state: IntentState = "requested"
    by: str = ""
    asked: int = 0


class Recovered(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The job was taken back to what it was at `from_revision`; what came after, up to `lost_up_to`, is not in it."""

    from_revision: int
    lost_up_to: int
    at: datetime


class HealthRules(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """When this job's workers are late, dead or stalled (None: as the writer has it), and what a death does.

    `fail` ends a running job as failed once its last live worker is dead; `free` detaches the dead, so that
    their tracks and an exclusive seat are free. Where the job is paused or waits, `fail` only frees.
    """

    late_after_s: Age | None = None
    dead_after_s: Age | None = None
    stalled_after_s: Age | None = None
    on_dead: OnDead = "nothing"


class Attempt(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One that has ended, as it was at its end; `retried_by` asked for the next one."""

    number: int
    outcome: Status
    started_at: datetime | None = None
    ended_at: datetime | None = None
    reason: str | None = None
    progress: Progress = Progress()
    retried_by: str = ""


class Approval(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A question that people must answer before the job goes on; `by` is the worker that asked, "" at creation."""

    question: str
    asked_at: datetime
    by: str = ""
    approved_at: datetime | None = None
    approved_by: str = ""


class Throttle(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A limit from outside for all workers of the job together, in rows a second."""

    rows_per_s: Speed
    at: datetime
    by: str = ""


class Document(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A job. `revision` rises by one with each change; readers order states by (epoch, revision)."""

    id: str
    kind: str
    status: Status
    revision: int
    epoch: int
    created_at: datetime
    updated_at: datetime
    schema: int = SCHEMA
    labels: dict[str, str] = {}
    phase: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    reason: str | None = None
    progress: Progress = Progress()
    rate: Rate = Rate()
    workers: dict[str, Worker] = {}
    incarnations: int = 0
    health: Health | None = None
    checkpoints: dict[str, Checkpoint] = {}
    tracks: dict[str, Track] = {}
    steps: tuple[Step, ...] = ()
    control: Control | None = None
    errors: tuple[RowError, ...] = ()
    error_count: int = 0
    recovered: Recovered | None = None
    packed_meta: dict[str, bytes] = msgspec.field(default_factory=dict[str, bytes], name="meta")
    unique_key: str | None = None
    expire_after_s: float | None = None
    expires_at: datetime | None = None
    health_rules: HealthRules = HealthRules()
    attempt: int = 1
    attempts: tuple[Attempt, ...] = ()
    question: str | None = None
    approvals: tuple[Approval, ...] = ()
    throttle: Throttle | None = None

    @property
    def approval(self) -> Approval | None:
        """The question that was asked last, answered or not."""
        return self.approvals[-1] if self.approvals else None

    @property
    def awaits_approval(self) -> bool:
        """Whether a question is open; its workers then stop at their next row."""
        return bool(self.approvals) and self.approvals[-1].approved_at is None

    @property
    def meta(self) -> dict[str, object]:
        """The job's own key-value data, merged by key."""
        return {key: unpack(value) for key, value in self.packed_meta.items()}

    @property
    def finished(self) -> bool:
        """Whether the status is terminal: completed, failed or cancelled."""
        return self.status in TERMINAL


class JobState(Document, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A job as a reader gets it: `last_beat_s` is beside the document, seconds since each worker's last beat."""

    last_beat_s: dict[str, float] = {}


TERMINAL: frozenset[Status] = frozenset({"completed", "failed", "cancelled"})


class Order(NamedTuple):
    """What a worker is told with every reply: an intent and the revision that asked for it, whether a question
    is open, and its share of a throttle in rows a second.
    """

    intent: Intent | None = None
    asked: int = 0
    waiting: bool = False
    rows_per_s: float | None = None


NOTHING = Order()


def order_of(document: Document | None) -> Order:
    """The order to each of the job's workers; a resumption is told until all have heard of it."""
    if document is None:
        return NOTHING
    control, throttle = document.control, document.throttle
    if control is None or (control.intent == "resume" and control.state == "done"):
        intent, asked = None, 0
    else:
        intent, asked = control.intent, control.asked
    share = None
    if throttle is not None:
        share = throttle.rows_per_s / max(1, sum(worker.health != "dead" for worker in document.workers.values()))
    return Order(intent, asked, document.awaits_approval, share)
