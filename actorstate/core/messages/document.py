"""The job document: what readers see. It holds nothing that depends on the present moment.

User data stays packed (`packed`); the properties `data` and `meta` unpack it. Times are aware UTC
datetimes, a msgpack timestamp on the wire. Only `core/job.py` makes new documents.
"""

from datetime import datetime
from typing import Literal

import msgspec
from msgspec import Struct

from actorstate.core.messages.payload import unpack

Status = Literal["pending", "running", "waiting", "paused", "completed", "failed", "cancelled"]
Health = Literal["healthy", "late", "stalled", "dead", "paused"]
Intent = Literal["pause", "resume", "cancel"]
IntentState = Literal["requested", "acknowledged", "done"]

SCHEMA = 1


class Progress(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Counts of rows; `processed` is the sum of the outcomes, always."""

    total: int | None = None
    processed: int = 0
    succeeded: int = 0
    failed: int = 0
    skipped: int = 0
    duplicates: int = 0
    bytes: int = 0
    unit: str = "rows"
    by_category: dict[str, int] = {}

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


Order = tuple[Intent | None, int]
"""What a job's workers should do, and the revision at which somebody asked for it; (None, 0): nothing special."""


def order_of(document: Document | None) -> Order:
    """What the job's workers are told with every reply: pause, resume (until all have heard it), or cancel."""
    control = document.control if document is not None else None
    if control is None or (control.intent == "resume" and control.state == "done"):
        return None, 0
    return control.intent, control.asked
