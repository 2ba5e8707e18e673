"""THE state machine: which status may follow which, and which requests a job accepts.

    pending ──▶ running ◀──▶ paused         completed, failed and cancelled are terminal:
       │           │▲           │           nothing leads out of them. An explicit retry or restore
       └──▶ waiting ┘└──────────┘           opens a new attempt (`core/attempts.py`) and keeps the old one.
    Every status that is not terminal may end as completed, failed or cancelled.

`decide` refuses with a typed error or says whether the request changes anything; what the change makes
of the document is in `core/evolve.py`. Both are pure.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from msgspec.structs import replace

from actorstate.core.messages.document import TERMINAL, Document, Status, Worker
from actorstate.core.messages.replies import ChangeBody, JobExpired, JobRestored, WorkerJudged
from actorstate.core.messages.requests import (
    MAX_COUNT,
    ApproveJob,
    Attach,
    ControlJob,
    Counts,
    CreateJob,
    DeleteJob,
    Detach,
    FinishJob,
    Heartbeat,
    Report,
    RetryItems,
    RetryJob,
    ThrottleJob,
)
from actorstate.errors import (
    AlreadyAttached,
    AlreadyTracked,
    Busy,
    Conflict,
    Fenced,
    IllegalTransition,
    JobFinished,
    JobNotFound,
    TooLarge,
)


def _to(*others: Status) -> frozenset[Status]:
    return TERMINAL.union(others)


TRANSITIONS: Mapping[Status, frozenset[Status]] = {
    "pending": _to("running", "waiting", "paused"),
    "running": _to("pending", "waiting", "paused"),
    "waiting": _to("pending", "running", "paused"),
    "paused": _to("pending", "running", "waiting"),
    "completed": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
}

MAX_WORKERS = 256
MAX_NAMES = 1_000
"""Names of checkpoints, tracks, steps and meta keys in one job; one more is refused with `TooLarge`."""
MAX_PACKED_BYTES = 1024 * 1024
"""All packed user data of one job; a report that would exceed it is refused with `TooLarge`."""


def move(document: Document, status: Status, at: datetime) -> Document:
    """The document in another status; raises IllegalTransition where the table has no such edge."""
    if status == document.status:
        return document
    if status not in TRANSITIONS[document.status]:
        raise IllegalTransition(f"job {document.id!r} cannot go from {document.status} to {status}", job=document.id)
    if status in TERMINAL:
        after_s = document.expire_after_s
        expires_at = None if after_s is None else at + timedelta(seconds=after_s)
        return replace(document, status=status, finished_at=at, expires_at=expires_at)
    return replace(document, status=status, started_at=document.started_at or (at if status == "running" else None))


def decide(document: Document | None, body: ChangeBody) -> bool:
    """Whether `body` changes this job; raises a RequestRefused when it may not."""
    if document is None:
        if isinstance(body, CreateJob):
            _check_size(body.job, body.meta)
            return True
        raise JobNotFound(f"there is no job {body.job!r}", job=body.job)
    return _DECIDERS[type(body)](document, body)


def check_worker(document: Document | None, body: Heartbeat | Report | Detach | FinishJob) -> Worker:
    """The worker that speaks; raises JobNotFound, JobFinished or Fenced."""
    if document is None:
        raise JobNotFound(f"there is no job {body.job!r}", job=body.job)
    _check_open(document)
    worker = document.workers.get(body.worker)
    if worker is None or worker.incarnation != body.incarnation:
        raise Fenced(
            f"worker {body.worker!r} (incarnation {body.incarnation}) is not attached to job {body.job!r} any more",
            job=body.job,
            worker=body.worker,
        )
    return worker


def is_live(worker: Worker) -> bool:
    """Whether others must still reckon with this worker."""
    return worker.health != "dead"


def _check_open(document: Document) -> None:
    if document.finished:
        raise JobFinished(f"job {document.id!r} is {document.status} and stays so", job=document.id)


def _decide_create(document: Document, body: CreateJob) -> bool:
    if document.kind != body.kind:
        raise Conflict(f"job {body.job!r} exists with kind {document.kind!r}, not {body.kind!r}", job=body.job)
    if body.unique_key is not None and body.unique_key != document.unique_key:
        told = f"job {body.job!r} exists with unique key {document.unique_key!r}, not {body.unique_key!r}"
        raise Conflict(told, job=body.job)
    return False


def _decide_attach(document: Document, body: Attach) -> bool:
    _check_open(document)
    others = {name: worker for name, worker in document.workers.items() if name != body.worker and is_live(worker)}
    if body.take_over:
        return True
    for name, worker in others.items():
        if body.exclusive or worker.exclusive:
            raise AlreadyAttached(
                f"worker {name!r} ({worker.health}, pid {worker.pid} on {worker.host}) is attached to {body.job!r}",
                job=body.job,
                holder=name,
                health=worker.health,
            )
    if len(others) >= MAX_WORKERS:
        raise Busy(f"job {body.job!r} has {MAX_WORKERS} live workers already", retry_after_s=1.0)
    return True


def _decide_detach(document: Document, body: Detach) -> bool:
    worker = document.workers.get(body.worker)
    return worker is not None and worker.incarnation == body.incarnation


def _decide_report(document: Document, body: Report) -> bool:
    worker = document.workers.get(body.worker)
    if document.status in TERMINAL or worker is None or worker.incarnation != body.incarnation:
        check_worker(document, body)
    counts = body.counts
    if counts is not None:
        added = counts.succeeded + counts.failed + counts.skipped + counts.duplicates
        if max(document.progress.processed + added, document.progress.bytes + counts.bytes) > MAX_COUNT:
            raise TooLarge(f"job {body.job!r} would count beyond {MAX_COUNT}")
        if counts.by_category:
            _check_categories(document, counts)
    if document.error_count + body.error_count > MAX_COUNT or document.rate.throttles + body.throttles > MAX_COUNT:
        raise TooLarge(f"job {body.job!r} would count beyond {MAX_COUNT}")
    if body.tracks or body.checkpoints or body.meta or body.steps:
        _check_names(document, body)
        _check_packed(document, body)
        for name in body.tracks:
            _check_track(document, name, body)
    return True


def _check_categories(document: Document, counts: Counts) -> None:
    if sum(document.progress.by_category.values()) + sum(counts.by_category.values()) > MAX_COUNT:
        raise TooLarge(f"job {document.id!r} would count failures beyond {MAX_COUNT}")


def _check_track(document: Document, name: str, body: Report) -> None:
    track = document.tracks.get(name)
    if track is None or not track.worker or (track.worker == body.worker and track.incarnation == body.incarnation):
        return
    holder = document.workers.get(track.worker)
    if holder is not None and holder.incarnation == track.incarnation and is_live(holder):
        raise AlreadyTracked(
            f"track {name!r} of job {body.job!r} is run by worker {track.worker!r}",
            job=body.job,
            holder=track.worker,
            health=holder.health,
        )


def _check_names(document: Document, body: Report) -> None:
    steps = {step.name for step in document.steps}
    for what, have, more in (
        ("checkpoints", document.checkpoints.keys(), body.checkpoints.keys()),
        ("tracks", document.tracks.keys(), body.tracks.keys()),
        ("steps", steps, {step.name for step in body.steps}),
        ("meta keys", document.packed_meta.keys(), body.meta.keys()),
    ):
        if more and len(have | more) > MAX_NAMES:
            raise TooLarge(f"job {body.job!r} would have more than {MAX_NAMES} {what}")


def _check_packed(document: Document, body: Report) -> None:
    kept = {name: checkpoint.packed for name, checkpoint in document.checkpoints.items()} | body.checkpoints
    meta = document.packed_meta | body.meta
    steps = {step.name: step.packed for step in document.steps}
    steps |= {step.name: step.data for step in body.steps if step.data}
    _check_size(body.job, kept, meta, steps)


def _check_size(job: str, *groups: dict[str, bytes]) -> None:
    size = sum(len(packed) for group in groups for packed in group.values())
    if size > MAX_PACKED_BYTES:
        raise TooLarge(f"job {job!r} would hold {size:,} bytes of your data; the limit is {MAX_PACKED_BYTES:,}")


def _decide_finish(document: Document, body: FinishJob) -> bool:
    if document.status == body.status:
        return False
    _check_open(document)
    if body.worker:
        check_worker(document, body)
    return True


def _decide_retry_items(document: Document, body: RetryItems) -> bool:
    if document.finished:
        hint = f"open it again first: actorstate retry DIR {body.job}"
        raise JobFinished(f"job {document.id!r} is {document.status} and stays so", hint=hint, job=document.id)
    return True


def _decide_control(document: Document, body: ControlJob) -> bool:
    if body.intent == "cancel" and document.status == "cancelled":
        return False
    _check_open(document)
    control = document.control
    if control is not None and control.intent == "cancel" and body.intent != "cancel":
        raise IllegalTransition(f"job {body.job!r} is being cancelled", job=body.job)
    if body.intent == "resume":
        return document.status == "paused" or (control is not None and control.intent == "pause")
    return control is None or control.intent != body.intent


def _decide_delete(document: Document, body: DeleteJob) -> bool:
    for name, worker in document.workers.items():
        if is_live(worker) and not document.finished:
            raise IllegalTransition(
                f"worker {name!r} is attached to job {body.job!r}",
                hint=f"cancel it first: actorstate cancel DIR {body.job}",
                job=body.job,
            )
    return True


def _decide_judged(document: Document, body: WorkerJudged) -> bool:
    worker = document.workers.get(body.worker)
    if document.finished or worker is None or worker.incarnation != body.incarnation:
        return False
    return worker.health != body.health


def _decide_expired(document: Document, body: JobExpired) -> bool:
    return document.finished and document.finished_at == body.finished_at


def _decide_retry(document: Document, body: RetryJob) -> bool:
    if not document.finished:
        raise IllegalTransition(
            f"job {body.job!r} is {document.status}: only a job that has ended can be retried",
            hint=f"wait for its end, or end it: actorstate cancel DIR {body.job}",
            job=body.job,
        )
    return True


def _decide_approve(document: Document, body: ApproveJob) -> bool:
    _check_open(document)
    asked = document.approval
    if asked is None:
        raise IllegalTransition(f"nobody has asked for an approval of job {body.job!r}", job=body.job)
    if body.question is not None and body.question != asked.question:
        raise IllegalTransition(
            f"job {body.job!r} asks another question by now: {asked.question!r}",
            hint=f"read it, then approve that: actorstate approve DIR {body.job}",
            job=body.job,
        )
    return asked.approved_at is None


def _decide_restored(document: Document, body: JobRestored) -> bool:
    if document.created_at != body.state.created_at:
        raise IllegalTransition(
            f"job {body.job!r} was deleted and created again meanwhile",
            hint=f"look at the one that there is: actorstate get DIR {body.job}",
            job=body.job,
        )
    return True


def _decide_throttle(document: Document, body: ThrottleJob) -> bool:
    _check_open(document)
    return body.rows_per_s != (document.throttle.rows_per_s if document.throttle else None)


_DECIDERS: dict[type, Callable[..., bool]] = {
    CreateJob: _decide_create,
    Attach: _decide_attach,
    Detach: _decide_detach,
    Report: _decide_report,
    RetryItems: _decide_retry_items,
    FinishJob: _decide_finish,
    ControlJob: _decide_control,
    DeleteJob: _decide_delete,
    WorkerJudged: _decide_judged,
    JobExpired: _decide_expired,
    RetryJob: _decide_retry,
    ApproveJob: _decide_approve,
    ThrottleJob: _decide_throttle,
    JobRestored: _decide_restored,
}
