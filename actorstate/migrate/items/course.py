"""The course of one migration inside its job: batches, their plans and their counts, pauses, and items once more.

heed ─▶ look ─▶ plan saved ─▶ write ─▶ outcomes said with their place, durable ─▶ next batch
                    └───── a SIGTERM in here waits for the end of it ─────┘
"""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice, takewhile
from typing import Any, NamedTuple, cast

from actorstate import telemetry
from actorstate.client.exits import postponed
from actorstate.client.retries import Retries
from actorstate.client.run import Run, TrackPort
from actorstate.client.sync import Client
from actorstate.client.track import Position
from actorstate.client.wishes import THROTTLE_SLICE_S
from actorstate.client.words import check_damaged, chunked, counts_of, outcome_of, redacted_text
from actorstate.core.messages.document import ItemState
from actorstate.core.messages.payload import unpack
from actorstate.core.messages.requests import ItemReport
from actorstate.core.plain import time_text
from actorstate.errors import CorruptItem, ItemRefused
from actorstate.migrate.items.batch import (
    MARK_BYTES,
    Entry,
    Pause,
    Reach,
    Workers,
    batches,
    entry_of,
    looked,
    pause_of,
    written,
)
from actorstate.migrate.items.rules import Action, Migration, name_of, nameless_at, refused
from actorstate.migrate.items.shape import DUPLICATE, Place, spot_of

TRACK, PLAN = "items", "items-plan"
"""The track that the items are, and the checkpoint that has what is about to be written."""
ACTIONS: tuple[Action, ...] = ("create", "update")
REACHED = "items.reached"
"""The event at each `point` of a batch."""
GONE = "it is not in the source any more; it had failed with: "
TOLD_FROM_S = 1.0
"""A pause that a target asked for is said in the job when it is so long."""
FIRST_SLICE_S = 0.1
"""After so long a job under a pause has no arrival any more; each further slice is twice as long."""
RETRIED_AT_ONCE = 20_000
"""Failed items that are looked for in one reading of the source."""


class Book(NamedTuple):
    """What is noted of a batch: `planned` before it is written; `counted` after it, which returns what is left."""

    planned: Callable[[list[Entry]], None]
    counted: Callable[[list[Entry]], list[Entry]]


