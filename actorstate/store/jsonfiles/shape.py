"""A document in the older tool's shape, so that it can read what we write.

A pure function of the document and of the original that the job was adopted from, if it was: a field of the
original is replaced only where the document says something else than the original amounts to (`adopted`).
So nothing that the older tool wrote is lost or reordered on its way through here.
"""

import base64
import math
from datetime import datetime
from typing import cast

from actorstate.core.messages.document import Document, Progress, Rate, RowError, Step
from actorstate.core.messages.payload import unpack
from actorstate.errors import CorruptJob
from actorstate.store.jsonfiles.adopt import adopted
from actorstate.store.jsonfiles.words import (
    CATEGORIES,
    JOB_TYPES,
    OTHER_JOB_TYPE,
    STEP_WORDS,
    Plain,
    plain_list,
    plain_object,
    status_word,
    time_text,
)

MAX_DEPTH = 100
"""Levels of a user's value that the readable part shows."""


def shaped(document: Document, original: Plain) -> Plain:
    """What the file says beside our own key."""
    before = adopted(document.id, original) if original else None
    shape = original | Plain(id=document.id) if before else _empty(document.id)
    known = document.kind if document.kind in JOB_TYPES else OTHER_JOB_TYPE
    _put(shape, "jobType", known, same=before is not None and before.kind == document.kind)
    for name in ("sourceSpaceId", "targetSpaceId"):
        ours = document.labels.get(name, "")
        _put(shape, name, ours, same=before is not None and before.labels.get(name, "") == ours)
    status = status_word(document.status, document.phase)
    _put(shape, "status", status, same=before is not None and status_word(before.status, before.phase) == status)
    started = document.started_at or document.created_at
    _put(shape, "startedAt", time_text(started), same=before is not None and before.created_at == document.created_at)
    shape["steps"] = _steps(document, before, plain_list(shape.get("steps")))
    shape["errors"] = _errors(document, before, plain_list(shape.get("errors")))
    shape["metadata"] = _metadata(document, before, plain_object(shape.get("metadata")))
    _put_beat(shape, document, before)
    _put_progress(shape, document, before)
    if document.finished_at is None:
        shape.pop("completedAt", None)
    else:
        ended = time_text(document.finished_at)
        _put(shape, "completedAt", ended, same=before is not None and before.finished_at == document.finished_at)
    return shape


def unshaped(job: str, kind: str, status: str) -> Plain:
    """The shape of a job of which only its row in the index is known."""
    return _empty(job) | Plain(jobType=kind, status=status, startedAt="1970-01-01T00:00:00.000Z")


def _empty(job: str) -> Plain:
    """Every field that the older tool relies on, in its order."""
    shape = Plain(id=job, jobType="", sourceSpaceId="", targetSpaceId="", status="", startedAt="")
    return shape | Plain(steps=list[object](), errors=list[object](), metadata=Plain())


def _put(shape: Plain, name: str, value: object, *, same: bool) -> None:
    """A field that the document has not changed stays as it was written."""
    if not same or name not in shape:
        shape[name] = value


def _put_beat(shape: Plain, document: Document, before: Document | None) -> None:
    """As with the older tool: a beat while somebody works, none once the job stands still."""
    if document.workers:
        shape["lastHeartbeat"] = time_text(document.updated_at)
    elif before is None or document.status != before.status:
        shape.pop("lastHeartbeat", None)


def _put_progress(shape: Plain, document: Document, before: Document | None) -> None:
    found = plain_object(shape.get("progress"))
    same = before is not None and document.progress == before.progress
    if not found and (same or document.progress == Progress()):
        return
    numbers = _numbers(document.progress)
    changed = any(found.get(name) != value for name, value in numbers.items() if name != "percent")
    progress = found | (numbers if changed else {})
    _put(progress, "percent", numbers["percent"], same=True)
    _put(progress, "lastUpdate", time_text(document.updated_at), same=same)
    if before is None or document.rate != before.rate:
        progress["throughput"] = plain_object(found.get("throughput")) | _throughput(document.rate)
    if before is None or document.progress.by_category != before.progress.by_category:
        categories = plain_object(found.get("failedItemsByCategory"))
        progress["failedItemsByCategory"] = categories | _by_category(document.progress.by_category)
    shape["progress"] = progress


