"""Requests: what clients ask for, in the imperative. Each is a msgpack map with its name under `type`."""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct
from msgspec.structs import replace

from actorstate.core.messages.document import Age, HealthRules, Intent, ItemOutcome, Speed

JOB_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}\Z"
JobId = Annotated[str, Meta(pattern=JOB_ID_PATTERN)]
Name = Annotated[str, Meta(min_length=1, max_length=128)]
Text = Annotated[str, Meta(max_length=2000)]
MAX_COUNT = 2**53
"""Counters stay exact in JSON readers; a report beyond it is refused with `TooLarge`."""
Count = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
Seconds = Annotated[float, Meta(ge=0, le=1e9)]
ItemKey = Annotated[str, Meta(max_length=256)]
Packed = Annotated[bytes, Meta(max_length=256 * 1024)]
Categories = Annotated[dict[Name, Count], Meta(max_length=64)]
Meta_ = Annotated[dict[Name, Packed], Meta(max_length=64)]


class Get(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, tag=True):
    """The job's committed state; with `newer_than`, `NotModified` unless its revision is higher.

    With `wait_s` the answer is held back until it is, at most that long.
    """

    job: JobId
    newer_than: Count | None = None
    wait_s: Annotated[float, Meta(ge=0, le=60)] = 0.0


class ListJobs(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, tag=True):
    """A page of jobs in the order of their ids, or the newest first, beginning after the id `after`."""

    status: str | None = None
    kind: str | None = None
    health: str | None = None
    after: Annotated[str, Meta(max_length=128)] = ""
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    newest: bool = False


class ListItems(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, tag=True):
    """A page of a job's item ledger in the order of the keys, beginning after the key `after`."""

    job: JobId
    outcome: ItemOutcome | None = None
    category: Annotated[str, Meta(max_length=128)] | None = None
    after: Annotated[str, Meta(max_length=2048)] = ""
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class Ask(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, tag=True):
    """The writer's own state, for `actorstate doctor`."""


class ReadMetrics(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, tag=True):
    """All that the writer has counted since its start, for `/metrics`."""


Revision = Annotated[int, Meta(ge=1, le=2**53)]
Time = Annotated[datetime, Meta(tz=True)]


class GetAt(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, tag=True):
    """The job's state as it was at `revision`, or at the last one made at or before `at`: exactly one is given."""

    job: JobId
    revision: Revision | None = None
    at: Time | None = None


class ReadHistory(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, tag=True):
    """A page of the job's changes above revision `after`; with `newest` those below `before`, the newest first.

    With `states` each comes with the status and the counts that it led to.
    """

    job: JobId
    after: Count = 0
    before: Revision | None = None
    newest: bool = False
    states: bool = False
    limit: Annotated[int, Meta(ge=1, le=500)] = 100


class Heartbeat(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, tag=True):
    """This worker lives. Acknowledged from memory; brings control intents back."""

    job: JobId
    worker: Name
    incarnation: Count


class CreateJob(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, tag=True):
    """Create the job, or return the one that has this id and kind.

    `unique_key` is held until the job is terminal: no other job may have it meanwhile. With a `question` the
    job waits for an approval before it begins. `expire_after_s` is counted from its end.
    """

    job: JobId
    kind: Name = "job"
    total: Count | None = None
    unit: Name = "rows"
    labels: Annotated[dict[Name, Text], Meta(max_length=64)] = {}
    meta: Meta_ = {}
    unique_key: Name | None = None
    health_rules: HealthRules = HealthRules()
    expire_after_s: Age | None = None
    question: Text | None = None


class Attach(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, tag=True):
    """Become one of the job's workers. The reply's incarnation goes with all that this worker says.

    A worker of the same name is replaced and fenced. `exclusive` is refused while another one lives,
    unless `take_over` fences it.
    """

    job: JobId
    worker: Name
    host: Name
    pid: Count
    boot: Annotated[str, Meta(max_length=128)] = ""
    started: Count = 0
    exclusive: bool = False
    take_over: bool = False


class Detach(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, tag=True):
    """Leave the job as it is."""

    job: JobId
    worker: Name
    incarnation: Count


