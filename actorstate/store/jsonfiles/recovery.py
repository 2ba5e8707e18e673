"""From what lies in the directory to whole jobs: adopt, recover, mend; whatever is damaged is kept beside.

The order of a commit (past, job's file, second copy) makes the job's file the truth where it is whole. Where
it is not, the second copy takes its place, or what the past leads to; never at a lower revision than known.
"""

import time
from datetime import UTC, datetime
from pathlib import Path

from actorstate import telemetry
from actorstate.core import codec
from actorstate.core.messages.replies import Keyframe
from actorstate.core.salvage import edited
from actorstate.errors import CorruptJob
from actorstate.store.files import make_private_folder, sync_folder
from actorstate.store.jsonfiles.adopt import MENDED, adopted
from actorstate.store.jsonfiles.find import adopted_job, best_of, held_of, second_of
from actorstate.store.jsonfiles.ledger import item_lines, ledger_in
from actorstate.store.jsonfiles.past import appended, cut_after, frame_line, past_in, past_lines
from actorstate.store.jsonfiles.places import Places, content_of, keep_aside, replace_durably
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
    held = adopted_job(places, job, found)
    document = codec.decode_keyframe(held.keyframe.body).document if held.keyframe else None
    if document is not None and MENDED in document.labels:
        telemetry.event("store.counts_mended", job=job, told=document.labels[MENDED])
    telemetry.event("store.job_adopted", job=job, status=held.index.status, revision=held.revision)
    return _put(places, held)


def recover_job(places: Places, job: str, damaged: bytes | None, error: CorruptJob) -> Held:
    """Puts the best that is left in the place of a damaged file, which is kept. Raises `error` when nothing is."""
    telemetry.event("store.parse_failed", message=PARSE_ERROR, job=job, path=str(places.main(job)), error=error.message)
    found, known = best_of(places, job, datetime.now(UTC))
    kept = str(keep_aside(places.main(job), damaged)) if damaged is not None and found is not None else ""
    if found is None:
        raise error
    from_second = second_of(places, job)[0] is not None
    if from_second:
        telemetry.event("store.second_copy_used", job=job, path=str(places.second(job)))
    held = _put(places, found)
    message = RECOVERED if from_second else "Recovered job from its generations"
    telemetry.event("store.job_recovered", message=message, job=job, revision=held.revision, known=known, kept=kept)
    return held


def adopt_edit(places: Places, job: str, content: bytes) -> Held:
    """Takes a file that somebody else edited as it is; what they did not touch stays as it was. Raises CorruptJob."""
    found = {name: value for name, value in parsed(content).items() if name != KEY}
    past = past_in(job, places.past(job))
    second, _ = second_of(places, job)
    known = max(past.highest, second.revision if second else 0)
    before = codec.decode_keyframe(second.keyframe.body) if second and second.keyframe else Keyframe(known, None)
    unedited: Plain = {}
    if before.document is not None:
        unedited = shaped(before.document, parsed(before.original) if before.original else {})
    base, now = adopted(job, unedited), adopted(job, found)
    keep_aside(places.main(job), content, "edited")
    frame = edited(before, base, now, revision=known + 1, original=original_text(found))
    return _put(places, held_of(job, frame))


def mend_past(places: Places, job: str) -> bool:
    """Takes damaged lines out of the job's past and ledger; the files as they were are kept. Whether there were any."""
    past, ledger = past_in(job, places.past(job)), ledger_in(job, places.ledger(job))
    if past.damaged:
        keep_aside(places.past(job), places.past(job).read_bytes())
        replace_durably(places.past(job), past_lines(job, past.rebuildable()))
    lost = [item.key for item in ledger.items.values() if not item.body]
    if lost:
        keep_aside(places.ledger(job), places.ledger(job).read_bytes())
        whole = [item for item in ledger.items.values() if item.body]
        replace_durably(places.ledger(job), item_lines(job, past.highest, whole))
    return bool(past.damaged or lost)


def quarantine(places: Places, job: str) -> Path:
    """Moves all files of a job that cannot be read into a folder of their own; its revisions are never given again."""
    folder = places.directory / ".quarantine" / f"{job}.{time.time_ns() // 1_000_000}"
    make_private_folder(folder)
    known = max(past_in(job, places.past(job)).highest, 1)
    replace_durably(places.tombstone(job), text_of(held_of(job, Keyframe(known + 1, None))))
    for path in (places.main(job), places.second(job), places.past(job), places.ledger(job)):
        if path.exists():
            path.rename(folder / path.name)
    for touched in (folder, *places.folders):
        sync_folder(touched)
    return folder


def rebuild_second(places: Places, held: Held, content: bytes) -> bool:
    """Makes the second copy the same as the job's file; whether it was not. A damaged one is kept."""
    path = places.second(held.job)
    present = content_of(path)
    if present == content:
        return False
    if present is not None and is_damaged(held.job, present):
        keep_aside(path, present)
    replace_durably(path, content)
    return True


def is_damaged(job: str, content: bytes) -> bool:
    """Whether a file is neither the older tool's nor as we wrote it."""
    try:
        found = parsed(content)
        if is_ours(found):
            held_in(job, content, found)
    except CorruptJob:
        return True
    return False


def _settle(places: Places, held: Held, content: bytes) -> None:
    """What a killed commit has left half-done beside a whole file: the second copy, and lines of past and ledger."""
    if rebuild_second(places, held, content):
        telemetry.event("store.second_copy_made", job=held.job, revision=held.revision)
    for path in (places.past(held.job), places.ledger(held.job)):
        cut_after(path, held.revision)


def _put(places: Places, held: Held) -> Held:
    """Writes a job's file, second copy and a keyframe of its past, each by itself; the file makes it true."""
    content = text_of(held)
    if held.keyframe is not None:
        appended(places.past(held.job), frame_line(held.job, held.keyframe))
    replace_durably(places.main(held.job), content)
    replace_durably(places.second(held.job), content)
    return held
