"""A worker's block: `run` (one worker, from creation to the end) and `attach` (one of many)."""

import contextlib
import os
import sys
import time
from collections.abc import Generator
from contextlib import AbstractContextManager

from actorstate.client import exits
from actorstate.client.operations import Seat
from actorstate.client.run import Run
from actorstate.client.sender import Membership, Transport
from actorstate.client.wishes import read_document
from actorstate.client.words import MAX_NAME, checked_name
from actorstate.core.messages.replies import Applied
from actorstate.core.messages.requests import Attach, CreateJob, Detach
from actorstate.endpoint import process_space, process_started
from actorstate.errors import (
    ActorStateError,
    BadMessage,
    BadRequest,
    JobCancelled,
    JobFinished,
    NotApproved,
    OutcomeUnknown,
    WriterUnavailable,
)


def block(transport: Transport, seat: Seat) -> AbstractContextManager[Run]:
    """The block of `Client.attach` or `Client.run`."""
    return attached(transport, seat) if seat.create is None else run_to_end(transport, seat, seat.create)


@contextlib.contextmanager
def attached(transport: Transport, seat: Seat) -> Generator[Run]:
    """The block of `Client.attach`."""
    run = _open(transport, seat)
    with _guarded(transport, run):
        yield run


@contextlib.contextmanager
def run_to_end(transport: Transport, seat: Seat, create: CreateJob) -> Generator[Run]:
    """The block of `Client.run`. An error of the reporting is none of the job: it stays to be resumed."""
    transport.call(create)
    run = _open(transport, seat)
    with _guarded(transport, run):
        try:
            yield run
        except JobCancelled:
            raise
        except Exception as error:
            if _may_be_resumed(error):
                raise
            with _noted_in(error, run):
                run.fail(f"{type(error).__name__}: {error}")
            raise
        if not run.ended:
            run.complete()


def _may_be_resumed(error: Exception) -> bool:
    """The writer was away, its disk full, or a question open: that says nothing about the work."""
    if isinstance(error, OutcomeUnknown | NotApproved):
        return True
    return isinstance(error, ActorStateError) and error.retryable


@contextlib.contextmanager
def _guarded(transport: Transport, run: Run) -> Generator[None]:
    """Loses nothing on the way out: flushes and detaches, whatever ends the block."""
    with exits.covered(run.sender, transport.settings.exit_flush_s):
        try:
            yield
        except JobCancelled:
            _leave(transport, run)
        except BaseException as error:
            with _noted_in(error, run):
                _leave(transport, run)
            raise
        else:
            _leave(transport, run)
        finally:
            run.sender.close()


def _leave(transport: Transport, run: Run) -> None:
    if not run.sender.mine or run.sender.closed:
        return
    member, until = run.member, time.monotonic() + transport.settings.exit_flush_s
    refusal: ActorStateError | None = None
    try:
        run.sender.flush(transport.settings.exit_flush_s)
    except (JobFinished, BadRequest) as error:
        refusal = error
    except WriterUnavailable:
        raise transport.addressed(_unsaid(run)) from None
    if not (isinstance(refusal, JobFinished) and run.totals.sent == run.totals.acknowledged):
        left_s = max(0.1, until - time.monotonic())
        transport.call(Detach(member.job, member.worker, member.incarnation), left_s)
        if refusal is not None:
            raise refusal


def _unsaid(run: Run) -> WriterUnavailable:
    rows = run.totals.sent - run.totals.acknowledged
    return WriterUnavailable(
        f"the writer did not answer while job {run.job!r} was left: {rows} rows and what else was said since its "
        "last answer may be lost",
        hint=f"see what is saved: actorstate get DIR {run.job}; the next run goes on from there",
    )


@contextlib.contextmanager
def _noted_in(error: BaseException, run: Run) -> Generator[None]:
    """What cannot be said any more because of `error` is added to it, not put in its place."""
    try:
        yield
    except ActorStateError as second:
        note = f"actorstate: while leaving job {run.job!r}: {second}"
        error.add_note(note)
        if not isinstance(error, Exception):
            print(note, file=sys.stderr)  # noqa: T201 - nobody prints the notes of SystemExit


def _open(transport: Transport, seat: Seat) -> Run:
    pid, host = os.getpid(), os.uname().nodename[:MAX_NAME] or "localhost"
    name = checked_name(seat.worker or f"{host[:80]}-{pid}-{os.urandom(4).hex()}")
    space, started = process_space(), process_started(pid)
    attach = Attach(seat.job, name, host, pid, space, started, seat.exclusive, seat.take_over)
    answer = transport.call(attach).answer
    if not isinstance(answer, Applied):
        raise BadMessage("the writer did not confirm the attachment")
    member = Membership(seat.job, name, answer.incarnation)
    try:
        document = read_document(transport, seat.job)
    except BaseException:
        with contextlib.suppress(ActorStateError):  # else it would be attached without a beat until it is judged dead
            transport.call(Detach(member.job, member.worker, member.incarnation))
        raise
    return Run(transport, member, document, seat.report_every_s)
