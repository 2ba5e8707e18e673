"""What can be had of a job whose stored pieces are damaged or do not fit: the furthest state that they lead to.

Recovery never lowers a revision. When the pieces lead to the last known one, nothing was lost; an older
state comes back as the highest known revision + 1, paused, and says in `recovered` what is missing.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

from msgspec.structs import replace

from actorstate.core import codec
from actorstate.core.actor import recorded
from actorstate.core.messages.document import Document, Recovered
from actorstate.core.messages.replies import Change, Keyframe
from actorstate.core.rate import without_eta
from actorstate.core.replay import followed
from actorstate.errors import ActorStateError, CorruptJob


def replayed(start: Keyframe, changes: Iterable[Change]) -> Keyframe:
    """All of the job after `changes`. Raises CorruptJob where one does not follow the one before."""
    document, revision, receipts = start.document, start.revision, dict(start.receipts)
    for change in changes:
        document, revision = followed(document, revision, change, change.body.job), change.revision
        if change.producer:
            receipts[change.producer] = recorded(receipts.get(change.producer), change, document)
    return replace(start, document=document, revision=revision, receipts=receipts)


def whole_state(keyframe: bytes | None, changes: Iterable[bytes]) -> Keyframe:
    """What a store holds of a job, as one keyframe. Raises CorruptJob."""
    start = codec.decode_keyframe(keyframe) if keyframe is not None else Keyframe(0, None)
    return replayed(start, map(codec.decode_change, changes))


def canonical(state: Keyframe) -> bytes:
    """Bytes that are equal for equal states, whatever way they were stored."""
    return codec.encode(replace(state, receipts=dict(sorted(state.receipts.items()))))


def without_receipts(state: Keyframe) -> Keyframe:
    """The state as a beginning of history: should it ever be loaded, a resend of what came before is refused."""
    at = state.document.updated_at if state.document is not None else None
    return replace(state, receipts={}, forgotten_until=at)


def salvage(frames: Mapping[int, bytes], changes: Mapping[int, bytes], known: int, at: datetime) -> Keyframe | None:
    """The best state that whole keyframes and changes (by revision) lead to; None where they lead nowhere.

    `known` is the highest revision that ever was; a state below it is `brought_back`.
    """
    starts = sorted(frames, reverse=True) + ([0] if 1 in changes else [])
    best: Keyframe | None = None
    for revision in starts:
        reached = _furthest(frames.get(revision), revision, changes)
        if reached is not None and (best is None or reached.revision > best.revision):
            best = reached
    return best if best is None or best.revision >= known else brought_back(best, known, at)


def brought_back(state: Keyframe, known: int, at: datetime) -> Keyframe:
    """An older state as revision `known` + 1: without workers and intents, paused unless it has ended."""
    document = state.document
    if document is None:
        return replace(state, revision=known + 1)
    back = replace(
        document,
        status=document.status if document.finished else "paused",
        revision=known + 1,
        updated_at=at,
        workers={},
        tracks={name: replace(track, worker="", incarnation=0) for name, track in document.tracks.items()},
        incarnations=document.incarnations + known + 1 - state.revision,
        control=None,
        health=None,
        rate=without_eta(document.rate),
        recovered=Recovered(state.revision, known, at),
    )
    return replace(state, document=back, revision=known + 1)


def _furthest(frame: bytes | None, revision: int, changes: Mapping[int, bytes]) -> Keyframe | None:
    try:
        start = Keyframe(0, None) if frame is None else codec.decode_keyframe(frame)
        return replayed(start, _following(revision, changes))
    except ActorStateError:
        return None


def _following(revision: int, changes: Mapping[int, bytes]) -> Iterator[Change]:
    """The unbroken row of readable changes after `revision`."""
    while (packed := changes.get(revision := revision + 1)) is not None:
        try:
            yield codec.decode_change(packed)
        except CorruptJob:
            return


def edited(before: Keyframe, base: Document, found: Document, *, revision: int, original: bytes) -> Keyframe:
    """The state `before` with what somebody else's edit says: where `found` differs from `base`, which is the same
    reading of the unedited state.
    """
    if before.document is None:
        return replace(before, document=replace(found, revision=revision), revision=revision, original=original)
    changes = {
        name: getattr(found, name) for name in Document.__struct_fields__ if getattr(found, name) != getattr(base, name)
    }
    document = replace(before.document, **changes)
    return replace(before, document=replace(document, revision=revision), revision=revision, original=original)
