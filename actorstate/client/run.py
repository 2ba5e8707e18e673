"""A worker's block: `run` (one worker, from creation to the end) and `attach` (one of many)."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from actorstate.client import exits
from actorstate.client.pending import Pending
from actorstate.client.sender import Membership, Sender, Totals, Transport
from actorstate.client.track import Position, Turns, tracked
from actorstate.core import codec
from actorstate.core.messages.document import Document, Intent, Track, order_of
from actorstate.core.messages.payload import pack, unpack
from actorstate.core.messages.replies import Applied, Found
from actorstate.core.messages.requests import (
    MAX_COUNT,
    Attach,
    Counts,
    CreateJob,
    Detach,
    ErrorReport,
    FinishJob,
    Get,
    Report,
    StepReport,
    TrackPoint,
)
from actorstate.endpoint import process_space, process_started
from actorstate.errors import ActorStateError, BadMessage, BadRequest, JobCancelled, JobFinished, JobNotFound

Row = TypeVar("Row")

MAX_TEXT = 2_000
MAX_KEY = 256
MAX_NAME = 128
MAX_THROTTLED_S = 1e6


class Run:
    """One worker's view of its job. All methods may be called from several threads of the process that opened it."""

    def __init__(self, transport: Transport, member: Membership, document: Document, report_every_s: float) -> None:
        self.transport, self.member = transport, member
        self._checkpoints = {name: checkpoint.packed for name, checkpoint in document.checkpoints.items()}
        self.turns = Turns()
        self.sender = Sender(transport, member, report_every_s, order_of(document))
        self._heeded = 0

    @property
    def job(self) -> str:
        """The job's id."""
        return self.member.job

    @property
    def worker(self) -> str:
        """This worker's name."""
        return self.member.worker

    @property
    def totals(self) -> Totals:
        """Rows counted here so far, and those acknowledged."""
        return self.sender.totals

    @property
    def resume_from(self) -> object:
        """What the checkpoint `default` held when this run began or saved it last; None without one."""
        return self.resume_from_name("default")

    def resume_from_name(self, name: str) -> object:
        """The same for the checkpoint `name`."""
        packed = self._checkpoints.get(name)
        return None if packed is None else unpack(packed)

    def progress(
        self,
        *,
        succeeded: int = 0,
        failed: int = 0,
        skipped: int = 0,
        duplicates: int = 0,
        bytes: int = 0,  # noqa: A002 - the document's own word
        total: int | None = None,
    ) -> None:
        """Adds to the counts and returns at once. Raises what ended the run (Fenced, JobFinished)."""
        for count in (succeeded, failed, skipped, duplicates, bytes, total or 0):
            if not 0 <= count <= MAX_COUNT:
                raise BadRequest(f"a count is an increment of 0 to {MAX_COUNT}, not {count}")
        counts = Counts(succeeded, failed, skipped, duplicates, bytes, {"unknown": failed} if failed else {})

        def put(pending: Pending) -> None:
            pending.add_counts(counts)
            pending.total = pending.total if total is None else total

        self.sender.say(put, counts)

    def failed(self, key: object, error: object, *, category: str = "unknown") -> None:
        """This row failed. Within a track it is the outcome of the present row."""
        name = _name(category)
        report = ErrorReport(_text(key, MAX_KEY), _text(error, MAX_TEXT), name)
        self._outcome(Counts(failed=1, by_category={name: 1}), (report,))

    def skipped(self, _key: object = None) -> None:
        """This row was left out on purpose."""
        self._outcome(Counts(skipped=1), ())

    def duplicate(self, _key: object = None) -> None:
        """This row was there already."""
        self._outcome(Counts(duplicates=1), ())

    def phase(self, text: str) -> None:
        """Names what the job is doing now."""
        phase = _text(text, MAX_TEXT)
        self.sender.say(lambda pending: setattr(pending, "phase", phase))

    def step(self, name: str, status: str = "running", data: object = None) -> None:
        """A named part began (`running`) or ended (`done`, `failed`, `skipped`)."""
        if status not in {"running", "done", "failed", "skipped"}:
            raise BadRequest(f"a step is running, done, failed or skipped, not {status!r}")
        report = StepReport(_name(name), status, b"" if data is None else pack(data))  # type: ignore[arg-type]  # checked
        self.sender.say(lambda pending: pending.steps.append(report))

    def meta(self, **values: object) -> None:
        """Merges values into the job's meta, key by key."""
        packed = {_name(key): pack(value) for key, value in values.items()}
        self.sender.say(lambda pending: pending.meta.update(packed))

    def throttled(self, seconds: float) -> None:
        """Time spent waiting for a rate limit; it does not count against the rate."""
        if not 0 <= seconds <= MAX_THROTTLED_S:
            raise BadRequest(f"a wait takes 0 to {MAX_THROTTLED_S:g} seconds, not {seconds}")

        def put(pending: Pending) -> None:
            pending.throttled_s += seconds
            pending.throttles += 1

        self.sender.say(put)

    def checkpoint(self, data: object, *, name: str = "default") -> None:
        """Saves a resume point: durable on return, with all progress said before it.

        Raises WriterUnavailable when the writer stays away; the checkpoint is kept and sent later.
        """
        packed, name = pack(data), _name(name)
        place = self.sender.say(lambda pending: pending.checkpoints.__setitem__(name, packed))
        self.sender.wait_heard(place, self.transport.settings.timeout_s, f"checkpoint {name}")
        self._checkpoints[name] = packed

    def flush(self) -> None:
        """Returns once all that was said is durable."""
        self.sender.flush(self.transport.settings.timeout_s)

    def complete(self) -> None:
        """Ends the job as completed, with all that was said before."""
        self._finish(FinishJob(self.job, "completed", None, self.worker, self.member.incarnation))

    def fail(self, reason: object) -> None:
        """Ends the job as failed."""
        self._finish(FinishJob(self.job, "failed", _text(reason, MAX_TEXT), self.worker, self.member.incarnation))

    def track(
        self,
        rows: Iterable[Row],
        *,
        name: str = "default",
        every: int = 500,
        total: int | None = None,
        key: Callable[[Row], str | int] | None = None,
        before_save: Callable[[], None] | None = None,
    ) -> Iterator[Row]:
        """Yields the rows still to be processed and counts each when the loop comes back for the next.

        Processing is at least once, counting exactly once. Every `every` rows, at the end and before a pause
        or cancellation, `before_save` is called (commit your own database there) and the position is saved.
        Where the loop is left within a row, that row comes again, and with a `before_save` those since the
        last save do too. Rows must come in the same order again, or with a `key` that rises. Give each loop
        of a run a name of its own. Raises AlreadyTracked, JobCancelled.
        """
        if total is not None:
            self.sender.say(lambda pending: setattr(pending, "total", total))
        return tracked(_TrackPort(self, _name(name), before_save), rows, every, key)

    def heed(self, save: Callable[[], None] | None = None) -> None:
        """Honours control intents here: blocks while paused (after `save`), raises JobCancelled when cancelled."""
        intent, asked = self.sender.order
        while intent is not None and (intent != "resume" or asked != self._heeded):
            if save is not None and intent != "resume":
                save()
            self._acknowledge(intent)
            self._heeded = asked
            if intent == "cancel":
                raise JobCancelled(f"job {self.job!r} was cancelled; its progress is saved", job=self.job)
            if intent == "resume":
                return
            intent, asked = self.sender.wait_order_change((intent, asked))

    def _acknowledge(self, intent: Intent) -> None:
        place = self.sender.say(lambda pending: setattr(pending, "acknowledged", intent))
        try:
            self.sender.wait_heard(place, self.transport.settings.timeout_s, "acknowledgement")
        except JobFinished:
            if intent != "cancel":
                raise

    def _outcome(self, counts: Counts, errors: tuple[ErrorReport, ...]) -> None:
        if self.turns.set_outcome(counts, errors):
            return

        def put(pending: Pending) -> None:
            pending.add_counts(counts)
            pending.add_errors(errors)

        self.sender.say(put, counts)

    def _finish(self, body: FinishJob) -> None:
        self.flush()
        self.transport.call(body)


