"""A run shown as a job: its users are the job's rows, and pause, resume, cancel and throttle reach it between users.

The job is only a view: the journals are the truth, so a run goes on when the writer is away, and a state
directory that was lost costs the history and nothing else.
"""

import hashlib
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

from actorstate.client.run import Run
from actorstate.client.sync import Client
from actorstate.errors import ActorStateError, JobCancelled
from actorstate.migrate.plan import Plan, UserPlan
from actorstate.migrate.run import Outcome, Report, Watcher

KIND = "migrate-profiles"


def job_of(data: Path) -> str:
    """The id of the job that shows the migration of this folder."""
    place = str(data.resolve())
    return f"{KIND}-{hashlib.sha256(place.encode(errors='surrogateescape')).hexdigest()[:12]}"


class JobView(Watcher):
    """Shows a run as a job; leave its block when the run is over."""

    def __init__(self, client: Client, data: Path) -> None:
        self._client, self._data = client, data
        self._stack = ExitStack()
        self._run: Run | None = None
        self.notice = ""
        """Why the job does not show all of it."""

    @property
    def job(self) -> str:
        """The job's id."""
        return job_of(self._data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        try:
            self._stack.close()
        except ActorStateError as error:
            self.notice = error.message

    def begun(self, plan: Plan) -> None:
        """Creates the job, or opens a new attempt of the one there is. Raises WriterUnavailable."""
        meta: dict[str, object] = {"data": str(self._data), "layout": plan.layout, "bytes": plan.bytes}
        state = self._client.create(self.job, kind=KIND, total=len(plan.users), unit="users", meta=meta)
        if state.progress.processed and not state.finished:
            self._client.fail(self.job, "its process ended before it")  # DATA's lock says that nobody is at work
            state = self._client.get(self.job)
        if state.finished:
            self._client.retry(self.job, from_start=True)
        self._run = self._stack.enter_context(self._client.attach(self.job, exclusive=True, take_over=True))
        self._run.progress(total=len(plan.users))

    def may_go_on(self) -> None:
        """Waits while the job is paused or throttled. Raises JobCancelled."""
        if self._run is None:
            return
        try:
            self._run.heed()
        except JobCancelled:
            raise
        except ActorStateError as error:
            self.notice = error.message

    def ended(self, outcome: Outcome, plan: UserPlan) -> None:
        """Counts the user."""
        if self._run is None:
            return
        with suppress(ActorStateError):  # told when the block is left
            if outcome.result == "skipped":
                self._run.skipped(outcome.user)
            elif outcome.result in {"refused", "failed", "needs_attention"}:
                self._run.failed(outcome.user, outcome.reason, category=outcome.result)
            else:
                self._run.progress(succeeded=1, bytes=plan.bytes)

    def finished(self, report: Report) -> None:
        """Ends the job, unless somebody has ended it."""
        if self._run is None or report.stopped:
            return
        try:
            if report.good:
                self._run.complete()
            else:
                self._run.fail(", ".join(f"{number} {result}" for result, number in report.counts.items()))
        except ActorStateError as error:
            self.notice = error.message