def _numbers(progress: Progress) -> Plain:
    return {
        "total": progress.total or 0,
        "processed": progress.processed,
        "successful": progress.succeeded,
        "failed": progress.failed,
        "percent": int(progress.percent or 0.0),
    }


def _throughput(rate: Rate) -> Plain:
    """Batches are unknown to us; the older tool computes with their numbers, so they are there."""
    told = Plain(itemsPerSecond=rate.per_s or 0, batchesPerMinute=0, avgBatchDuration=0)
    told |= {"rateLimitPauses": rate.throttles, "totalRateLimitDelay": round(rate.throttled_s * 1000)}
    return told | ({"estimatedCompletionTime": time_text(rate.eta)} if rate.eta else {})


def _by_category(counted: dict[str, int]) -> Plain:
    told: dict[str, int] = dict.fromkeys(CATEGORIES, 0)
    for name, number in counted.items():
        told[name if name in told else "unknown"] += number
    return cast("Plain", told)


def _steps(document: Document, before: Document | None, found: list[object]) -> list[object]:
    known = {step.name: step for step in before.steps} if before else {}
    changed = {step.name: step for step in document.steps if known.get(step.name) != step}
    kept: list[object] = [_step(found_one, changed) for found_one in found]
    return [*kept, *(_new_step(step) for step in changed.values())]


def _step(found: object, changed: dict[str, Step]) -> object:
    name = plain_object(found).get("id")
    step = changed.pop(name, None) if isinstance(name, str) else None
    return found if step is None else plain_object(found) | _step_state(step)


def _new_step(step: Step) -> Plain:
    return Plain(id=step.name, type="migrate_items", sourceId=step.name) | _step_state(step)


def _step_state(step: Step) -> Plain:
    told = Plain(status=STEP_WORDS[step.status], startedAt=time_text(step.started_at))
    return told | ({"completedAt": time_text(step.ended_at)} if step.ended_at else {})


def _errors(document: Document, before: Document | None, found: list[object]) -> list[object]:
    """All that the older tool wrote, and after them what is new among our last ones."""
    known = set(before.errors) if before else set[RowError]()
    return [*found, *(_error(error) for error in document.errors if error not in known)]


def _error(error: RowError) -> Plain:
    return Plain(step=error.key, message=error.message, code=error.category, timestamp=time_text(error.at))


def _metadata(document: Document, before: Document | None, found: Plain) -> Plain:
    known = before.packed_meta if before else {}
    changed = {key: packed for key, packed in document.packed_meta.items() if known.get(key) != packed}
    return found | {key: _readable(packed) for key, packed in changed.items()}


def _readable(packed: bytes) -> object:
    """The user's value as JSON has it; exactly as it was packed it lies under our own key."""
    try:
        return _as_json(unpack(packed), MAX_DEPTH)
    except CorruptJob:
        return base64.b64encode(packed).decode()


def _as_json(value: object, depth: int) -> object:
    """One frame a level, and no more than `depth` of them: what lies deeper is left out here."""
    if isinstance(value, dict | list) and not depth:
        return None
    if isinstance(value, dict):
        mapping: Plain = {}
        for key, item in cast("dict[object, object]", value).items():
            mapping[str(key)] = _as_json(item, depth - 1)
        return mapping
    if isinstance(value, list):
        sequence: list[object] = []
        for item in cast("list[object]", value):
            sequence.append(_as_json(item, depth - 1))  # noqa: PERF401 - a comprehension is a frame of its own
        return sequence
    if isinstance(value, datetime):
        return time_text(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value if not isinstance(value, float) or math.isfinite(value) else None
