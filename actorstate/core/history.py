"""The past in words: what each change did and who asked for it, and how two states of a job differ."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

from msgspec import Struct
from msgspec.structs import replace

from actorstate.core.messages.document import Checkpoint, Document, Step
from actorstate.core.messages.payload import unpack
from actorstate.core.messages.replies import Change, HistoryEntry, JobExpired, JobRestored, WorkerJudged
from actorstate.core.messages.requests import (
    ApproveJob,
    Attach,
    ControlJob,
    CreateJob,
    Detach,
    FinishJob,
    Report,
    RetryItems,
    RetryJob,
    ThrottleJob,
)
from actorstate.errors import CorruptJob

MAX_SUMMARY = 300
"""Characters; a longer summary ends with an ellipsis, the change itself is stored whole."""
MAX_DEPTH = 12
"""How deep a difference is looked for; below it two values differ as a whole."""
UNCOMPARED = frozenset({"revision", "updated_at", "samples", "last_beat_s", "boot", "started"})
"""They differ always, or say nothing to people."""


def entry(change: Change, document: Document | None = None) -> HistoryEntry:
    """One line of history; with the `document` that the change made, also its status and counts."""
    body = change.body
    who = getattr(body, "worker", "") or getattr(body, "by", "")
    return HistoryEntry(
        change.revision,
        change.epoch,
        change.at,
        type(body).__name__,
        "writer" if isinstance(body, WorkerJudged | JobExpired) else who,
        _shortened(_summary(change)),
        None if document is None else document.status,
        None if document is None else replace(document.progress, by_category={}),
    )


def _summary(change: Change) -> str:
    if isinstance(change.body, RetryItems):  # their keys are in the ledger, their number is in the change
        return f"{change.retrying:,} failed items to be done once more"
    says = _SUMMARIES.get(type(change.body))
    return says(change.body) if says else ""


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_SUMMARY else text[: MAX_SUMMARY - 1] + "…"


def _created(body: CreateJob) -> str:
    total = "" if body.total is None else f", {body.total:,} {body.unit}"
    return f"created, kind {body.kind}{total}"


def _attached(body: Attach) -> str:
    how = ", taking over" if body.take_over else ", alone" if body.exclusive else ""
    return f"attached (process {body.pid} on {body.host}){how}"


def _reported(body: Report) -> str:
    return ", ".join(_parts(body)) or "reported nothing new"


def _counted(body: Report) -> Iterator[str]:
    for name in ("succeeded", "failed", "skipped", "duplicates", "bytes"):
        if number := getattr(body.counts, name, 0):
            yield f"+{number:,} {name}"


def _parts(body: Report) -> Iterator[str]:
    yield from _counted(body)
    if body.total is not None:
        yield f"total {body.total:,}"
    if body.phase is not None:
        yield f"phase {body.phase}"
    yield from (f"saved {name}" for name in body.checkpoints)
    yield from (f"track {name} at {track.counted:,}" for name, track in body.tracks.items())
    yield from (f"step {step.name} {step.status}" for step in body.steps)
    yield from (f"{error.key}: {error.message}" for error in body.errors)
    yield from (f"meta {key}" for key in body.meta)
    if body.throttled_s:
        yield f"throttled for {body.throttled_s:.1f} s"
    if body.acknowledged is not None:
        yield f"follows {body.acknowledged}"
    if body.question is not None:
        yield f"asks: {body.question}"


def _finished(body: FinishJob) -> str:
    return body.status + (f": {body.reason}" if body.reason else "")


def _controlled(body: ControlJob) -> str:
    return f"{body.intent} asked for"


def _judged(body: WorkerJudged) -> str:
    return f"worker {body.worker} is {body.health}"


def _retried(body: RetryJob) -> str:
    return "a new attempt" + (", from the start" if body.from_start else ", from the last checkpoint")


def _throttled(body: ThrottleJob) -> str:
    return "no limit any more" if body.rows_per_s is None else f"at most {body.rows_per_s:g} rows/s"


def _detached(_body: Detach) -> str:
    return "detached"


def _approved(body: ApproveJob) -> str:
    return "approved" + (f": {body.question}" if body.question else "")


def _restored(body: JobRestored) -> str:
    return f"restored as it was at revision {body.state.revision}, {body.state.progress.processed:,} processed"


_SUMMARIES: dict[type, Callable[..., str]] = {
    CreateJob: _created,
    Attach: _attached,
    Detach: _detached,
    Report: _reported,
    FinishJob: _finished,
    ControlJob: _controlled,
    WorkerJudged: _judged,
    RetryJob: _retried,
    ApproveJob: _approved,
    ThrottleJob: _throttled,
    JobRestored: _restored,
}
"""A request without an entry is told by its name alone."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One field by its path, such as `progress.succeeded`; None where there is no such value.

    Of a tail such as `errors` the two sides are what the other one does not have.
    """

    path: str
    old: object
    new: object


def differences(old: Document, new: Document) -> tuple[Difference, ...]:
    """All that differs between two states of a job, in the order of the document's fields."""
    return tuple(_between("", _opened(old), _opened(new), 0))


def _between(path: str, old: object, new: object, depth: int) -> Iterator[Difference]:
    if old == new:
        return
    before, after = _mapping(old), _mapping(new)
    if before is not None and after is not None and depth < MAX_DEPTH:
        for key in dict.fromkeys([*before, *after]):
            inner = f"{path}.{key}" if path else key
            yield from _between(inner, before.get(key), after.get(key), depth + 1)
    elif (left := _sequence(old)) is not None and (right := _sequence(new)) is not None:
        yield Difference(path, [one for one in left if one not in right], [one for one in right if one not in left])
    else:
        yield Difference(path, old, new)


def _sequence(value: object) -> tuple[object, ...] | None:
    return cast("tuple[object, ...]", value) if isinstance(value, tuple) else None


def _mapping(value: object) -> dict[str, object] | None:
    """A mapping as one by text keys; nothing at all is an empty one."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        return None
    return {str(key): one for key, one in cast("dict[object, object]", value).items()}


def _opened(value: object) -> object:
    """Structs as dicts by field, steps by name, packed user data unpacked."""
    if isinstance(value, Document):
        fields = {name: _opened(getattr(value, name)) for name in value.__struct_fields__ if name not in UNCOMPARED}
        fields["packed_meta"] = {key: _unpacked(packed) for key, packed in value.packed_meta.items()}
        fields["steps"] = {step.name: _opened(step) for step in value.steps}
        return {"meta" if name == "packed_meta" else name: one for name, one in fields.items()}
    if isinstance(value, Checkpoint | Step):
        names = [name for name in value.__struct_fields__ if name not in {"packed", "revision"}]
        data = _unpacked(value.packed) if value.packed else None
        return {name: _opened(getattr(value, name)) for name in names} | {"data": data}
    if isinstance(value, Struct):
        return {name: _opened(getattr(value, name)) for name in value.__struct_fields__ if name not in UNCOMPARED}
    if isinstance(value, dict):
        return {str(key): _opened(one) for key, one in cast("dict[object, object]", value).items()}
    if isinstance(value, tuple):
        return tuple(_opened(one) for one in cast("tuple[object, ...]", value))
    return value


def _unpacked(packed: bytes) -> object:
    """User data; what no client of ours has packed is compared as bytes."""
    try:
        return unpack(packed)
    except CorruptJob:
        return packed