class _TrackPort:
    """What a track may do with its run."""

    def __init__(self, run: Run, name: str, before_save: Callable[[], None] | None) -> None:
        self._run, self._name = run, name
        self._before_save = before_save
        self.turns = run.turns

    def claim(self) -> Track:
        self._run.sender.check_process()
        member = self._run.member
        point = TrackPoint(0, 0)
        transport = self._run.transport
        transport.call(Report(member.job, member.worker, member.incarnation, tracks={self._name: point}))
        return read_document(transport, member.job).tracks[self._name]

    def count(self, point: TrackPoint, counts: Counts, errors: tuple[ErrorReport, ...]) -> None:
        def put(pending: Pending) -> None:
            pending.add_counts(counts)
            pending.add_errors(errors)
            pending.tracks[self._name] = point

        self._run.sender.say(put, counts)

    def save(self, position: Position, *, live: bool) -> None:
        if self._before_save is not None:
            self._before_save()
        position.save()
        self._tell(position.point(live=live))
        self._run.flush()

    def leave(self, position: Position) -> None:
        """The loop was left within a row. Your uncommitted rows, that one among them, come again."""
        if self._before_save is None:
            position.save()
        with contextlib.suppress(ActorStateError):  # the end of the block says it, and waits for the answer
            self._tell(position.point(live=False))

    def _tell(self, point: TrackPoint) -> None:
        self._run.sender.say(lambda pending: pending.tracks.__setitem__(self._name, point))

    def heed(self, save: Callable[[], None]) -> None:
        self._run.heed(save)


