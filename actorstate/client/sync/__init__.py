"""The blocking client: the calls that readers and controllers make, and the way in for workers.

Nothing is opened at import or before the first use.
"""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Self, TypeVar

from actorstate.client.blocks import Seat, attached, run_to_end
from actorstate.client.calls import checked_job_id
from actorstate.client.run import Run
from actorstate.client.sync.pool import Transport
from actorstate.config import ClientSettings
from actorstate.core import codec
from actorstate.core.messages.document import JobState
from actorstate.core.messages.payload import pack
from actorstate.core.messages.replies import Found, Listed, WriterState
from actorstate.core.messages.requests import (
    Ask,
    Body,
    ControlJob,
    CreateJob,
    DeleteJob,
    FinishJob,
    Get,
    ListJobs,
)
from actorstate.errors import BadMessage, BadRequest, JobNotFound

Expected = TypeVar("Expected")

WAIT_SLICE_S = 20.0
"""A long poll is renewed this often, so that a lost answer delays news by no more."""


class Client:
    """The calls of readers and controllers, and the way in for workers. Every call ends by `timeout_s`.

    Raises the errors of `errors.py`: JobNotFound, JobFinished, Busy..., WriterUnavailable when nobody
    answered, OutcomeUnknown when a change was sent and no answer came.
    """

    def __init__(self, directory: Path, settings: ClientSettings) -> None:
        self._transport = Transport(directory, settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def create(
        self,
        job: str,
        *,
        kind: str = "job",
        total: int | None = None,
        unit: str = "rows",
        labels: dict[str, str] | None = None,
        meta: dict[str, object] | None = None,
    ) -> JobState:
        """Creates the job, or returns the one of this id and kind. Raises Conflict for another kind."""
        packed = {key: pack(value) for key, value in (meta or {}).items()}
        self._change(CreateJob(checked_job_id(job), kind, total, unit, labels or {}, packed))
        return self.get(job)

    def get(self, job: str, *, timeout_s: float | None = None) -> JobState:
        """The committed state. Raises JobNotFound."""
        state = self._get(Get(checked_job_id(job)), timeout_s)
        if state is None:
            raise JobNotFound(f"there is no job {job!r}", job=job)
        return state

    def get_if_newer(self, job: str, revision: int) -> JobState | None:
        """The state if its revision is above `revision`, else None."""
        return self._get(Get(checked_job_id(job), newer_than=revision))

    def wait(self, job: str, *, after: int, timeout_s: float = 30.0) -> JobState:
        """The state once its revision is above `after`; the state as it is when `timeout_s` is over."""
        until = time.monotonic() + timeout_s
        while (left := until - time.monotonic()) > 0:
            slice_s = min(left, WAIT_SLICE_S)
            held = Get(checked_job_id(job), newer_than=after, wait_s=slice_s)
            state = self._get(held, slice_s + self._transport.settings.timeout_s)
            if state is not None:
                return state
            if self.get(job).finished:
                break
        return self.get(job)

    def watch(self, job: str) -> Iterator[JobState]:
        """Each newer state as it is committed (some may be skipped), up to and with the job's end."""
        state = self.get(job)
        yield state
        while not state.finished:
            newer = self.wait(job, after=state.revision)
            if newer.revision > state.revision:
                state = newer
                yield state

    def jobs(
        self, *, status: str | None = None, kind: str | None = None, health: str | None = None
    ) -> Iterator[JobState]:
        """All jobs that match, in the order of their ids, fetched page by page."""
        after = ""
        while True:
            page = self._ask(ListJobs(status, kind, health, after), Listed)
            for packed in page.documents:
                yield codec.decode_state(packed)
            if not page.after:
                return
            after = page.after

    def pause(self, job: str, *, by: str = "") -> None:
        """Asks the workers to save and stop at their next row; without any, the job is paused at once."""
        self._change(ControlJob(checked_job_id(job), "pause", by))

    def resume(self, job: str, *, by: str = "") -> None:
        """Lets a paused job go on, or withdraws a pause."""
        self._change(ControlJob(checked_job_id(job), "resume", by))

    def cancel(self, job: str, *, by: str = "") -> None:
        """Asks the workers to save and end; without any, the job is cancelled at once."""
        self._change(ControlJob(checked_job_id(job), "cancel", by))

    def complete(self, job: str) -> None:
        """Ends the job as completed."""
        self._change(FinishJob(checked_job_id(job), "completed"))

    def fail(self, job: str, reason: str) -> None:
        """Ends the job as failed."""
        self._change(FinishJob(checked_job_id(job), "failed", reason[:2000]))

    def delete(self, job: str) -> None:
        """Removes a job that no living worker is attached to. Raises JobNotFound, IllegalTransition."""
        self._change(DeleteJob(checked_job_id(job)))

    def ask(self, *, timeout_s: float | None = None) -> WriterState:
        """The writer about itself."""
        return self._ask(Ask(), WriterState, timeout_s)

    def attach(
        self,
        job: str,
        *,
        worker: str | None = None,
        exclusive: bool = False,
        take_over: bool = False,
        report_every_s: float = 0.0,
    ) -> AbstractContextManager[Run]:
        """A block in which this process is one of the job's workers; leaving it only detaches.

        Raises JobNotFound, JobFinished, AlreadyAttached. `report_every_s` sends at most one progress
        message in so many seconds; checkpoints and the end never wait for it.
        """
        seat = Seat(checked_job_id(job), worker, exclusive, take_over, report_every_s)
        return attached(self._transport, seat)

    def run(
        self,
        job: str,
        *,
        kind: str = "job",
        total: int | None = None,
        unit: str = "rows",
        meta: dict[str, object] | None = None,
        take_over: bool = False,
        report_every_s: float = 0.0,
    ) -> AbstractContextManager[Run]:
        """A block in which this process is the job's only worker: creates or resumes it, and ends it.

        The job is completed when the block ends, failed when it raises; SystemExit and KeyboardInterrupt
        leave it to be resumed.
        """
        packed = {key: pack(value) for key, value in (meta or {}).items()}
        create = CreateJob(checked_job_id(job), kind, total, unit, {}, packed)
        return run_to_end(self._transport, create, Seat(create.job, None, True, take_over, report_every_s))

    def close(self) -> None:
        """Closes this process's sockets within `linger_s`; the client can be used again."""
        self._transport.close()

    def _change(self, body: Body) -> None:
        self._transport.call(body)

    def _ask(self, body: Body, expected: type[Expected], timeout_s: float | None = None) -> Expected:
        answer = self._transport.call(body, timeout_s).answer
        if not isinstance(answer, expected):
            raise BadMessage(f"the writer answered with {type(answer).__name__}")
        return answer

    def _get(self, body: Get, timeout_s: float | None = None) -> JobState | None:
        answer = self._transport.call(body, timeout_s).answer
        if isinstance(answer, Found):
            return codec.decode_state(answer.document, answer.last_beat_s)
        return None


def connect(directory: str | Path, *, settings: ClientSettings | None = None) -> Client:
    """A client for the writer of `directory`. Opens nothing: the first call does."""
    if "://" in str(directory):
        raise BadRequest(f"{directory} is not a directory", hint="give the directory that `actorstate serve` was given")
    return Client(Path(directory).absolute(), settings or ClientSettings())
