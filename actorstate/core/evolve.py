"""What an accepted change makes of the document. The same on every replay: all it needs is in the change."""

from collections.abc import Callable, Collection
from datetime import datetime

from msgspec.structs import replace

from actorstate.core.attempts import reopened
from actorstate.core.job import MAX_WORKERS, is_live, move
from actorstate.core.ledger import reopened_items, without
from actorstate.core.messages.document import (
    Approval,
    Control,
    Document,
    IntentState,
    Progress,
    Status,
    Throttle,
    Track,
    Worker,
)
from actorstate.core.messages.replies import Change, JobExpired, JobRestored, WorkerJudged
from actorstate.core.messages.requests import (
    ApproveJob,
    Attach,
    ControlJob,
    Counts,
    CreateJob,
    DeleteJob,
    Detach,
    FinishJob,
    Report,
    RetryItems,
    RetryJob,
    ThrottleJob,
)
from actorstate.core.rate import FIRST_SAMPLES_S, SAMPLE_EVERY_S, estimated, health_of, measured, without_eta
from actorstate.core.reports import described, throttled
from actorstate.core.restore import restored

MAX_CATEGORIES = 64
"""Failures of further categories are counted under `other`."""


def evolve(document: Document | None, change: Change) -> Document | None:
    """The document after `change`; None once it is deleted."""
    body = change.body
    if isinstance(body, CreateJob):
        return _created(body, change)
    if isinstance(body, DeleteJob | JobExpired) or document is None:
        return None
    active_s, paused_s = document.rate.active_s, document.rate.paused_s
    if document.status == "running" and document.workers:
        active_s += change.elapsed_s
    elif document.status == "paused":
        paused_s += change.elapsed_s
    aged = replace(
        document,
        revision=change.revision,
        epoch=change.epoch,
        updated_at=change.at,
        rate=replace(document.rate, active_s=active_s, paused_s=paused_s),
    )
    if change.taken is not None or change.retrying:
        aged = replace(aged, progress=without(aged.progress, change.taken, change.retrying))
    evolved = _EVOLVERS[type(body)](aged, body, change.at)
    if (
        isinstance(body, Report)
        and body.acknowledged is None
        and body.question is None
        and document.status == "running"
        and document.workers[body.worker].health == "healthy"
    ):
        return evolved  # nothing that the rest is derived from has changed
    return _settled(evolved, change.at)


def _created(body: CreateJob, change: Change) -> Document:
    return Document(
        id=body.job,
        kind=body.kind,
        status="pending" if body.question is None else "waiting",
        revision=change.revision,
        epoch=change.epoch,
        created_at=change.at,
        updated_at=change.at,
        labels=body.labels,
        progress=Progress(total=body.total, unit=body.unit),
        packed_meta=body.meta,
        unique_key=body.unique_key,
        expire_after_s=body.expire_after_s,
        health_rules=body.health_rules,
        question=body.question,
        approvals=() if body.question is None else (Approval(body.question, change.at),),
    )


def _attached(document: Document, body: Attach, at: datetime) -> Document:
    incarnation = document.incarnations + 1
    exclusive = body.exclusive or body.take_over
    kept = {} if exclusive else {name: other for name, other in document.workers.items() if _stays(name, other, body)}
    while len(kept) >= MAX_WORKERS:
        del kept[min(kept, key=lambda name: (is_live(kept[name]), kept[name].attached_at))]
    worker = Worker(
        incarnation=incarnation,
        host=body.host,
        pid=body.pid,
        attached_at=at,
        boot=body.boot,
        started=body.started,
        exclusive=body.exclusive,
    )
    joined = replace(document, workers=kept | {body.worker: worker}, incarnations=incarnation)
    return move(joined, "running", at) if document.status == "pending" else joined


def _stays(name: str, other: Worker, body: Attach) -> bool:
    """One who had the job for itself and is dead must not come back beside a successor."""
    return name != body.worker and (is_live(other) or not other.exclusive)


def _detached(document: Document, body: Detach, _at: datetime) -> Document:
    workers = {name: worker for name, worker in document.workers.items() if name != body.worker}
    return replace(document, workers=workers, tracks=_released(document, {body.worker}))


def _released(document: Document, gone: Collection[str]) -> dict[str, Track]:
    return {
        name: replace(track, worker="", incarnation=0) if track.worker in gone else track
        for name, track in document.tracks.items()
    }


def _reported(document: Document, body: Report, at: datetime) -> Document:
    worker = replace(
        document.workers[body.worker],
        health="healthy",
        acknowledged=body.acknowledged or document.workers[body.worker].acknowledged,
    )
    progress, rate = document.progress, document.rate
    if body.counts is not None:
        progress = _counted(progress, body.counts)
        worker = replace(worker, last_progress=at)
    if body.throttled_s:
        rate = throttled(document, progress, body, at)
    samples = rate.samples
    if not samples or rate.active_s - samples[-1][0] >= min(SAMPLE_EVERY_S, FIRST_SAMPLES_S * len(samples)):
        rate = measured(rate, progress, at, document.throttle.rows_per_s if document.throttle else None)
    workers = document.workers | {body.worker: worker}
    counted = replace(document, progress=progress, rate=rate, workers=workers)
    more = body.tracks or body.checkpoints or body.errors or body.error_count or body.steps or body.meta
    if more or body.total is not None or body.phase is not None or body.question is not None:
        return described(counted, body, at)
    return counted