@dataclass(frozen=True, slots=True)
class Seat:
    """How a worker wants to be attached to a job."""

    job: str
    worker: str | None
    exclusive: bool
    take_over: bool
    report_every_s: float


@contextlib.contextmanager
def attached(transport: Transport, seat: Seat) -> Generator[Run]:
    """The block of `Client.attach`."""
    run = _open(transport, seat)
    with _guarded(transport, run):
        yield run


@contextlib.contextmanager
def run_to_end(transport: Transport, create: CreateJob, seat: Seat) -> Generator[Run]:
    """The block of `Client.run`."""
    transport.call(create)
    run = _open(transport, seat)
    with _guarded(transport, run):
        try:
            yield run
        except JobCancelled:
            raise
        except Exception as error:
            with _noted_in(error, run):
                run.fail(f"{type(error).__name__}: {error}")
            raise
        run.complete()


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
    if not (isinstance(refusal, JobFinished) and run.totals.sent == run.totals.acknowledged):
        left_s = max(0.1, until - time.monotonic())
        transport.call(Detach(member.job, member.worker, member.incarnation), left_s)
        if refusal is not None:
            raise refusal


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
    name = _name(seat.worker or f"{host[:80]}-{pid}-{os.urandom(4).hex()}")
    space, started = process_space(), process_started(pid)
    attach = Attach(seat.job, name, host, pid, space, started, seat.exclusive, seat.take_over)
    answer = transport.call(attach).answer
    if not isinstance(answer, Applied):
        raise BadMessage("the writer did not confirm the attachment")
    member = Membership(seat.job, name, answer.incarnation)
    return Run(transport, member, read_document(transport, seat.job), seat.report_every_s)


def read_document(transport: Transport, job: str) -> Document:
    """The job's committed document. Raises JobNotFound."""
    answer = transport.call(Get(job)).answer
    if not isinstance(answer, Found):
        raise JobNotFound(f"there is no job {job!r}", job=job)
    return codec.decode_document(answer.document)


def _name(text: str) -> str:
    if not 1 <= len(text) <= MAX_NAME:
        raise BadRequest(f"a name has 1 to {MAX_NAME} characters, not {len(text)}")
    return _text(text, MAX_NAME)


def _text(value: object, limit: int) -> str:
    """Text as it may go over the wire: bounded, and without lone surrogates, which error texts can hold."""
    return str(value)[:limit].encode("utf-8", "replace").decode()
