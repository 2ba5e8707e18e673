"""Each call of the client, once, for the blocking and the asyncio client alike. No sockets and no waiting here.

An `Operation[Result]` is a generator: it yields each request that it wants answered (`Send`), is given the
reply, and returns its result; what the writer refuses with is raised in it. It calls others by `yield from`.
A `Stream[Item]` also yields `Emit(item)` for each item that the caller's loop is to get. The drivers
(`client/sync`, `client/aio`) carry names, signatures and docstrings over from here: `client/carried.py`.

    def rename(job: str, name: str, *, by: str = "") -> Operation[None]:
        \"\"\"Gives the job another name. Raises JobNotFound.\"\"\"
        yield from changed(RenameJob(checked_job_id(job), name, by))

and in each of the two clients one line: `rename = carried(operations.rename)`.
"""

import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from actorstate.client.calls import checked_job_id
from actorstate.core import codec
from actorstate.core.messages.document import JobState
from actorstate.core.messages.payload import pack
from actorstate.core.messages.replies import Answer, Applied, Found, Listed, NotModified, Reply, WriterState
from actorstate.core.messages.requests import (
    Ask,
    Body,
    ChangeRequest,
    ControlJob,
    CreateJob,
    DeleteJob,
    FinishJob,
    Get,
    ListJobs,
)
from actorstate.errors import ActorStateError, BadMessage, JobNotFound

Result = TypeVar("Result")
Item = TypeVar("Item")

WAIT_SLICE_S = 20.0
"""A long poll is renewed this often, so that a lost answer delays news by no more."""


class Send(NamedTuple):
    """A request to be answered within `timeout_s` (None: as the client is set, and a long poll's time besides)."""

    body: Body
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class Emit(Generic[Item]):
    """One item of a stream."""

    item: Item


Operation = Generator[Send, Reply, Result]
Stream = Generator[Send | Emit[Item], Reply, None]


def next_item(stream: Stream[Item]) -> Operation[Emit[Item] | None]:
    """Carries the stream on to its next item; None at its end."""
    try:
        wanted = next(stream)
        while not isinstance(wanted, Emit):
            try:
                reply = yield wanted
            except ActorStateError as error:
                wanted = stream.throw(error)
            else:
                wanted = stream.send(reply)
    except StopIteration:
        return None
    return wanted


def asked(body: Body, expected: type[Result], timeout_s: float | None = None) -> Operation[Result]:
    """The answer to one request, which is of this type. Raises BadMessage for another."""
    answer = (yield Send(body, timeout_s)).answer
    if not isinstance(answer, expected):
        raise BadMessage(f"the writer answered with {type(answer).__name__}")
    return answer


def changed(body: ChangeRequest) -> Operation[Applied]:
    """One change: durable when it is answered."""
    return (yield from asked(body, Applied))


def found(answer: Answer) -> JobState | None:
    """The state that was asked for; None when it is not newer than the caller's."""
    if isinstance(answer, Found):
        return codec.decode_state(answer.document, answer.last_beat_s)
    if isinstance(answer, NotModified):
        return None
    raise BadMessage(f"the writer answered with {type(answer).__name__}")


def create(
    job: str,
    *,
    kind: str = "job",
    total: int | None = None,
    unit: str = "rows",
    labels: dict[str, str] | None = None,
    meta: dict[str, object] | None = None,
) -> Operation[JobState]:
    """Creates the job, or returns the one of this id and kind. Raises Conflict for another kind."""
    packed = {key: pack(value) for key, value in (meta or {}).items()}
    yield from changed(CreateJob(checked_job_id(job), kind, total, unit, labels or {}, packed))
    return (yield from get(job))


def get(job: str, *, timeout_s: float | None = None) -> Operation[JobState]:
    """The committed state. Raises JobNotFound."""
    state = found((yield Send(Get(checked_job_id(job)), timeout_s)).answer)
    if state is None:
        raise JobNotFound(f"there is no job {job!r}", job=job)
    return state


def get_if_newer(job: str, revision: int) -> Operation[JobState | None]:
    """The state if its revision is above `revision`, else None."""
    return found((yield Send(Get(checked_job_id(job), newer_than=revision))).answer)