def _counted(progress: Progress, counts: Counts) -> Progress:
    by_category = progress.by_category
    for category, count in counts.by_category.items():
        name = category if category in by_category or len(by_category) < MAX_CATEGORIES else "other"
        by_category = by_category | {name: by_category.get(name, 0) + count}
    added = counts.succeeded + counts.failed + counts.skipped + counts.duplicates
    return replace(
        progress,
        processed=progress.processed + added,
        succeeded=progress.succeeded + counts.succeeded,
        failed=progress.failed + counts.failed,
        skipped=progress.skipped + counts.skipped,
        duplicates=progress.duplicates + counts.duplicates,
        bytes=progress.bytes + counts.bytes,
        by_category=by_category,
    )


def _finished(document: Document, body: FinishJob, at: datetime) -> Document:
    rate = measured(document.rate, document.progress, at) if document.progress.processed else document.rate
    return replace(move(document, body.status, at), reason=body.reason, rate=rate)


def _controlled(document: Document, body: ControlJob, at: datetime) -> Document:
    workers = {name: replace(worker, acknowledged=None) for name, worker in document.workers.items()}
    control = Control(intent=body.intent, at=at, by=body.by, asked=document.revision)
    asked = replace(document, control=control, workers=workers)
    if body.intent == "resume" and document.status == "paused":
        return move(asked, _open_status(asked), at)
    return asked


def _open_status(document: Document) -> Status:
    """What a job is that is neither paused nor finished."""
    if document.awaits_approval:
        return "waiting"
    return "running" if document.started_at or document.workers else "pending"


def _approved(document: Document, body: ApproveJob, at: datetime) -> Document:
    *answered, asked = document.approvals
    approvals = (*answered, replace(asked, approved_at=at, approved_by=body.by))
    approved = replace(document, approvals=approvals)
    return move(approved, _open_status(approved), at) if document.status == "waiting" else approved


def _limited(document: Document, body: ThrottleJob, at: datetime) -> Document:
    throttle = None if body.rows_per_s is None else Throttle(body.rows_per_s, at, body.by)
    rate = document.rate
    if rate.per_s is not None:
        rate = estimated(rate, document.progress, at, body.rows_per_s)
    return replace(document, throttle=throttle, rate=rate)


def _retried(document: Document, body: RetryJob, at: datetime) -> Document:
    return reopened(document, at, from_start=body.from_start, by=body.by)


def _judged(document: Document, body: WorkerJudged, _at: datetime) -> Document:
    """Who was judged last stands last, so that the last to die can be named."""
    workers = {name: worker for name, worker in document.workers.items() if name != body.worker}
    workers[body.worker] = replace(document.workers[body.worker], health=body.health)
    return replace(document, workers=workers)


def _settled(document: Document, at: datetime) -> Document:
    """Carries a control intent out once all live workers have acknowledged it, then derives the rest."""
    control = document.control
    if control is not None and control.state != "done" and not document.finished:
        state = _intent_state(document, control)
        if state != control.state:
            document = replace(document, control=replace(control, state=state))
        if state == "done" and control.intent != "resume":
            document = move(document, "paused" if control.intent == "pause" else "cancelled", at)
    if document.health_rules.on_dead != "nothing" and not document.finished:
        document = _bereaved(document, at)
    if document.finished and document.workers:
        document = replace(document, workers={}, tracks=_released(document, document.workers))
    rate = document.rate if document.status == "running" else without_eta(document.rate)
    return replace(document, rate=rate, health=health_of(document))


def _bereaved(document: Document, at: datetime) -> Document:
    """Carries out `on_dead`. A job that is paused or waits has saved all that its dead workers did: only freed."""
    dead = {name: worker for name, worker in document.workers.items() if not is_live(worker)}
    if not dead:
        return document
    if document.health_rules.on_dead == "fail" and document.status == "running":
        if len(dead) < len(document.workers):
            return document
        name, last = list(dead.items())[-1]
        reason = f"its last live worker is dead: {name} (process {last.pid} on {last.host})"
        return replace(move(document, "failed", at), reason=reason)
    living = {name: worker for name, worker in document.workers.items() if is_live(worker)}
    return replace(document, workers=living, tracks=_released(document, dead))


def _intent_state(document: Document, control: Control) -> IntentState:
    heard = [worker.acknowledged == control.intent for worker in document.workers.values() if is_live(worker)]
    if all(heard):
        return "done"
    return "acknowledged" if any(heard) else "requested"


_EVOLVERS: dict[type, Callable[..., Document]] = {
    Attach: _attached,
    Detach: _detached,
    Report: _reported,
    RetryItems: reopened_items,
    FinishJob: _finished,
    ControlJob: _controlled,
    WorkerJudged: _judged,
    RetryJob: _retried,
    ApproveJob: _approved,
    ThrottleJob: _limited,
    JobRestored: restored,
}
