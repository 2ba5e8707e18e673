"""The calls about a job's past, as operations (`operations.py`)."""

from datetime import datetime

from actorstate.client.calls import checked_job_id
from actorstate.client.operations import Emit, Operation, Stream, asked, changed, get
from actorstate.client.options import checked_moment
from actorstate.core.history import Difference, differences
from actorstate.core.messages.document import JobState
from actorstate.core.messages.replies import HistoryEntry, HistoryPage
from actorstate.core.messages.requests import ReadHistory, RestoreJob
from actorstate.errors import BadRequest

PAGE = 200
"""Changes in one reply."""


def history(
    job: str, *, after: int = 0, newest_first: bool = False, states: bool = False, limit: int | None = None
) -> Stream[HistoryEntry]:
    """The job's changes above revision `after`, the oldest that is kept first, at most `limit`; fetched page by page.

    With `states` each comes with the status and the counts that it led to. Raises JobNotFound, HistoryPruned
    where changes after `after` are kept no more (0: begins with those that are), CorruptJob for a damaged one.
    """
    if after < 0 or (limit is not None and limit < 1):
        raise BadRequest("after is a revision, limit at least 1")
    left, before = limit, None
    while left is None or left > 0:
        size = PAGE if left is None else min(PAGE, left)
        body = ReadHistory(checked_job_id(job), after, before, newest_first, states, size)
        page = yield from asked(body, HistoryPage)
        for entry in page.entries:
            yield Emit(entry)
        if not page.more:
            return
        last = page.entries[-1].revision
        after, before = (after, last) if newest_first else (last, None)
        left = None if left is None else left - len(page.entries)


def diff(job: str, a: int | datetime, b: int | datetime | None = None) -> Operation[tuple[Difference, ...]]:
    """What differs between the job at `a` and at `b` (None: now): path, old and new value of each field.

    A revision or an aware datetime, as for `get(at=)`. Raises what `get` does.
    """
    old = yield from get(job, at=a)
    new = yield from get(job, at=b)
    return differences(old, new)


def restore(job: str, *, at: int | datetime, by: str = "") -> Operation[JobState]:
    """Brings the job's work back as it was at that revision or time; returns it as it is then, paused.

    Progress, checkpoints, tracks, steps, phase, meta and errors come back, as a new revision: nothing is lost
    from history, and `recovered` says what was left behind. Workers are detached and fenced, and `resume` lets
    new ones go on. A job that has ended gets a new attempt. Raises JobNotFound, HistoryPruned, Conflict.
    """
    revision, time = checked_moment(at)
    yield from changed(RestoreJob(checked_job_id(job), revision, time, by))
    return (yield from get(job))
