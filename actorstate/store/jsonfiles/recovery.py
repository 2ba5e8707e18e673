"""From what lies in the directory to whole jobs: read, adopt, recover; whatever is damaged is kept beside.

The order of a commit (past, job's file, second copy) makes the job's file the truth where it is whole. Where
it is not, the second copy takes its place, or what the past leads to; never at a lower revision than known.
"""

from datetime import UTC, datetime

from actorstate import telemetry
from actorstate.core import codec
from actorstate.core.messages.replies import Keyframe
from actorstate.core.salvage import brought_back, edited, salvage
from actorstate.errors import CorruptJob
from actorstate.store.contract import IndexRow, StoredChange
from actorstate.store.index import index_of
from actorstate.store.jsonfiles.adopt import MENDED, adopted
from actorstate.store.jsonfiles.past import Past, appended, cut_after, frame_line, past_in
from actorstate.store.jsonfiles.places import Places, keep_aside, replace_durably
from actorstate.store.jsonfiles.shape import shaped
from actorstate.store.jsonfiles.text import KEY, Held, held_in, is_ours, original_text, parsed, text_of
from actorstate.store.jsonfiles.words import Plain

PARSE_ERROR = "JSON parse error - file may be corrupted"
RECOVERED = "Recovered job from backup"
RETRYING = "Failed to read migration job, retrying"
"""The older tool's words, so that what watches its log understands ours."""


def read_job(places: Places, job: str, content: bytes) -> Held:
    """What a job's file says; a file of the older tool is adopted. Raises CorruptJob, ForeignEdit, OSError."""
    found = parsed(content)
    if is_ours(found):
        held = held_in(job, content, found)
        _settle(places, held, content)
        return held
    past = past_in(job, places.past(job))
    held = _adopted(job, found, max(past.highest, _buried(places, job)) + 1)
    telemetry.event("store.job_adopted", job=job, status=held.index.status, revision=held.revision)
    return _put(places, held)


def recover_job(places: Places, job: str, damaged: bytes | None, error: CorruptJob) -> Held:
    """Puts the best that is left in the place of a damaged file, which is kept. Raises `error` when nothing is."""
    telemetry.event("store.parse_failed", message=PARSE_ERROR, job=job, path=str(places.main(job)), error=error.message)
    past = past_in(job, places.past(job))
    second, is_old = _second(places, job)
    known = max(past.highest, second.revision if second else 0)
    if second is not None and second.revision >= known and not is_old:
        found: Held | None = second
    else:
        found = _salvaged(job, past, second, known=known, is_old=is_old)
    kept = str(keep_aside(places.main(job), damaged)) if damaged is not None else ""
    if found is None:
        raise error
    held = _put(places, found)
    message = RECOVERED if second is not None else "Recovered job from its generations"
    telemetry.event("store.job_recovered", message=message, job=job, revision=held.revision, known=known, kept=kept)
    return held


def adopt_edit(places: Places, job: str, content: bytes) -> Held:
    """Takes a file that somebody else edited as it is; what they did not touch stays as it was. Raises CorruptJob."""
    found = {name: value for name, value in parsed(content).items() if name != KEY}
    past = past_in(job, places.past(job))
    second, _ = _second(places, job)
    known = max(past.highest, second.revision if second else 0)
    before = codec.decode_keyframe(second.keyframe.body) if second and second.keyframe else Keyframe(known, None)
    unedited: Plain = {}
    if before.document is not None:
        unedited = shaped(before.document, parsed(before.original) if before.original else {})
    base, now = adopted(job, unedited), adopted(job, found)
    keep_aside(places.main(job), content, "edited")
    frame = edited(before, base, now, revision=known + 1, original=original_text(found))
    return _put(places, _held(job, frame))


def rebuild_second(places: Places, held: Held, content: bytes) -> bool:
    """Makes the second copy the same as the job's file; whether it was not. A damaged one is kept."""
    path = places.second(held.job)
    present = path.read_bytes() if path.exists() else None
    if present == content:
        return False
    if present is not None and _is_damaged(held.job, present):
        keep_aside(path, present)
    replace_durably(path, content)
    return True


def _settle(places: Places, held: Held, content: bytes) -> None:
    """What a killed commit has left half-done beside a whole file: the second copy, and lines of the past."""
    if rebuild_second(places, held, content):
        telemetry.event("store.second_copy_made", job=held.job, revision=held.revision)
    for path in (places.past(held.job), places.ledger(held.job)):
        cut_after(path, held.revision)


def _salvaged(job: str, past: Past, second: Held | None, *, known: int, is_old: bool) -> Held | None:
    at = datetime.now(UTC)
    if is_old and second is not None and second.keyframe is not None and not past.frames:
        state = codec.decode_keyframe(second.keyframe.body)
        return _held(job, brought_back(state, max(known, second.revision), at))
    frames = {revision: stored.body for revision, stored in past.frames.items()}
    changes = {revision: stored.body for revision, stored in past.changes.items()}
    if second is not None and second.keyframe is not None and not is_old:
        frames[second.keyframe.revision] = second.keyframe.body
        changes |= {change.revision: change.body for change in second.since}
    best = salvage(frames, changes, known, at)
    return _held(job, best) if best is not None and best.document is not None else None


def _second(places: Places, job: str) -> tuple[Held | None, bool]:
    """The second copy, and whether it is the older tool's: then it is of some earlier moment."""
    path = places.second(job)
    try:
        content = path.read_bytes()
        found = parsed(content)
        if is_ours(found):
            return held_in(job, content, found), False
        return _adopted(job, found, 1), True
    except (FileNotFoundError, CorruptJob):
        return None, False


def _buried(places: Places, job: str) -> int:
    """The revision of the job's tombstone, 0 if it has none. Raises CorruptJob."""
    path = places.tombstone(job)
    if not path.exists():
        return 0
    content = path.read_bytes()
    return held_in(job, content, parsed(content)).revision


def _adopted(job: str, found: Plain, revision: int) -> Held:
    document = adopted(job, found, revision)
    if MENDED in document.labels:
        telemetry.event("store.counts_mended", job=job, told=document.labels[MENDED])
    return _held(job, Keyframe(revision, document, original=original_text(found)))


def _held(job: str, state: Keyframe) -> Held:
    document = state.document
    index = index_of(document) if document else IndexRow("", "", "")
    body = codec.encode(state)
    return Held(job, state.revision, index, StoredChange(state.revision, body), deleted=document is None)


def _put(places: Places, held: Held) -> Held:
    """Writes a job's file, second copy and a keyframe of its past, each by itself; the file makes it true."""
    content = text_of(held)
    if held.keyframe is not None:
        appended(places.past(held.job), frame_line(held.job, held.keyframe))
    replace_durably(places.main(held.job), content)
    replace_durably(places.second(held.job), content)
    return held


def _is_damaged(job: str, content: bytes) -> bool:
    try:
        found = parsed(content)
        if is_ours(found):
            held_in(job, content, found)
    except CorruptJob:
        return True
    return False