def wait(job: str, *, after: int, timeout_s: float = 30.0) -> Operation[JobState]:
    """The state once its revision is above `after`; the state as it is when `timeout_s` is over."""
    until = time.monotonic() + timeout_s
    while (left := until - time.monotonic()) > 0:
        held = Get(checked_job_id(job), newer_than=after, wait_s=min(left, WAIT_SLICE_S))
        state = found((yield Send(held)).answer)
        if state is not None:
            return state
        if (yield from get(job)).finished:
            break
    return (yield from get(job))


def watch(job: str) -> Stream[JobState]:
    """Each newer state as it is committed (some may be skipped), up to and with the job's end."""
    state = yield from get(job)
    yield Emit(state)
    while not state.finished:
        newer = yield from wait(job, after=state.revision)
        if newer.revision > state.revision:
            state = newer
            yield Emit(state)


def jobs(*, status: str | None = None, kind: str | None = None, health: str | None = None) -> Stream[JobState]:
    """All jobs that match, in the order of their ids, fetched page by page."""
    after = ""
    while True:
        page = yield from asked(ListJobs(status, kind, health, after), Listed)
        for packed in page.documents:
            yield Emit(codec.decode_state(packed))
        if not page.after:
            return
        after = page.after


def pause(job: str, *, by: str = "") -> Operation[None]:
    """Asks the workers to save and stop at their next row; without any, the job is paused at once."""
    yield from changed(ControlJob(checked_job_id(job), "pause", by))


def resume(job: str, *, by: str = "") -> Operation[None]:
    """Lets a paused job go on, or withdraws a pause."""
    yield from changed(ControlJob(checked_job_id(job), "resume", by))


def cancel(job: str, *, by: str = "") -> Operation[None]:
    """Asks the workers to save and end; without any, the job is cancelled at once."""
    yield from changed(ControlJob(checked_job_id(job), "cancel", by))


def complete(job: str) -> Operation[None]:
    """Ends the job as completed."""
    yield from changed(FinishJob(checked_job_id(job), "completed"))


def fail(job: str, reason: str) -> Operation[None]:
    """Ends the job as failed."""
    yield from changed(FinishJob(checked_job_id(job), "failed", reason[:2000]))


def delete(job: str) -> Operation[None]:
    """Removes a job that no living worker is attached to. Raises JobNotFound, IllegalTransition."""
    yield from changed(DeleteJob(checked_job_id(job)))


def ask(*, timeout_s: float | None = None) -> Operation[WriterState]:
    """The writer about itself."""
    return (yield from asked(Ask(), WriterState, timeout_s))


@dataclass(frozen=True, slots=True)
class Seat:
    """How a worker wants to be attached to a job. With `create` the job is its own: created first, ended last."""

    job: str
    worker: str | None
    exclusive: bool
    take_over: bool
    report_every_s: float
    create: CreateJob | None = None


def attach(
    job: str,
    *,
    worker: str | None = None,
    exclusive: bool = False,
    take_over: bool = False,
    report_every_s: float = 0.0,
) -> Seat:
    """A block in which this process is one of the job's workers; leaving it only detaches.

    Raises JobNotFound, JobFinished, AlreadyAttached. `report_every_s` sends at most one progress
    message in so many seconds; checkpoints and the end never wait for it.
    """
    return Seat(checked_job_id(job), worker, exclusive, take_over, report_every_s)


def run(
    job: str,
    *,
    kind: str = "job",
    total: int | None = None,
    unit: str = "rows",
    meta: dict[str, object] | None = None,
    take_over: bool = False,
    report_every_s: float = 0.0,
) -> Seat:
    """A block in which this process is the job's only worker: creates or resumes it, and ends it.

    The job is completed when the block ends, failed when it raises; SystemExit and KeyboardInterrupt
    leave it to be resumed.
    """
    packed = {key: pack(value) for key, value in (meta or {}).items()}
    create = CreateJob(checked_job_id(job), kind, total, unit, {}, packed)
    return Seat(create.job, None, True, take_over, report_every_s, create)
