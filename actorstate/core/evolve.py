"""What an accepted change makes of the document. The same on every replay: all it needs is in the change."""

from collections.abc import Callable
from datetime import datetime

from msgspec.structs import replace

from actorstate.core.job import MAX_WORKERS, is_live, move
from actorstate.core.messages.document import (
    Checkpoint,
    Control,
    Document,
    IntentState,
    Progress,
    Rate,
    RowError,
    Step,
    Track,
    Worker,
)
from actorstate.core.messages.replies import Change, WorkerJudged
from actorstate.core.messages.requests import (
    Attach,
    ControlJob,
    Counts,
    CreateJob,
    DeleteJob,
    Detach,
    FinishJob,
    Report,
    StepReport,
    TrackPoint,
)
from actorstate.core.rate import FIRST_SAMPLES_S, SAMPLE_EVERY_S, health_of, measured, without_eta

MAX_ERRORS = 50
"""The tail of errors keeps the newest; `error_count` counts them all."""
MAX_CATEGORIES = 64
"""Failures of further categories are counted under `other`."""


def evolve(document: Document | None, change: Change) -> Document | None:
    """The document after `change`; None once it is deleted."""
    body = change.body
    if isinstance(body, CreateJob):
        return _created(body, change)
    if isinstance(body, DeleteJob) or document is None:
        return None
    active_s, paused_s = document.rate.active_s, document.rate.paused_s
    if document.status == "running":
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
    evolved = _EVOLVERS[type(body)](aged, body, change.at)
    if (
        isinstance(body, Report)
        and body.acknowledged is None
        and document.status == "running"
        and document.workers[body.worker].health == "healthy"
    ):
        return evolved  # nothing that the rest is derived from has changed
    return _settled(evolved, change.at)


def _created(body: CreateJob, change: Change) -> Document:
    return Document(
        id=body.job,
        kind=body.kind,
        status="pending",
        revision=change.revision,
        epoch=change.epoch,
        created_at=change.at,
        updated_at=change.at,
        labels=body.labels,
        progress=Progress(total=body.total, unit=body.unit),
        packed_meta=body.meta,
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
    tracks = {name: _released(track, body.worker) for name, track in document.tracks.items()}
    return replace(document, workers=workers, tracks=tracks)


def _released(track: Track, worker: str) -> Track:
    return replace(track, worker="", incarnation=0) if track.worker == worker else track


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
        rate = _throttled(rate, body)
    samples = rate.samples
    if not samples or rate.active_s - samples[-1][0] >= min(SAMPLE_EVERY_S, FIRST_SAMPLES_S * len(samples)):
        rate = measured(rate, progress, at)
    workers = document.workers | {body.worker: worker}
    counted = replace(document, progress=progress, rate=rate, workers=workers)
    more = body.tracks or body.checkpoints or body.errors or body.error_count or body.steps or body.meta
    if more or body.total is not None or body.phase is not None:
        return _described(counted, body, at)
    return counted


def _described(document: Document, body: Report, at: datetime) -> Document:
    """What a report says beyond its counts."""
    steps = document.steps
    for step in body.steps:
        steps = _stepped(steps, step, at)
    return replace(
        document,
        progress=document.progress if body.total is None else replace(document.progress, total=body.total),
        tracks=document.tracks | {name: _tracked(document, name, point, body) for name, point in body.tracks.items()},
        checkpoints=document.checkpoints
        | {name: Checkpoint(packed, at, document.revision) for name, packed in body.checkpoints.items()},
        phase=document.phase if body.phase is None else body.phase,
        steps=steps,
        errors=(*document.errors, *(RowError(e.key, e.message, e.category, at) for e in body.errors))[-MAX_ERRORS:],
        error_count=document.error_count + body.error_count,
        packed_meta=document.packed_meta | body.meta,
    )


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


def _throttled(rate: Rate, body: Report) -> Rate:
    """Time that a worker waited for a rate limit was not active."""
    waited_s = min(body.throttled_s, rate.active_s - (rate.samples[-1][0] if rate.samples else 0.0))
    return replace(
        rate,
        active_s=rate.active_s - waited_s,
        throttled_s=rate.throttled_s + waited_s,
        throttles=rate.throttles + body.throttles,
    )


def _tracked(document: Document, name: str, point: TrackPoint, body: Report) -> Track:
    before = document.tracks.get(name, Track())
    further, saved = point.counted >= before.counted, point.done >= before.done
    return Track(
        counted=max(before.counted, point.counted),
        done=max(before.done, point.done),
        counted_key=point.counted_key if further else before.counted_key,
        done_key=point.done_key if saved else before.done_key,
        worker=body.worker if point.live else "",
        incarnation=body.incarnation if point.live else 0,
    )


def _stepped(steps: tuple[Step, ...], report: StepReport, at: datetime) -> tuple[Step, ...]:
    ended = None if report.status == "running" else at
    for index, step in enumerate(steps):
        if step.name == report.name:
            packed = report.data or step.packed
            changed = replace(step, status=report.status, ended_at=ended, packed=packed)
            return (*steps[:index], changed, *steps[index + 1 :])
    return (*steps, Step(report.name, report.status, at, ended, report.data))


def _finished(document: Document, body: FinishJob, at: datetime) -> Document:
    rate = measured(document.rate, document.progress, at) if document.progress.processed else document.rate
    return replace(move(document, body.status, at), reason=body.reason, rate=rate)


def _controlled(document: Document, body: ControlJob, at: datetime) -> Document:
    workers = {name: replace(worker, acknowledged=None) for name, worker in document.workers.items()}
    control = Control(intent=body.intent, at=at, by=body.by, asked=document.revision)
    asked = replace(document, control=control, workers=workers)
    if body.intent == "resume" and document.status == "paused":
        return move(asked, "running" if document.started_at or workers else "pending", at)
    return asked


def _judged(document: Document, body: WorkerJudged, _at: datetime) -> Document:
    worker = replace(document.workers[body.worker], health=body.health)
    return replace(document, workers=document.workers | {body.worker: worker})


def _settled(document: Document, at: datetime) -> Document:
    """Carries a control intent out once all live workers have acknowledged it, then derives the rest."""
    control = document.control
    if control is not None and control.state != "done" and not document.finished:
        state = _intent_state(document, control)
        if state != control.state:
            document = replace(document, control=replace(control, state=state))
        if state == "done" and control.intent != "resume":
            document = move(document, "paused" if control.intent == "pause" else "cancelled", at)
    if document.finished and document.workers:
        tracks = {name: _released(track, track.worker) for name, track in document.tracks.items()}
        document = replace(document, workers={}, tracks=tracks)
    rate = document.rate if document.status == "running" else without_eta(document.rate)
    return replace(document, rate=rate, health=health_of(document))


def _intent_state(document: Document, control: Control) -> IntentState:
    heard = [worker.acknowledged == control.intent for worker in document.workers.values() if is_live(worker)]
    if all(heard):
        return "done"
    return "acknowledged" if any(heard) else "requested"


_EVOLVERS: dict[type, Callable[..., Document]] = {
    Attach: _attached,
    Detach: _detached,
    Report: _reported,
    FinishJob: _finished,
    ControlJob: _controlled,
    WorkerJudged: _judged,
}
