"""What a report says beyond its counts: tracks, checkpoints, steps, errors, meta, a question, time throttled."""

from datetime import datetime

from msgspec.structs import replace

from actorstate.core.job import is_live, move
from actorstate.core.messages.document import Approval, Checkpoint, Document, Progress, Rate, RowError, Step, Track
from actorstate.core.messages.requests import Report, StepReport, TrackPoint
from actorstate.core.rate import estimated, without_eta

MAX_ERRORS = 50
"""The tail of errors keeps the newest; `error_count` counts them all."""
MAX_APPROVALS = 50
"""Older answers are forgotten: asked again, such a question needs a new one."""


def described(document: Document, body: Report, at: datetime) -> Document:
    """The document after all that `body` says beyond its counts."""
    document = document if body.question is None else _asked(document, body.question, body.worker, at)
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


def throttled(document: Document, progress: Progress, body: Report, at: datetime) -> Rate:
    """The rate without the time that a worker waited for a limit: where `n` live, it is an n-th of the job's.

    Under a throttle from outside the estimate is by that limit where the workers would be faster. A limit that only
    they know has an end that nobody knows here: until they work again there is no arrival.
    """
    rate = document.rate
    live = sum(is_live(worker) for worker in document.workers.values())
    since_sample_s = rate.active_s - (rate.samples[-1][0] if rate.samples else 0.0)
    waited_s = min(body.throttled_s / max(1, live), since_sample_s)
    rate = replace(
        rate,
        active_s=rate.active_s - waited_s,
        throttled_s=rate.throttled_s + waited_s,
        throttles=rate.throttles + body.throttles,
    )
    limit = document.throttle
    return without_eta(rate) if limit is None else estimated(rate, progress, at, limit.rows_per_s)


def _asked(document: Document, question: str, worker: str, at: datetime) -> Document:
    """One question at a time: while one is open, who asks another waits with all the others, and asks again."""
    answered = any(each.question == question and each.approved_at for each in document.approvals)
    if answered or document.awaits_approval:
        return document
    approvals = (*document.approvals, Approval(question, at, worker))[-MAX_APPROVALS:]
    asked = replace(document, approvals=approvals)
    return move(asked, "waiting", at) if document.status == "running" else asked
