"""The thread that carries a run's reports to the writer, one at a time, and its beats in between.

`say` returns at once: what is said while a report is under way is merged into the next one. A report
without an answer is sent again under the same number until it has one, so nothing is counted twice.
"""

import os
import threading
import time
from copy import copy
from dataclasses import dataclass
from typing import Protocol

from actorstate.client.calls import Call
from actorstate.client.pending import MAX_PIECES, Book, Piece, counts_alone, data_alone, rows_in, rows_of
from actorstate.config import ClientSettings
from actorstate.core.messages.document import Order
from actorstate.core.messages.replies import Reply
from actorstate.core.messages.requests import Body, Counts, Heartbeat, Report
from actorstate.errors import (
    ActorStateError,
    BadRequest,
    Busy,
    DiskFull,
    OutcomeUnknown,
    RunClosed,
    WriterUnavailable,
)

JOIN_S = 0.5
"""How long closing waits for the thread; it is a daemon, and has nothing left to say."""
MAX_UNSAID_ITEMS = 20_000
"""Outcomes for the ledger that wait to be sent; whoever says one more waits, then gets WriterUnavailable."""
AGAIN_AFTER_S = 0.2
"""Pause before a report is tried again when a whole deadline went by without an answer."""


class Transport(Protocol):
    """What a run needs of a client: numbered calls that can be finished again."""

    settings: ClientSettings

    def call(self, body: Body, timeout_s: float | None = None) -> Reply:
        """One request to its answer."""
        ...

    def start(self, body: Body, timeout_s: float | None = None) -> Call:
        """Numbers and freezes a request."""
        ...

    def finish(self, call: Call) -> Reply:
        """Sends it until it is answered or its deadline has come."""
        ...

    def addressed(self, error: ActorStateError) -> ActorStateError:
        """The same error, whose hint names the directory."""
        ...


@dataclass(frozen=True, slots=True)
class Membership:
    """A worker's place in a job; every message of it carries this."""

    job: str
    worker: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class Totals:
    """Rows that were counted in this run, and those of them that the writer has acknowledged."""

    sent: int = 0
    acknowledged: int = 0


