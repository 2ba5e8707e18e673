"""Replies and facts: what the writer answers, publishes and stores."""

from datetime import datetime
from typing import Annotated

from msgspec import Meta, Raw, Struct

from actorstate.core.messages.document import Document, Health, Intent, Progress, Status
from actorstate.core.messages.requests import StoredRequest


class Applied(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, tag=True):
    """The change is durable as `revision`, or had been before.

    `incarnation` is the last one that the job gave out: `Attach` gets its own.
    """

    revision: int
    incarnation: int = 0


class Beaten(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, tag=True):
    """The heartbeat was heard. Nothing was stored."""


class Found(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, tag=True):
    """The committed document, as encoded bytes, and beside it seconds since each worker's last beat."""

    document: Raw
    last_beat_s: dict[str, float] = {}


class NotModified(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, tag=True):
    """The reader's revision is the newest."""

    revision: int


class Listed(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, tag=True):
    """A page of documents; `after` is where the next one begins, empty at the end.

    `damaged` are the ids of those jobs of the page that cannot be read: with the documents at most its `limit`.
    """

    documents: list[Raw]
    after: str = ""
    damaged: list[str] = []


class ItemsListed(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, tag=True):
    """A page of items; `damaged` are keys of those that cannot be read, `after` is where the next page begins."""

    items: list[Raw]
    damaged: list[str] = []
    after: str = ""


class HistoryEntry(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One change: `what` is the name of the request, `who` the worker or person that it came from.

    `status` and `progress` (without its categories) are those that it led to, where they were asked for.
    """

    revision: int
    epoch: int
    at: datetime
    what: str
    who: str
    summary: str
    status: Status | None = None
    progress: Progress | None = None


class HistoryPage(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, tag=True):
    """Changes of one job in the order that was asked for; `more` says whether there are further ones."""

    entries: list[HistoryEntry]
    more: bool = False


def found(packed: bytes, last_beat_s: dict[str, float]) -> Found:
    """A reply around a document's committed bytes: they are sent as they are."""
    return Found(Raw(packed), last_beat_s)


def listed(packed: list[bytes], damaged: list[str], after: str) -> Listed:
    """The same for a page of documents."""
    return Listed([Raw(each) for each in packed], after, damaged)


def items_listed(packed: list[bytes], damaged: list[str], after: str) -> ItemsListed:
    """The same for a page of items."""
    return ItemsListed([Raw(each) for each in packed], damaged, after)


def size_of(answer: Found | Listed | ItemsListed) -> int:
    """Bytes of the documents or items in a reply."""
    if isinstance(answer, Found):
        return memoryview(answer.document).nbytes
    return sum(memoryview(each).nbytes for each in (answer.documents if isinstance(answer, Listed) else answer.items))


class WriterState(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, tag=True):
    """The writer about itself; times in seconds. `disk_full` until a commit succeeds again."""

    pid: int
    version: str
    epoch: int
    uptime_s: float
    commits: int
    changes: int
    reads: int
    resident: int
    waiting: int
    workers: int
    expired: int
    undelivered: int
    sync_s: float
    beside: bool
    disk_full: bool
    refusals: dict[str, int]


Numbers = Annotated[dict[str, int], Meta(max_length=256)]
"""By a name of ours (an error's code, a request, an event, a status), so there are never many."""


class Histogram(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """How many values were at most each of `bounds`, and above the one before; the last count is of those above all."""

    bounds: Annotated[tuple[float, ...], Meta(max_length=32)]
    counts: Annotated[tuple[int, ...], Meta(max_length=33)]
    sum: float


class Metrics(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, tag=True):
    """What the writer counted since its start, and what it finds just now. Times in seconds.

    `events` are named as in its log. `jobs` are by status, `health` those with workers. `feed_lag_s` is the time from
    the end of a commit to the news of it on the feed, which has `feed_topics` while somebody listens. `answered_again`
    are requests that were applied before, and got the same answer again.
    """

    state: WriterState
    started_at: datetime
    requests: Numbers
    events: Numbers
    jobs: Numbers
    health: Numbers
    changes: Histogram
    commit_s: Histogram
    sync_s: Histogram
    feed_lag_s: Histogram
    feed_topics: int
    most_waiting: int
    answered_again: int
    damaged: int
    store_bytes: int
    free_bytes: int


class Refused(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, tag=True):
    """A typed error (`errors.py`), in its wire form."""

    code: str
    message: str
    hint: str = ""
    details: dict[str, str | int | float | bool | None] = {}


Answer = Applied | Beaten | Found | NotModified | Listed | ItemsListed | HistoryPage | WriterState | Metrics | Refused


class Reply(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The answer to request `id`, from the writer of `epoch`.

    `intent` is what the job's workers should do, `asked` the revision at which somebody asked for it;
    `waiting` while a question is open, and `rows_per_s` is this worker's share of a throttle.
    """

    id: int
    epoch: int
    answer: Answer
    intent: Intent | None = None
    asked: int = 0
    waiting: bool = False
    rows_per_s: float | None = None


class JobsChanged(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """On the change feed, after a commit: these jobs are now at these revisions. A gap in `sequence` is a loss.

    Without jobs it is a beat: `sequence` is that of the last commit, so that its loss is seen as well. One
    comes each second while somebody subscribes, and for each new subscriber.
    """

    epoch: int
    sequence: int
    jobs: dict[str, int] = {}


class WorkerJudged(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, tag=True):
    """The writer's own finding about a worker's health; never accepted from the wire."""

    job: str
    worker: str
    incarnation: int
    health: Health


class JobExpired(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, tag=True):
    """The writer's own finding that the time of a job that ended at `finished_at` is over; never from the wire."""

    job: str
    finished_at: datetime


class JobRestored(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, tag=True):
    """What the writer makes of `RestoreJob`: with the older state itself, so that a replay needs nothing else."""

    job: str
    state: Document
    by: str = ""


Finding = WorkerJudged | JobExpired
ChangeBody = StoredRequest | JobRestored | Finding


class Taken(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Failures that a retry takes out of the counts."""

    failed: int
    by_category: dict[str, int]


class Change(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One stored change: applied to revision - 1 it gives revision, on every replay the same.

    `elapsed_s` is the monotonic time since the job's previous change; `producer`, `id` and `acked` make
    the exactly-once record of the same commit. `taken` is what the ledger took back of the counts, and
    `retrying` how many more of its items are to be done once more, or, below zero, how many fewer.
    """

    revision: int
    epoch: int
    at: datetime
    body: ChangeBody
    elapsed_s: float = 0.0
    producer: bytes = b""
    id: int = 0
    acked: int = 0
    taken: Taken | None = None
    retrying: int = 0


class Receipt(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What one producer was told: all below `floor` is answered, `replies` are those at or above it.

    A number above `highest` is new without a look. What was sent before `born_at` may be older than the
    receipt: the producer may have been forgotten in between.
    """

    born_at: datetime
    seen_at: datetime
    floor: int = 0
    highest: int = 0
    replies: dict[int, Applied] = {}


class Keyframe(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """All of a job at one revision. Without a document it is a deleted job's tombstone.

    A producer that is not in `receipts` was never recorded, or forgotten before `forgotten_until`.
    `original` is the JSON text that the job was adopted from (`store/jsonfiles`), so that no field of it is lost.
    """

    revision: int
    document: Document | None
    receipts: dict[bytes, Receipt] = {}
    forgotten_until: datetime | None = None
    original: bytes = b""