class Course:
    """One run of a migration; `close` ends its threads."""

    def __init__(self, client: Client, run: Run, migration: Migration) -> None:
        self._client, self._run, self._migration = client, run, migration
        self._workers = Workers(migration.rules.workers)
        self._port = TrackPort(run, TRACK, None)
        self._position = Position(0, 0)
        self._planned: dict[bytes, Action] = {}
        self._planned_until = 0
        self._reach = Reach()
        self._phase = "copying"
        self._told_before = frozenset[str]()

    def close(self) -> None:
        """Ends the threads of the workers."""
        self._workers.close()

    def copy(self, told_before: frozenset[str]) -> None:
        """All items behind the last that is counted. Raises JobCancelled, TargetFailed, SourceUnreadable.

        Successes are in no ledger, but for items of which a former attempt has told something else: `told_before`.
        """
        self._enter("copying")
        track = self._port.claim()
        place = cast("Place", unpack(track.counted_key)) if track.counted_key else None
        self._position = Position(track.counted, track.counted, place, place)
        self._load_plan()
        book = Book(self._save_plan, self._counted)
        self._told_before = told_before
        most = self._migration.rules.max_items
        found = self._migration.source.items(place)
        rows = islice(found, None if most is None else max(0, most - track.counted))
        for batch in batches((entry_of(self._migration, *row) for row in rows), self._migration.rules.batch_size):
            for entry in batch:
                entry.planned = self._planned.get(entry.mark)
            self._finish(batch, book)
        self._port.save(self._position, live=False)

    def retry(self) -> None:
        """The items that are to be done once more, wherever they are in the source, until there are none.

        Raises at the end CorruptItem, if the ledger has damaged ones.
        """
        retries = self._run.retries_of(None, 1)
        # no plan: each of them was about to be written before, so what the target has of it is this migration's
        book = Book(_unplanned, partial(self._said_again, retries))
        with _claimed(retries):
            while waiting := self._waiting(retries.damaged):
                self._enter("retrying")
                for batch in batches(self._found(waiting), self._migration.rules.batch_size):
                    self._finish(batch, book)
        check_damaged(self._run.job, retries.damaged)

    def _waiting(self, damaged: list[str]) -> dict[str, ItemState]:
        """Some of them by their keys; those that cannot be read are `damaged`."""
        found: dict[str, ItemState] = {}
        try:
            for item in islice(self._client.items(self._run.job, outcome="retrying"), RETRIED_AT_ONCE):
                found[item.key] = item
        except CorruptItem as error:
            damaged[:] = [str(error.details.get("key"))]
        return found

    def _found(self, waiting: dict[str, ItemState]) -> Iterator[Entry]:
        """Those of the source, and at the end the others: they have failed for good.

        What had no key when it failed is what stands there now: it has been mended, or a line before it has.
        """
        spots = {spot: key for key in waiting if (spot := spot_of(key)) is not None}
        for place, fields in self._migration.source.items(None):
            name = name_of(place, fields, self._migration.rules)
            nameless = spots.get(spot_of(nameless_at(place)) or "", "")
            before = waiting.pop(name, None) or waiting.pop(nameless, None)
            if before is not None:
                entry = entry_of(self._migration, place, fields)
                entry.name = before.key
                entry.planned = None if before.category == DUPLICATE or before.key == nameless else "create"
                yield entry
            if not waiting:
                return
        for key, before in list(waiting.items()):
            reason = before.error.removeprefix(GONE)
            yield Entry(key, "", None, refused(f"{GONE}{reason}"), outcome="failed")

    def _finish(self, batch: list[Entry], book: Book) -> None:
        """Until each has its outcome, and is counted."""
        left = batch
        while left:
            self._heed(len(left))
            left = self._tried(left, book)
            if pause := pause_of(left):
                self._wait(pause)

    def _heed(self, rows: int) -> None:
        self._run.heed()
        if self._run.sender.order.rows_per_s is not None:
            self._run.wishes.pace.charge(rows)

    def _tried(self, entries: list[Entry], book: Book) -> list[Entry]:
        """What is left of them."""
        plan = looked(self._migration, self._workers, entries)
        reached("looked")
        with postponed():
            if plan.creates or plan.updates:
                book.planned(entries)
                reached("planned")
                written(self._migration, self._workers, entries, plan)
                reached("written")
            left = book.counted(entries)
            reached("counted")
        self._reach.check(entries[: len(entries) - len(left)])
        return left

    def _load_plan(self) -> None:
        """What a crash may have left in the target, uncounted."""
        saved = cast("dict[str, Any]", self._run.resume_from_name(PLAN) or {"until": 0, "create": b"", "update": b""})
        self._planned_until = int(saved["until"])
        for action in ACTIONS:
            self._planned |= dict.fromkeys(_marks(saved[action]), action)
        self._forget_plan()

    def _save_plan(self, entries: Sequence[Entry]) -> None:
        """What is about to be written is known after a crash; so is what was, and is not counted yet."""
        self._planned |= {entry.mark: entry.planned for entry in entries if entry.planned is not None}
        self._planned_until = max(self._planned_until, self._position.counted + len(entries))
        told: dict[str, object] = {"until": self._planned_until}
        for name in ACTIONS:
            told[name] = b"".join(mark for mark, action in self._planned.items() if action == name)
        self._run.checkpoint(told, name=PLAN)

    def _forget_plan(self) -> None:
        """All items of the plan are counted: what is left of it would only grow with each crash."""
        if self._position.counted >= self._planned_until:
            self._planned.clear()

    def _counted(self, entries: list[Entry]) -> list[Entry]:
        """Counts those at the front that have an outcome, each piece together with the place behind it."""
        done = self._ended(entries)
        at = 0
        for chunk in chunked(self._reports(done)):
            at += len(chunk)
            position, last = self._position, done[at - 1].place
            position.counted = position.done = position.counted + len(chunk)
            position.counted_key = position.done_key = last
            kept = tuple(one for one in chunk if one.outcome != "succeeded" or one.key in self._told_before)
            self._port.count(position.point(), counts_of(chunk), kept)
        self._run.flush()
        self._forget_plan()
        self._check_stop(done)
        return entries[len(done) :]

    def _said_again(self, retries: Retries, entries: list[Entry]) -> list[Entry]:
        """Says the new outcomes; what is counted anew leaves the ledger's waiting list with it."""
        done = self._ended(entries)
        retries.held += [_as_retried(report) for report in self._reports(done)]
        retries.save()
        self._check_stop(done)
        return entries[len(done) :]

    def _ended(self, entries: list[Entry]) -> list[Entry]:
        done = list(takewhile(lambda entry: entry.outcome is not None, entries))
        if self._migration.rules.stop_on_error:
            failed = next((at for at, entry in enumerate(done) if entry.outcome == "failed"), len(done))
            return done[: failed + 1]
        return done

    def _reports(self, done: Sequence[Entry]) -> list[ItemReport]:
        redact = self._run.transport.settings.redact
        return [
            outcome_of(entry.name, entry.outcome, entry.category, redacted_text(entry.refusal.message, redact))
            if entry.outcome == "failed" and entry.refusal is not None
            else outcome_of(entry.name, entry.outcome or "succeeded", None)
            for entry in done
        ]

    def _check_stop(self, done: Sequence[Entry]) -> None:
        last = done[-1] if done else None
        if self._migration.rules.stop_on_error and last is not None and last.outcome == "failed":
            told = "" if last.refusal is None else last.refusal.message
            raise ItemRefused(
                f"stopped at the first error: {last.name}: {told}; all before it is done and counted",
                hint="mend it, then type the same line again: it goes on behind that item",
                category=last.category,
            )

    def _wait(self, pause: Pause) -> None:
        """Waits, and honours meanwhile what people want; time that a target asked for is said, and no work."""
        if told := pause.limited and pause.seconds >= TOLD_FROM_S:
            at = time_text(datetime.now(UTC) + timedelta(seconds=pause.seconds))
            self._run.phase(f"waiting until {at}: the target asked for a pause of {pause.seconds:,.0f} s")
        until, slice_s = time.monotonic() + pause.seconds, FIRST_SLICE_S
        throttles = 1
        while (left_s := until - time.monotonic()) > 0:
            started = time.monotonic()
            self._run.sender.wait_order_change(self._run.sender.order, min(left_s, slice_s))
            slice_s = min(2 * slice_s, THROTTLE_SLICE_S)
            if pause.limited:
                self._run.wishes.tell_throttled(time.monotonic() - started, throttles)
                throttles = 0
            self._run.heed()
        if told:
            self._run.phase(self._phase)

    def _enter(self, phase: str) -> None:
        """What the job says that it does, but for the pauses in it."""
        self._phase = phase
        self._run.phase(phase)


@contextmanager
def _claimed(retries: Retries) -> Generator[None]:
    retries.claimed()
    try:
        yield
    finally:
        retries.leave()


def _unplanned(_entries: list[Entry]) -> None:
    """Nothing is noted."""


def _marks(joined: bytes) -> Iterator[bytes]:
    return (joined[at : at + MARK_BYTES] for at in range(0, len(joined), MARK_BYTES))


def _as_retried(report: ItemReport) -> ItemReport:
    return ItemReport(report.key, report.outcome, report.category, report.error, retried=True)


def reached(point: str) -> None:
    """A named point of a migration: here tests kill the process. Costs a look while nobody listens."""
    if REACHED in telemetry.heard:
        telemetry.event(REACHED, point=point)
