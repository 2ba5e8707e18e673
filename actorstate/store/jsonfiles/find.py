"""What a directory of JSON files says, without a change to it: the job's file, its second copy, its past.

A file of the older tool is read as the job that it would become; where the file is damaged, `best_of` tells
the most that is left. What is done with it is in `recovery.py`.
"""

import json
from datetime import datetime
from typing import cast

from actorstate.core import codec
from actorstate.core.messages.replies import Keyframe
from actorstate.core.salvage import brought_back, salvage
from actorstate.errors import CorruptJob
from actorstate.store.contract import IndexRow, StoredChange
from actorstate.store.index import index_of
from actorstate.store.jsonfiles.adopt import adopted
from actorstate.store.jsonfiles.past import Past, past_in
from actorstate.store.jsonfiles.places import Places
from actorstate.store.jsonfiles.text import Held, held_in, is_jobs, is_ours, original_text, parsed
from actorstate.store.jsonfiles.words import Plain


def is_stranger(places: Places, job: str, content: bytes) -> bool:
    """Whether the file under a job's name is somebody else's: it looks like no job, and nothing beside it tells of one.

    One that cannot be parsed is a damaged job, unless it is a text that speaks of no id, which each job begins with.
    """
    if places.second(job).exists() or places.past(job).exists():
        return False
    try:
        value: object = json.loads(content)
    except (ValueError, RecursionError):
        return content.lstrip()[:1] in {b"{", b"["} and b'"id"' not in content
    return not isinstance(value, dict) or not is_jobs(job, cast("Plain", value))


def adopted_job(places: Places, job: str, found: Plain) -> Held:
    """The job that a file of the older tool becomes: above every revision that was known of its id.

    Raises CorruptJob for a file that is not the older tool's.
    """
    if not is_jobs(job, found):
        raise CorruptJob(f"job {job!r}: what its file holds is no job", job=job)
    known = max(past_in(job, places.past(job)).highest, _buried(places, job))
    return old_job(job, found, known + 1)


def old_job(job: str, found: Plain, revision: int) -> Held:
    """A file of the older tool as a job of this revision."""
    return held_of(job, Keyframe(revision, adopted(job, found, revision), original=original_text(found)))


def held_of(job: str, state: Keyframe) -> Held:
    """A state as a file holds it."""
    document = state.document
    index = index_of(document) if document else IndexRow("", "", "")
    frame = StoredChange(state.revision, codec.encode(state))
    return Held(job, state.revision, index, frame, deleted=document is None)


def second_of(places: Places, job: str) -> tuple[Held | None, bool]:
    """The second copy, and whether it is the older tool's: then it is of some earlier moment."""
    try:
        content = places.second(job).read_bytes()
        found = parsed(content)
        if is_ours(found):
            return held_in(job, content, found), False
        return old_job(job, found, 1), True
    except (FileNotFoundError, CorruptJob):
        return None, False


def best_of(places: Places, job: str, at: datetime) -> tuple[Held | None, int]:
    """The most that is left of a job whose file is damaged or gone, and the highest revision that was known of it.

    An older state is brought back as of `at`.
    """
    past = past_in(job, places.past(job))
    second, is_old = second_of(places, job)
    known = max(past.highest, second.revision if second else 0)
    if second is not None and second.revision >= known and not is_old:
        return second, known
    return _salvaged(job, past, second, known=known, is_old=is_old, at=at), known


def _salvaged(job: str, past: Past, second: Held | None, *, known: int, is_old: bool, at: datetime) -> Held | None:
    if is_old and second is not None and second.keyframe is not None and not past.frames:
        state = codec.decode_keyframe(second.keyframe.body)
        return held_of(job, brought_back(state, max(known, second.revision), at))
    frames = {revision: stored.body for revision, stored in past.frames.items()}
    changes = {revision: stored.body for revision, stored in past.changes.items()}
    if second is not None and second.keyframe is not None and not is_old:
        frames[second.keyframe.revision] = second.keyframe.body
        changes |= {change.revision: change.body for change in second.since}
    best = salvage(frames, changes, known, at)
    return held_of(job, best) if best is not None and best.document is not None else None


def _buried(places: Places, job: str) -> int:
    """The revision of the job's tombstone, 0 if it has none. Raises CorruptJob."""
    path = places.tombstone(job)
    if not path.exists():
        return 0
    content = path.read_bytes()
    return held_in(job, content, parsed(content)).revision