class Counts(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Increments since the worker's last report."""

    succeeded: Count = 0
    failed: Count = 0
    skipped: Count = 0
    duplicates: Count = 0
    bytes: Count = 0
    by_category: Categories = {}


class TrackPoint(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A track's position: rows counted so far, rows that need not be seen again, whether it runs on."""

    counted: Count
    done: Count
    counted_key: Annotated[bytes, Meta(max_length=256)] = b""
    done_key: Annotated[bytes, Meta(max_length=256)] = b""
    live: bool = True


class StepReport(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A step began or ended."""

    name: Name
    status: Literal["running", "done", "failed", "skipped"]
    data: Packed = b""


class ItemReport(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What became of one item. One without a key is in no ledger, only in the job's tail of errors.

    What is `retried` counts by itself, once, and only while the ledger has the item as retrying; all else is
    counted in the report's `counts`.
    """

    key: ItemKey
    outcome: Literal["failed", "skipped", "duplicate", "succeeded"]
    category: Annotated[str, Meta(max_length=128)] = ""
    error: Text = ""
    retried: bool = False


class ErrorReport(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One row failed, as a stored report has it; a worker says it as an `ItemReport`."""

    key: Annotated[str, Meta(max_length=256)]
    message: Text
    category: Name = "unknown"


class Report(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, tag=True):
    """All that a worker has to say since its last report; applied whole, as one change."""

    job: JobId
    worker: Name
    incarnation: Count
    counts: Counts | None = None
    total: Count | None = None
    tracks: Annotated[dict[Name, TrackPoint], Meta(max_length=1_000)] = {}
    checkpoints: Annotated[dict[Name, Packed], Meta(max_length=64)] = {}
    phase: Text | None = None
    steps: Annotated[tuple[StepReport, ...], Meta(max_length=256)] = ()
    errors: Annotated[tuple[ErrorReport, ...], Meta(max_length=50)] = ()
    error_count: Count = 0
    meta: Meta_ = {}
    throttled_s: Seconds = 0.0
    throttles: Count = 0
    acknowledged: Intent | None = None
    question: Text | None = None
    items: Annotated[tuple[ItemReport, ...], Meta(max_length=1_000)] = ()


class FinishJob(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, tag=True):
    """End the job. With a worker, it is fenced like a report and detached by it."""

    job: JobId
    status: Literal["completed", "failed"]
    reason: Text | None = None
    worker: Annotated[str, Meta(max_length=128)] = ""
    incarnation: Count = 0


class ControlJob(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, tag=True):
    """Ask for a pause, a resumption or the end of the job; its workers learn of it with their next reply."""

    job: JobId
    intent: Intent
    by: Annotated[str, Meta(max_length=128)] = ""


class RetryItems(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, tag=True):
    """Those of the items that have failed are taken out of the counts, to be done once more."""

    job: JobId
    keys: Annotated[tuple[ItemKey, ...], Meta(max_length=1_000)] = ()


class DeleteJob(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, tag=True):
    """Remove a job that no living worker is attached to. Its number of revisions stays remembered."""

    job: JobId


class RestoreJob(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, tag=True):
    """Bring the job's work back as `GetAt` would show it; what the writer stores of it is `JobRestored`."""

    job: JobId
    revision: Revision | None = None
    at: Time | None = None
    by: Annotated[str, Meta(max_length=128)] = ""


class RetryJob(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, tag=True):
    """Open a new attempt of a job that has ended, from its checkpoint or, with nothing counted, `from_start`."""

    job: JobId
    from_start: bool = False
    by: Annotated[str, Meta(max_length=128)] = ""


class ApproveJob(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, tag=True):
    """Answer the open question with yes; refused when that is not `question` (None: whichever it is)."""

    job: JobId
    question: Text | None = None
    by: Annotated[str, Meta(max_length=128)] = ""


class ThrottleJob(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, tag=True):
    """Limit all workers of the job together to so many rows a second; None lifts the limit."""

    job: JobId
    rows_per_s: Speed | None = None
    by: Annotated[str, Meta(max_length=128)] = ""


ReadRequest = Get | ListJobs | ListItems | Ask | ReadMetrics
PastRequest = GetAt | ReadHistory
Recalling = PastRequest | RestoreJob
StoredRequest = (
    CreateJob
    | Attach
    | Detach
    | Report
    | RetryItems
    | FinishJob
    | ControlJob
    | DeleteJob
    | RetryJob
    | ApproveJob
    | ThrottleJob
)
"""Those that are stored as they came."""
ChangeRequest = StoredRequest | RestoreJob
Body = ReadRequest | PastRequest | Heartbeat | ChangeRequest


class Request(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The envelope on the wire.

    `expires_at` is CLOCK_MONOTONIC in seconds of the boot `boot`; for a writer of another boot `ttl_s`
    counts from arrival (0: no deadline). An expired request is dropped: its sender has given up.
    `sent_ago_s` is the time since this number was first sent, 0 for the first attempt.
    """

    id: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    body: Body
    producer: Annotated[bytes, Meta(max_length=16)] = b""
    acked: Count = 0
    sent_ago_s: Seconds = 0.0
    boot: Annotated[str, Meta(max_length=128)] = ""
    expires_at: Annotated[float, Meta(ge=0)] = 0.0
    ttl_s: Seconds = 0.0


class Numbered(Struct, frozen=True):
    """What is looked for in a request that is wrong in itself."""

    id: Annotated[int, Meta(ge=1, le=2**63 - 1)]


def expiring(request: Request, body: CreateJob, after_s: float | None) -> Request:
    """The request for a job that expires `after_s` its end, unless it says so itself. It is stored with the job."""
    if after_s is None or body.expire_after_s is not None:
        return request
    return replace(request, body=replace(body, expire_after_s=after_s))
