"""A job's past in the tables `changes` and `keyframes`: what a replay needs, when it was, and forgetting it.

A stretch is what lies from one keyframe to the next. `earliest` of a keyframe is the lowest time among the
changes since the keyframe before it, so that the last revision before a moment is found without reading all
changes, although the clock may have gone backwards between them. Forgetting moves the beginning to the next
keyframe, whose own change stays: the oldest revision of a job is always that of its oldest change.
"""

import sqlite3
from collections.abc import Sequence
from datetime import datetime, timedelta

from actorstate import telemetry
from actorstate.core.codec import digest
from actorstate.errors import CorruptJob
from actorstate.store.contract import UNDATED, StoredChange

KEYFRAMES_TRIED = 8
"""How many keyframes back a damaged one is replaced by history before the job is called corrupt."""

_KEYFRAMES = """
SELECT revision, body, digest FROM keyframes WHERE job = ? AND revision <= ? ORDER BY revision DESC LIMIT ?
"""
_CHANGES = "SELECT revision, body, at, digest FROM changes WHERE job = ? AND revision > ? ORDER BY revision LIMIT ?"
_EARLIEST = """
SELECT min(at) FROM changes WHERE job = :job
AND revision > coalesce((SELECT max(revision) FROM keyframes WHERE job = :job), 0)
"""
_SINCE_KEYFRAME = """
SELECT revision FROM changes WHERE job = :job AND at <= :at
AND revision > coalesce((SELECT max(revision) FROM keyframes WHERE job = :job), 0) ORDER BY revision DESC LIMIT 1
"""
_BEFORE_KEYFRAME = """
SELECT revision FROM changes WHERE job = :job AND at <= :at
AND revision <= (SELECT max(revision) FROM keyframes WHERE job = :job AND earliest <= :at)
ORDER BY revision DESC LIMIT 1
"""
_NEXT = """
SELECT revision FROM keyframes WHERE job = :job
AND revision > (SELECT min(revision) FROM changes WHERE job = :job) ORDER BY revision LIMIT 2
"""
_LATEST = "SELECT max(at) FROM changes WHERE job = ? AND revision < ?"
_BEGINS = """
UPDATE keyframes SET earliest = (SELECT at FROM changes WHERE job = :job AND revision = :revision)
WHERE job = :job AND revision = :revision
"""


def microseconds(at: datetime) -> int:
    """A time as it is stored: whole microseconds since 1970, exactly."""
    return (at - UNDATED) // timedelta(microseconds=1)


def keyframe_at(reading: sqlite3.Connection, job: str, revision: int) -> StoredChange | None:
    """See Store."""
    damaged = 0
    for found, body, stored in reading.execute(_KEYFRAMES, (job, revision, KEYFRAMES_TRIED)):
        if digest(job, found, body) == stored:
            return StoredChange(found, body)
        damaged = damaged or found
        telemetry.event("store.damage_found", job=job, what="keyframe", revision=found)
    first = "SELECT 1 FROM changes WHERE job = ? AND revision = 1"
    if damaged and reading.execute(first, (job,)).fetchone() is None:
        raise CorruptJob(f"job {job!r}: the stored keyframe {damaged} does not match its digest", job=job)
    return None


def changes_after(reading: sqlite3.Connection, job: str, after: int, limit: int) -> list[StoredChange]:
    """See Store.changes."""
    changes: list[StoredChange] = []
    for revision, body, at, stored in reading.execute(_CHANGES, (job, after, limit)):
        if digest(job, revision, body, at) != stored:
            raise CorruptJob(f"job {job!r}: the stored change {revision} does not match its digest", job=job)
        changes.append(StoredChange(revision, body, UNDATED + timedelta(microseconds=at)))
    return changes


def oldest(reading: sqlite3.Connection, job: str) -> int:
    """See Store."""
    return int(reading.execute("SELECT min(revision) FROM changes WHERE job = ?", (job,)).fetchone()[0] or 0)


def revision_at(reading: sqlite3.Connection, job: str, at: datetime) -> int:
    """See Store. The change that is found and the next one are looked at whole: their times are under a digest."""
    asked = {"job": job, "at": microseconds(at)}
    found = reading.execute(_SINCE_KEYFRAME, asked).fetchone() or reading.execute(_BEFORE_KEYFRAME, asked).fetchone()
    revision = int(found[0]) if found else 0
    around = changes_after(reading, job, max(0, revision - 1), 2)
    if any((change.at <= at) != (change.revision <= revision) for change in around):
        raise CorruptJob(f"job {job!r}: the times stored around revision {revision} are damaged", job=job)
    return revision


def earliest(writing: sqlite3.Connection, job: str, added: Sequence[StoredChange]) -> int | None:
    """The lowest time since the last keyframe, `added` included; None when there was no change."""
    before = writing.execute(_EARLIEST, {"job": job}).fetchone()[0]
    times = [microseconds(change.at) for change in added] + ([] if before is None else [before])
    return min(times, default=None)


def next_beginning(reading: sqlite3.Connection, job: str, keep: int, before: datetime) -> int | None:
    """Where the job's history would begin without its oldest stretch; None where that must stay (Store.prune)."""
    keyframes = [revision for (revision,) in reading.execute(_NEXT, {"job": job})]
    if len(keyframes) < 2:  # noqa: PLR2004 - the next one, and the newest or one before it
        return None
    beginning = int(keyframes[0])
    revision = int(reading.execute("SELECT revision FROM jobs WHERE job = ?", (job,)).fetchone()[0])
    if beginning <= revision - keep + 1:
        return beginning
    latest = reading.execute(_LATEST, (job, beginning)).fetchone()[0]
    return beginning if latest is not None and latest < microseconds(before) else None


def forget_before(writing: sqlite3.Connection, job: str, beginning: int) -> int:
    """Removes all before the keyframe `beginning`, so many changes; within the caller's transaction."""
    forgotten = writing.execute("DELETE FROM changes WHERE job = ? AND revision < ?", (job, beginning)).rowcount
    writing.execute("DELETE FROM keyframes WHERE job = ? AND revision < ?", (job, beginning))
    writing.execute(_BEGINS, {"job": job, "revision": beginning})
    return forgotten