class Sender:
    """One run's outgoing reports. Any thread may `say`; only the sender's own thread sends."""

    def __init__(self, transport: Transport, member: Membership, report_every_s: float, order: Order) -> None:
        self._transport, self._member, self._every_s = transport, member, report_every_s
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._book = Book()
        self._said = self._heard = self._unsaid_items = 0
        self._urgent = False
        self._closing = False
        self._failure: ActorStateError | None = None
        self._trouble: ActorStateError | None = None
        self._refused: dict[str, ActorStateError] = {}
        self.totals = Totals()
        self.order = order
        self.messages = 0
        self._patience_s = transport.settings.timeout_s / 2  # so that who waits for it hears in time what is wrong
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._work, name=f"actorstate-{member.job}", daemon=True)
        self._thread.start()

    def say(self, piece: Piece, counts: Counts | None = None, items: int = 0) -> int:
        """Adds a piece, in which `counts` and so many `items` are, to a report and returns its place in line.

        Raises what ended the run; WriterUnavailable when the writer is away and too many items wait for it.
        """
        self.check_process()
        with self._lock:
            self._check_failure()
            if items:
                self._wait_room(items)
            if len(self._book.pieces) >= MAX_PIECES:
                self._book = self._book.merged()
            self._book.pieces.append(piece)
            self._said += 1
            if counts is not None:
                self.totals = Totals(self.totals.sent + rows_in(counts), self.totals.acknowledged)
            self._changed.notify_all()
            return self._said

    def _wait_room(self, items: int) -> None:
        """Called with the lock held. Counts may be merged for ever; items cannot."""
        timeout_s = self._transport.settings.timeout_s
        if self._unsaid_items + items > MAX_UNSAID_ITEMS:
            self._urgent = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._unsaid_items + items <= MAX_UNSAID_ITEMS or self._failure, timeout_s)
            self._check_failure()
        if self._unsaid_items + items > MAX_UNSAID_ITEMS:
            raise WriterUnavailable(
                f"the writer did not answer within {timeout_s:g} s, and {self._unsaid_items:,} outcomes of job "
                f"{self._member.job!r} wait for it; they are kept, this one was not taken",
                hint="say it again later; to see what is wrong: actorstate doctor DIR",
            )
        self._unsaid_items += items

    def wait_heard(self, place: int, timeout_s: float, name: str = "") -> None:
        """Returns once all up to `place` is durable. Raises why `name` (or, without one, anything) was refused.

        Raises DiskFull or WriterUnavailable after `timeout_s`: what was said is kept, and sent later.
        """
        self.check_process()
        with self._lock:
            self._urgent = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._heard >= place or self._failure, timeout_s)
            self._check_refused(name)
            if self._heard >= place:
                return
            self._check_failure()
            if isinstance(self._trouble, DiskFull):
                raise self._trouble
            unsaid = self.totals.sent - self.totals.acknowledged
            raise WriterUnavailable(
                f"the writer did not answer within {timeout_s:g} s; {unsaid} rows of job {self._member.job!r} "
                "and what else was said since are kept, and sent while the block is open",
                hint="go on, or call flush() again later; to see what is wrong: actorstate doctor DIR",
            )

    def flush(self, timeout_s: float) -> None:
        """Returns once all that was said is durable."""
        self.check_process()
        self.wait_heard(self._said, timeout_s)

    def wait_order_change(self, order: Order, timeout_s: float | None = None) -> Order:
        """Blocks while nobody asks for anything else, at most `timeout_s`; raises what ended the run meanwhile."""
        with self._lock:
            self._changed.wait_for(lambda: self.order != order or self._failure or self._closing, timeout_s)
            self._check_failure()
            return self.order

    def close(self) -> None:
        """Ends the thread. What was not sent by now is not sent."""
        if self._pid != os.getpid():
            return
        with self._lock:
            self._closing = True
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join(JOIN_S)

    @property
    def closed(self) -> bool:
        """Whether nothing more can be said."""
        return self._closing

    @property
    def mine(self) -> bool:
        """Whether this process opened the run."""
        return self._pid == os.getpid()

    def check_process(self) -> None:
        """Raises RunClosed in a forked child, whose copies of the locks may be held for ever, and after the end."""
        if self._pid != os.getpid():
            raise RunClosed(f"this run of job {self._member.job!r} belongs to process {self._pid}")
        if self._closing:
            raise RunClosed(f"the block of job {self._member.job!r} was left")

    def _check_failure(self) -> None:
        if self._failure is not None:
            raise copy(self._failure)  # one object raised again and again would gather a traceback each time

    def _check_refused(self, name: str) -> None:
        """A refusal is raised once: where the refused data was said, or else by whoever waits for everything."""
        if name in self._refused:
            raise self._refused.pop(name)
        if not name and self._refused:
            raise self._refused.popitem()[1]

    def _work(self) -> None:
        try:
            self._carry()
        except ActorStateError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 - the edge of a thread: whoever waits for it must hear of this
            self._fail(RunClosed(f"the reports of job {self._member.job!r} ended: {error!r}"))

    def _fail(self, error: ActorStateError) -> None:
        with self._lock:
            self._failure = error
            self._changed.notify_all()

    def _carry(self) -> None:
        next_report = 0.0
        while True:
            with self._lock:
                report, place = self._next(next_report)
                if report is None and self._closing:
                    return
            if report is None:
                self._beat()
                continue
            next_report = time.monotonic() + self._every_s
            self._tell(report, place)

    def _next(self, next_report: float) -> tuple[Report | None, int]:
        """The next report once it is due, or None when a beat or the end is. Called with the lock held."""
        beat_at = time.monotonic() + self._transport.settings.heartbeat_s
        while not self._closing:
            now, something = time.monotonic(), self._book.pieces or self._book.anything
            if something and (self._urgent or now >= next_report):
                return self._take()
            if now >= beat_at:
                return None, 0
            self._changed.wait(max(0.0, (min(beat_at, next_report) if something else beat_at) - now))
        return None, 0

    def _take(self) -> tuple[Report, int]:
        book = self._book = self._book.merged()
        report = book.take(self._member.job, self._member.worker, self._member.incarnation)
        if book.anything:
            return report, self._heard
        self._urgent = False
        return report, self._said

    def _tell(self, report: Report, place: int) -> None:
        try:
            reply = self._send(report)
        except BadRequest:
            reply = self._send_apart(report)
        with self._lock:
            self.totals = Totals(self.totals.sent, self.totals.acknowledged + rows_of(report))
            self._unsaid_items -= len(report.items)
            self._heard, self._trouble = max(self._heard, place), None
            self.order = Order(reply.intent, reply.asked, reply.waiting, reply.rows_per_s)
            self._changed.notify_all()

    def _send_apart(self, report: Report) -> Reply:
        """After a refusal for size: the counts must not be lost with the data, nor one value with another."""
        reply = self._send(counts_alone(report))
        for name, part in data_alone(report):
            try:
                reply = self._send(part)
            except BadRequest as error:
                with self._lock:
                    self._refused[name] = error
        return reply

    def _send(self, report: Report) -> Reply:
        call = self._transport.start(report, self._patience_s)
        while True:
            self.messages += 1
            try:
                return self._transport.finish(call)
            except (WriterUnavailable, OutcomeUnknown, DiskFull, Busy) as error:
                self._renew(call, error)

    def _renew(self, call: Call, error: ActorStateError) -> None:
        """A new deadline for the same number, unless the run is being closed or the writer has forgotten us."""
        if call.first_sent and not call.still_open:
            raise error
        with self._lock:
            self._trouble = error
            self._changed.wait_for(lambda: self._closing, AGAIN_AFTER_S)
            if self._closing:
                call.give_up()
                raise error
        call.deadline = time.monotonic() + self._patience_s
        call.renew()

    def _beat(self) -> None:
        member = self._member
        try:
            reply = self._transport.call(Heartbeat(member.job, member.worker, member.incarnation))
        except (WriterUnavailable, Busy):
            return
        with self._lock:
            self.order = Order(reply.intent, reply.asked, reply.waiting, reply.rows_per_s)
            self._changed.notify_all()
