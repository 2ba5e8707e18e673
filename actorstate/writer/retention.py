"""Forgetting: a job's oldest history, a stretch at a time, between commits.

Where a keyframe was committed the job is looked at soon, so that forgetting keeps up with what is written;
all others come by in a slow round, because history also grows too old.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from actorstate import telemetry
from actorstate.config import WriterSettings
from actorstate.errors import CorruptJob, DiskFull
from actorstate.store.contract import JobCommit, JobQuery, Store

ROUND_JOBS = 20
"""Jobs that a tick of the round looks at; 100,000 jobs take an hour and a half."""


class Retention:
    """Which jobs are due for forgetting. Used by the loop, while no commit is under way."""

    def __init__(self, store: Store, epoch: int, settings: WriterSettings) -> None:
        self._store, self._epoch, self._settings = store, epoch, settings
        self._due: dict[str, None] = {}
        self._after = ""

    @property
    def due(self) -> bool:
        """Whether `step` has something to look at."""
        return bool(self._due)

    def note(self, parts: Iterable[JobCommit]) -> None:
        """These were committed with a keyframe. A whole store has one in each commit, and reads all to cut a past."""
        for part in parts:
            if not part.deleted and not self._store.whole:
                self._due[part.job] = None

    def tick(self) -> None:
        """Takes the next jobs of the round."""
        page = self._store.list_jobs(JobQuery(after=self._after, limit=ROUND_JOBS))
        self._after = page[-1] if len(page) == ROUND_JOBS else ""
        self._due.update(dict.fromkeys(page))

    def step(self) -> None:
        """Forgets at most one stretch of one job; a full disk or a damaged job only puts it off."""
        job = next(iter(self._due))
        del self._due[job]
        before = datetime.now(UTC) - timedelta(seconds=self._settings.history_age_s)
        try:
            forgotten = self._store.prune(self._epoch, job, self._settings.history_changes, before)
            if forgotten:
                self._due[job] = None
                telemetry.event("history.forgotten", job=job, number=forgotten)
        except (DiskFull, CorruptJob) as error:
            telemetry.event("history.kept", job=job, error=error)
