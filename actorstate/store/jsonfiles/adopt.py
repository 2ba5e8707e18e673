"""The older tool's job as a document of ours. A pure function of what its file says.

Counts that do not add up are mended, and a label says so; what the document has no place for stays in the
original, which goes with the job from then on (`Keyframe.original`) and into its file again (`shape.py`).
"""

from collections.abc import Iterator
from datetime import UTC, datetime

from actorstate.core.evolve import MAX_CATEGORIES
from actorstate.core.job import MAX_NAMES, MAX_PACKED_BYTES
from actorstate.core.messages.document import TERMINAL, Approval, Checkpoint, Document, Progress, Rate, RowError, Step
from actorstate.core.messages.payload import pack
from actorstate.core.reports import MAX_ERRORS
from actorstate.errors import BadRequest
from actorstate.store.jsonfiles.words import (
    STATUS_OF,
    STEP_STATUS_OF,
    UNKNOWN_STATUS,
    Plain,
    count_of,
    plain_list,
    plain_object,
    seconds_of,
    time_of,
)

MENDED = "mended"
"""The label that says which counts did not add up."""
MAX_NAME = 128
MAX_TEXT = 2_000
UNDATED = datetime(1970, 1, 1, tzinfo=UTC)
QUESTION = "the older tool was waiting for an approval"
"""What it asked is in no file of it; people find it where they used to approve."""
BATCHES = "batches"
"""The checkpoint that tells how far the older tool's completed batches reach without a gap."""


def adopted(job: str, found: Plain, revision: int = 1) -> Document:
    """The document of that revision that `found` amounts to, whatever it lacks."""
    status, phase = STATUS_OF.get(str(found.get("status")), UNKNOWN_STATUS)
    started = time_of(found.get("startedAt"))
    times = [at for at in (started, *_times(found)) if at is not None]
    last = max(times, default=UNDATED)
    progress, mended = _progress(plain_object(found.get("progress")))
    labels = {name: str(found[name])[:MAX_TEXT] for name in ("sourceSpaceId", "targetSpaceId") if found.get(name)}
    errors = tuple(_errors(plain_list(found.get("errors")), last))
    return Document(
        id=job,
        kind=(str(found.get("jobType") or "") or "job")[:MAX_NAME],
        status=status,
        revision=revision,
        epoch=0,
        created_at=started or last,
        updated_at=last,
        labels=labels | ({MENDED: mended} if mended else {}),
        phase=phase,
        started_at=started if status != "pending" else None,
        finished_at=(time_of(found.get("completedAt")) or last) if status in TERMINAL else None,
        progress=progress,
        rate=_rate(plain_object(plain_object(found.get("progress")).get("throughput"))),
        checkpoints=_checkpoints(plain_object(found.get("progress")), last),
        steps=tuple(_steps(plain_list(found.get("steps")), last))[:MAX_NAMES],
        errors=errors[-MAX_ERRORS:],
        error_count=len(errors),
        approvals=(Approval(QUESTION, last),) if status == "waiting" else (),
        packed_meta=_meta(plain_object(found.get("metadata"))),
    )


def _times(found: Plain) -> Iterator[datetime | None]:
    yield time_of(found.get("completedAt"))
    yield time_of(found.get("lastHeartbeat"))
    yield time_of(plain_object(found.get("progress")).get("lastUpdate"))


def _progress(found: Plain) -> tuple[Progress, str]:
    """Processed is the sum of the outcomes with us: what the older tool counted beyond them, it had skipped."""
    processed, succeeded, failed = (count_of(found.get(name)) for name in ("processed", "successful", "failed"))
    skipped = max(0, processed - succeeded - failed)
    ours = succeeded + failed + skipped
    mended = "" if ours == processed else f"{processed:,} processed became {ours:,}"
    if skipped:
        mended = f"{skipped:,} of {processed:,} processed had no outcome and count as skipped"
    categories = plain_object(found.get("failedItemsByCategory"))
    counted = {name[:MAX_NAME]: count_of(value) for name, value in categories.items() if name and count_of(value)}
    progress = Progress(
        total=count_of(found["total"]) if found.get("total") else None,
        processed=ours,
        succeeded=succeeded,
        failed=failed,
        skipped=skipped,
        by_category=dict(list(counted.items())[:MAX_CATEGORIES]),
    )
    return progress, mended


def _rate(found: Plain) -> Rate:
    return Rate(
        per_s=seconds_of(found["itemsPerSecond"]) if found.get("itemsPerSecond") else None,
        throttles=count_of(found.get("rateLimitPauses")),
        throttled_s=seconds_of(found.get("totalRateLimitDelay")) / 1000,
    )


def _checkpoints(progress: Plain, at: datetime) -> dict[str, Checkpoint]:
    """Where work can go on: after the completed batches that follow each other without a gap."""
    batches = [plain_object(batch) for batch in plain_list(progress.get("batchCheckpoints"))]
    ends = {count_of(each.get("offset")): each for each in batches if each.get("status") == "completed"}
    offset, last = 0, Plain()
    while (batch := ends.get(offset)) is not None and count_of(batch.get("limit")):
        offset, last = offset + count_of(batch.get("limit")), batch
    if not last:
        return {}
    saved = {"offset": offset, "batchNumber": count_of(last.get("batchNumber"))}
    return {BATCHES: Checkpoint(pack(saved), time_of(last.get("completedAt")) or at, 1)}


def _steps(found: list[object], at: datetime) -> Iterator[Step]:
    """Steps that have begun; the older tool keeps the newer state of one nested under `type`, by a defect."""
    names = set[str]()
    for step in map(plain_object, found):
        told = step | plain_object(step.get("type"))
        status, name = STEP_STATUS_OF.get(str(told.get("status"))), str(step.get("id") or "")[:MAX_NAME]
        if status is None or not name or name in names:
            continue
        names.add(name)
        begun, ended = time_of(told.get("startedAt")), time_of(told.get("completedAt"))
        yield Step(name, status, begun or ended or at, None if status == "running" else ended or at)


def _errors(found: list[object], at: datetime) -> Iterator[RowError]:
    for error in map(plain_object, found):
        message, category = str(error.get("message") or "")[:MAX_TEXT], str(error.get("code") or "unknown")
        key = str(error.get("step") or "")[:256]
        yield RowError(key, message, category[:MAX_NAME], time_of(error.get("timestamp")) or at)


def _meta(found: Plain) -> dict[str, bytes]:
    """What fits into a job's own data; the rest stays in the original alone."""
    kept, room = dict[str, bytes](), MAX_PACKED_BYTES // 2
    for key, value in found.items():
        if not key or len(key) > MAX_NAME or len(kept) >= MAX_NAMES:
            continue
        try:
            packed = pack(value)
        except BadRequest:
            continue
        if len(packed) <= room:
            kept[key], room = packed, room - len(packed)
    return kept
