"""What a worker says and hears inside its block (`client/blocks.py`)."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from actorstate.client.pending import Pending, rows_in
from actorstate.client.retries import Retries, retried
from actorstate.client.sender import Membership, Sender, Totals, Transport
from actorstate.client.track import Position, Turns, tracked
from actorstate.client.wishes import Wishes, read_document
from actorstate.client.words import (
    MAX_TEXT,
    checked_name,
    counts_of,
    in_chunks,
    outcome_of,
    redacted_text,
    sendable_text,
)
from actorstate.core.messages.document import Document, ItemState, Track, order_of
from actorstate.core.messages.payload import pack, unpack
from actorstate.core.messages.requests import (
    MAX_COUNT,
    Counts,
    FinishJob,
    ItemReport,
    Report,
    StepReport,
    TrackPoint,
)
from actorstate.errors import (
    ActorStateError,
    AlreadyTracked,
    BadRequest,
)

Row = TypeVar("Row")

MAX_THROTTLED_S = 1e6


class Run:
    """One worker's view of its job. All methods may be called from several threads of the process that opened it."""

    def __init__(self, transport: Transport, member: Membership, document: Document, report_every_s: float) -> None:
        self.transport, self.member = transport, member
        self._checkpoints = {name: checkpoint.packed for name, checkpoint in document.checkpoints.items()}
        self.turns = Turns()
        self.sender = Sender(transport, member, report_every_s, order_of(document))
        self.wishes = Wishes(transport, member, self.sender)
        self.ended = False
        self.tracks_under_way: set[str] = set()
        self.ended_tracks: set[str] = set()

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
        for count in (succeeded, failed, skipped, duplicates, bytes, 0 if total is None else total):
            if type(count) is not int or not 0 <= count <= MAX_COUNT:  # True is no number of rows, 5.0 none to be sent
                raise BadRequest(f"a count is a whole number (int) of 0 to {MAX_COUNT}, not {count!r:.80}")
        counts = Counts(succeeded, failed, skipped, duplicates, bytes, {"unknown": failed} if failed else {})

        def put(pending: Pending) -> None:
            pending.add_counts(counts)
            pending.total = pending.total if total is None else total

        self.sender.say(put, counts)
        self._charge(counts)

    def failed(self, key: object, error: object, *, category: str = "unknown") -> None:
        """This row failed. Within a track it is the outcome of the present row.

        It is in the job's ledger by its key, with the first 2,000 characters of the error; without a key (None)
        it is counted and in the tail of errors alone.
        """
        item = outcome_of(key, "failed", category, redacted_text(error, self.transport.settings.redact))
        self._outcome(counts_of((item,)), (item,))

    def skipped(self, key: object = None) -> None:
        """This row was left out on purpose; with a key it is in the ledger."""
        self._outcome(Counts(skipped=1), () if key is None else (outcome_of(key, "skipped", None),))

    def duplicate(self, key: object = None) -> None:
        """This row was there already; with a key it is in the ledger."""
        self._outcome(Counts(duplicates=1), () if key is None else (outcome_of(key, "duplicate", None),))

    def items(
        self, outcome: str, rows: Mapping[Any, object] | Iterable[object], *, category: str | None = None
    ) -> None:
        """Counts many items at once as `failed`, `skipped`, `duplicate` or `succeeded`, and keeps them in the ledger.

        `rows` are their keys, or a mapping of keys to error texts; any number of them. Not for the present row of
        a track, which is counted by itself.
        """
        for chunk in in_chunks(outcome, rows, category, self.transport.settings.redact):
            self._said(chunk, counts_of(chunk))

    def retries(self, *, every: int = 100, before_save: Callable[[], None] | None = None) -> Iterator[ItemState]:
        """Yields the items that `client.retry(job, where=...)` wants done once more, until there are none.

        Each has succeeded when the loop comes back, unless `failed`, `skipped` or `duplicate` was said in its
        turn, and is counted once, whatever crashes. `before_save` is called every `every` items and at the end,
        before their outcomes are said (commit your own database there). Where the loop is left within an item, it
        comes again. Raises AlreadyTracked while another worker does them, JobCancelled, and at the end
        CorruptItem, if the ledger has damaged ones.
        """
        return retried(self.retries_of(before_save, every))

    def retries_of(self, before_save: Callable[[], None] | None, every: int) -> Retries:
        """The steps of `retries`."""
        heed = self.wishes.heed_row
        return Retries(self.transport, self.sender, self.member, self.turns, heed, before_save, every)

    def phase(self, text: str) -> None:
        """Names what the job is doing now."""
        phase = sendable_text(text, MAX_TEXT)
        self.sender.say(lambda pending: setattr(pending, "phase", phase))

    def step(self, name: str, status: str = "running", data: object = None) -> None:
        """A named part began (`running`) or ended (`done`, `failed`, `skipped`)."""
        if status not in {"running", "done", "failed", "skipped"}:
            raise BadRequest(f"a step is running, done, failed or skipped, not {status!r}")
        report = StepReport(checked_name(name), status, b"" if data is None else pack(data))  # type: ignore[arg-type]  # checked
        self.sender.say(lambda pending: pending.steps.append(report))

    def meta(self, /, **values: object) -> None:
        """Merges values into the job's meta, key by key."""
        packed = {checked_name(key): pack(value) for key, value in values.items()}
        self.sender.say(lambda pending: pending.meta.update(packed))

    def throttled(self, seconds: float) -> None:
        """Time spent waiting for a rate limit; it does not count against the rate."""
        if not 0 <= seconds <= MAX_THROTTLED_S:
            raise BadRequest(f"a wait takes 0 to {MAX_THROTTLED_S:g} seconds, not {seconds}")
        self.wishes.tell_throttled(seconds)

    def checkpoint(self, data: object, *, name: str = "default") -> None:
        """Saves a resume point: durable on return, with all progress said before it.

        Raises WriterUnavailable when the writer stays away; the checkpoint is kept and sent later.
        """
        packed, name = pack(data), checked_name(name)
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
        text = redacted_text(reason, self.transport.settings.redact)
        self._finish(FinishJob(self.job, "failed", text, self.worker, self.member.incarnation))

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
        of a run a name of its own: over a track that has come to its end here, BadRequest says so. Raises
        AlreadyTracked, JobCancelled.
        """
        if total is not None:
            self.sender.say(lambda pending: setattr(pending, "total", total))
        return tracked(TrackPort(self, checked_name(name), before_save), rows, every, key)

    def heed(self, save: Callable[[], None] | None = None) -> None:
        """Honours here what people want of the job; `track` does it before each row.

        Blocks while it is paused or a question is open (after `save`), waits for this worker's share of a
        throttle by the rows said since, and raises JobCancelled when it is cancelled. Beats go on meanwhile.
        """
        self.wishes.heed(save)

    def wait_for_approval(self, question: object, *, timeout_s: float | None = None) -> str:
        """Asks people and returns who approved, by `client.approve` or `actorstate approve`.

        All progress said before is durable first; the job is `waiting`, and every worker of it stops at its
        next row. The question survives this process: asked again, it has the answer that was given meanwhile.
        Raises NotApproved after `timeout_s` (the question stays open), JobCancelled.
        """
        return self.wishes.answer_to(sendable_text(question, MAX_TEXT), timeout_s)

    def _outcome(self, counts: Counts, items: tuple[ItemReport, ...]) -> None:
        if not self.turns.set_outcome(counts, items):
            self._said(items, counts)

    def _said(self, items: tuple[ItemReport, ...], counts: Counts) -> None:
        def put(pending: Pending) -> None:
            pending.add_counts(counts)
            pending.add_items(items)

        self.sender.say(put, counts, len(items))
        self._charge(counts)

    def _charge(self, counts: Counts) -> None:
        if self.sender.order.rows_per_s is not None:
            self.wishes.pace.charge(rows_in(counts))

    def _finish(self, body: FinishJob) -> None:
        self.flush()
        self.transport.call(body)
        self.ended = True


class TrackPort:
    """What a track may do with its run."""

    def __init__(self, run: Run, name: str, before_save: Callable[[], None] | None) -> None:
        self._run, self._name = run, name
        self._before_save = before_save
        self.turns = run.turns

    def claim(self) -> Track:
        self._run.sender.check_process()
        if self._name in self._run.ended_tracks:
            raise BadRequest(
                f"track {self._name!r} has come to its end in this run; another loop under its name would skip rows",
                hint="give each loop a name of its own: job.track(rows, name=...)",
            )
        if self._name in self._run.tracks_under_way:
            raise AlreadyTracked(f"track {self._name!r} of job {self._run.job!r} is run by another loop of this run")
        self._run.flush()  # what an earlier loop of this name has said and not sent yet would be counted again
        member = self._run.member
        point = TrackPoint(0, 0)
        transport = self._run.transport
        transport.call(Report(member.job, member.worker, member.incarnation, tracks={self._name: point}))
        self._run.tracks_under_way.add(self._name)
        return read_document(transport, member.job).tracks[self._name]

    def count(self, point: TrackPoint, counts: Counts, items: tuple[ItemReport, ...]) -> None:
        def put(pending: Pending) -> None:
            pending.add_counts(counts)
            pending.add_items(items)
            pending.tracks[self._name] = point

        self._run.sender.say(put, counts, len(items))

    def save(self, position: Position, *, live: bool) -> None:
        if self._before_save is not None:
            self._before_save()
        position.save()
        self._tell(position.point(live=live))
        self._run.flush()
        if not live:
            self._run.tracks_under_way.discard(self._name)
            self._run.ended_tracks.add(self._name)

    def leave(self, position: Position) -> None:
        """The loop was left within a row. Your uncommitted rows, that one among them, come again."""
        self._run.tracks_under_way.discard(self._name)
        if self._before_save is None:
            position.save()
        with contextlib.suppress(ActorStateError):  # the end of the block says it, and waits for the answer
            self._tell(position.point(live=False))

    def _tell(self, point: TrackPoint) -> None:
        self._run.sender.say(lambda pending: pending.tracks.__setitem__(self._name, point))

    def heed(self, save: Callable[[], None]) -> None:
        self._run.wishes.heed_row(save)
