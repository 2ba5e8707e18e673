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
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, NamedTuple, TypeVar, Unpack, get_args

from actorstate.client.calls import checked_job_id
from actorstate.client.options import JobOptions, checked_moment, checked_speed, new_job
from actorstate.client.words import check_damaged, check_readable
from actorstate.core import codec
from actorstate.core.messages.document import Health, ItemOutcome, ItemState, JobState, Status
from actorstate.core.messages.replies import (
    Answer,
    Applied,
    Found,
    ItemsListed,
    Listed,
    NotModified,
    Reply,
    WriterState,
)
from actorstate.core.messages.requests import (
    ApproveJob,
    Ask,
    Body,
    ChangeRequest,
    ControlJob,
    CreateJob,
    DeleteJob,
    FinishJob,
    Get,
    GetAt,
    ListItems,
    ListJobs,
    RetryItems,
    RetryJob,
    ThrottleJob,
)
from actorstate.errors import ActorStateError, BadMessage, BadRequest, JobNotFound

Result = TypeVar("Result")
Item = TypeVar("Item")

ITEMS_A_PAGE = 500
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


def driven(operation: Operation[Result], call: Callable[[Send], Reply]) -> Result:
    """Carries an operation out, blocking; raises what it raises."""
    try:
        wanted = next(operation)
        while True:
            try:
                reply = call(wanted)
            except ActorStateError as error:
                wanted = operation.throw(error)
            else:
                wanted = operation.send(reply)
    except StopIteration as done:
        result: Result = done.value
        return result


async def awaited(operation: Operation[Result], call: Callable[[Send], Awaitable[Reply]]) -> Result:
    """Carries an operation out, awaiting each reply; raises what it raises."""
    try:
        wanted = next(operation)
        while True:
            try:
                reply = await call(wanted)
            except ActorStateError as error:
                wanted = operation.throw(error)
            else:
                wanted = operation.send(reply)
    except StopIteration as done:
        result: Result = done.value
        return result


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
    **options: Unpack[JobOptions],
) -> Operation[JobState]:
    """Creates the job, or returns the one of this id and kind.

    `unique_key` is held until the job has ended. With `needs_approval` (True, or the question to be answered)
    its workers wait for `approve` before their first row. `late_after_s`, `dead_after_s` and `stalled_after_s`
    are the ages of the last beat and of the last progress at which its workers' health changes (they beat once
    a second; default: as the writer was told); `on_dead` is what a worker's death does: "nothing", "fail" (the
    job, once its last live worker is dead) or "free" (its seat and its tracks). `expire_after_s` after its end
    the job is deleted. Raises Conflict for another kind, or while another job holds the key.
    """
    yield from changed(new_job(job, kind, total, unit, labels=labels, meta=meta, options=options))
    return (yield from get(job))


def get(job: str, *, at: int | datetime | None = None, timeout_s: float | None = None) -> Operation[JobState]:
    """The committed state; with `at` as it was at that revision, or at the last one made by that time.

    The time is an aware datetime, by the writer's clock as it was. Raises JobNotFound, also for a time before
    the job was created, HistoryPruned for a past that is not kept any more, BadRequest for what has not been.
    """
    body = Get(checked_job_id(job)) if at is None else GetAt(checked_job_id(job), *checked_moment(at))
    state = found((yield Send(body, timeout_s)).answer)
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


def jobs(
    *, status: str | None = None, kind: str | None = None, health: str | None = None, newest: bool = False
) -> Stream[JobState]:
    """All jobs that match, in the order of their ids or the newest first, fetched page by page.

    Where some are damaged, all others come first and then CorruptJob is raised.
    """
    for word, words in ((status, get_args(Status)), (health, get_args(Health))):
        if word is not None and word not in words:
            raise BadRequest(f"no job is {word!r}", hint=f"it is one of: {', '.join(words)}")
    damaged: list[str] = []
    after = ""
    while True:
        page = yield from asked(ListJobs(status, kind, health, after, newest=newest), Listed)
        damaged += page.damaged
        for packed in page.documents:
            yield Emit(codec.decode_state(packed))
        if not page.after:
            break
        after = page.after
    check_readable(damaged)


def items(
    job: str, *, outcome: ItemOutcome | None = None, category: str | None = None, after: str = ""
) -> Stream[ItemState]:
    """The job's items that match, in the order of their keys (by UTF-8) above `after`, fetched page by page.

    Where some are damaged, all others come first and then CorruptItem is raised. Raises JobNotFound.
    """
    damaged: list[str] = []
    while True:
        wanted = ListItems(checked_job_id(job), outcome, category, after, ITEMS_A_PAGE)
        page = yield from asked(wanted, ItemsListed)
        damaged += page.damaged
        for packed in page.items:
            yield Emit(codec.decode_item(packed))
        if not page.after:
            break
        after = page.after
    check_damaged(job, damaged)


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


def retry(job: str, *, where: str | None = None, from_start: bool = False, by: str = "") -> Operation[None]:
    """Opens a new attempt of a job that has ended, whichever way; the ended one is kept in `attempts`.

    With `where` the job may be open as well: its failed items of that category are taken out of the counts,
    and `job.retries()` hands them to a worker. Called again after a crash it goes on.

    It goes on from its checkpoints, tracks and counts; `from_start` drops them, and a given approval with
    them. Workers of the former attempt are fenced. Raises IllegalTransition while the job has not ended,
    Conflict where another job holds its unique key by now.
    """
    if where is None:
        yield from changed(RetryJob(checked_job_id(job), from_start, by))
        return
    if from_start:
        raise BadRequest("from the start all items are done again: give `where` or `from_start`, not both")
    state = yield from get(job)
    first = yield from asked(ListItems(job, "failed", where, "", 1), ItemsListed)
    if not first.items and not first.damaged and not state.progress.retrying:
        there_are = ", ".join(state.progress.by_category) or "none"
        raise BadRequest(f"job {job!r} has no failed item of category {where!r}; its categories: {there_are}", job=job)
    if state.finished:
        yield from changed(RetryJob(job, by=by))
    after = ""
    while True:
        page = yield from asked(ListItems(job, "failed", where, after, ITEMS_A_PAGE), ItemsListed)
        if page.items:
            yield from changed(RetryItems(job, tuple(codec.decode_item(packed).key for packed in page.items)))
        if not page.after:
            return
        after = page.after


def approve(job: str, *, question: str | None = None, by: str = "") -> Operation[None]:
    """Answers the job's open question with yes: its workers go on. Answered already: nothing is changed.

    Give the `question` that you have read, so that no other one is approved that was asked meanwhile. Raises
    IllegalTransition for another question, and where nothing was asked.
    """
    yield from changed(ApproveJob(checked_job_id(job), question, by))


def throttle(job: str, rows_per_s: float | None, *, by: str = "") -> Operation[None]:
    """Limits all workers of the job together to so many rows a second (0.001 to 1e9); None lifts the limit.

    It reaches them with their next reply, each gets an equal share, and their waiting does not count against
    the job's rate.
    """
    yield from changed(ThrottleJob(checked_job_id(job), checked_speed(rows_per_s), by))


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
    **options: Unpack[JobOptions],
) -> Seat:
    """A block in which this process is the job's only worker: creates or resumes it, and ends it.

    The job is completed when the block ends, failed when it raises; SystemExit and KeyboardInterrupt
    leave it to be resumed. The options are those of `create`, and nothing to a job that there is already.
    """
    create = new_job(job, kind, total, unit, meta=meta, options=options)
    return Seat(create.job, None, True, take_over, report_every_s, create)
