"""The course of the demo: processes start, rows go over, the writer is killed and started again, everything is counted.

    load ─▶ writer ─▶ job ─▶ workers, readers ─▶ follow (kill, restart) ─▶ complete ─▶ unload ─▶ compare ─▶ Verdict

The parent only looks on: it holds no rows, and what it knows of the job it reads like anybody else.
"""

import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from actorstate.client.sync import Client, connect
from actorstate.config import ClientSettings
from actorstate.core.messages.document import JobState
from actorstate.demo.cargo import compared, load, opened_source, unload, wanted_groups
from actorstate.demo.library import FILES, standard_library
from actorstate.demo.options import JOB, DemoOptions, Place
from actorstate.demo.processes import Child, Children, DemoFailed, wait_until
from actorstate.demo.reader import COUNTED
from actorstate.demo.verdict import Kill, Reads, Updates, Verdict
from actorstate.errors import BadRequest, SourceUnreadable, WriterUnavailable

LOOK_EVERY_S = 0.1
"""How often the parent looks after its processes and tells the view, however many states it is given."""
WRITER_IDLE_EXIT_S = 60
"""A writer whose demo was killed ends by itself after so long."""
TIMEOUT_S = 5.0
"""How long the parent waits for an answer before it looks whether the writer lives."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What a live view shows; `writer` is the process id."""

    state: JobState
    writer: int
    kills: int
    kills_wanted: int
    workers: int
    readers: int
    reads: int
    seconds: float


class View(Protocol):
    """Where the demo tells what happens."""

    def tell(self, event: str) -> None:
        """Something happened."""
        ...

    def show(self, moment: Moment) -> None:
        """This is how it stands, every LOOK_EVERY_S."""
        ...


def run_demo(options: DemoOptions, view: View) -> Verdict:
    """Plays the demo and returns the verdict; no process is left behind, whatever ends it.

    Raises SourceUnreadable, BadRequest for a directory with something in it, DemoFailed when a process
    ends as it should not or nothing goes on for `patience_s`.
    """
    with _place(options.directory) as place:
        skipped = load(place, options.source)
        for one in skipped:
            view.tell(f"skipped: {one.kind} {one.name!r}: {one.reason}")
        settings = ClientSettings(timeout_s=TIMEOUT_S, autostart=False)
        with Children(place.logs) as children, connect(place.jobs, settings=settings) as client:
            played = _Course(options, place, children, client, view=view).play(_total(options, place))
        view.tell("comparing every row of the source with the target")
        skipped += unload(place)
        return replace(played, skipped=skipped, tables=compared(place))


class _Course:
    """One demo from its first process to its last."""

    def __init__(self, options: DemoOptions, place: Place, children: Children, client: Client, *, view: View) -> None:
        self._options, self._place, self._children, self._client, self._view = options, place, children, client, view
        self._began = self._advanced_at = self._looked_at = time.monotonic()
        self._kills: list[Kill] = []
        self._workers: list[Child] = []
        self._readers: list[Child] = []
        self._writer = self._started_writer()

    def play(self, total: int) -> Verdict:
        """What is found while the processes live; of the tables it knows nothing yet."""
        options, unit = self._options, "rows" if self._options.source else FILES
        self._view.tell(f"{total:,} {unit} of {named(options)}; the writer is process {self._writer.process.pid}")
        first = self._client.create(JOB, kind="demo", total=total, unit=unit, meta={"source": named(options)})
        self._readers = self._started("reader", options.readers)
        self._workers = self._started("worker", options.workers, options.workers, options.seconds)
        self._follow(first)
        reports = [worker.report() for worker in self._workers]
        self._client.complete(JOB)
        final = self._client.get(JOB)
        reads = self._reads()
        self._writer.process.terminate()
        wait_until("it ended", lambda: not self._writer.running, self._writer)
        self._writer.check()
        return Verdict(
            source=named(options),
            tables=(),
            skipped=(),
            updates=Updates(
                sum(int(report["sent"]) for report in reports),
                sum(int(report["acknowledged"]) for report in reports),
                final.progress.processed,
            ),
            kills=tuple(self._kills),
            kills_wanted=options.kills,
            epochs=final.epoch - first.epoch + 1,
            status=final.status,
            reads=reads,
            seconds=time.monotonic() - self._began,
        )

    def _started(self, kind: str, count: int, *more: object) -> list[Child]:
        return [
            self._children.start(f"{kind}-{at + 1}", f"actorstate.demo.{kind}", (self._place.directory, at, *more))
            for at in range(count)
        ]

    def _started_writer(self) -> Child:
        name = f"writer-{len(self._kills) + 1}"
        command = ("serve", self._place.jobs, "--idle-exit", WRITER_IDLE_EXIT_S)
        writer = self._children.start(name, "actorstate", command, needed=True)
        wait_until("it was ready", lambda: bool(writer.last_line()), writer)
        return writer

    def _follow(self, state: JobState) -> None:
        """Looks on until all workers have ended, and kills the writer when it is time to."""
        self._allow_last_rows()
        while any(worker.running for worker in self._workers):
            newer = self._newer(state)
            if newer.progress.processed != state.progress.processed:
                self._advanced_at = time.monotonic()
            state = newer
            if self._is_time_to_kill(state):
                self._kill_writer(state)
                self._allow_last_rows()
            if self._looked_at + LOOK_EVERY_S <= time.monotonic():
                self._check(state)
                self._view.show(self._moment(state))
                self._looked_at = time.monotonic()

    def _newer(self, state: JobState) -> JobState:
        try:
            return self._client.wait(JOB, after=state.revision, timeout_s=LOOK_EVERY_S)
        except WriterUnavailable:
            self._check(state)
            return state

    def _allow_last_rows(self) -> None:
        """Workers keep their last rows back until the last kill, so that there is something to interrupt."""
        if len(self._kills) == self._options.kills:
            for worker in self._workers:
                worker.tell("go")

    def _is_time_to_kill(self, state: JobState) -> bool:
        """At equal shares of the rows, or when every row but those kept back is done: few rows are no excuse."""
        total, done, kills = state.progress.total or 0, state.progress.processed, len(self._kills)
        if kills == self._options.kills or not state.workers:
            return False
        if done * (self._options.kills + 1) >= total * (kills + 1):
            return True
        return self._still_for_s() > LOOK_EVERY_S and self._all_are_held()

    def _all_are_held(self) -> bool:
        reports = [worker.last_report() for worker in self._workers if worker.running]
        return any(reports) and all("held" in report for report in reports)

    def _kill_writer(self, state: JobState) -> None:
        killed, began = self._writer, time.monotonic()
        killed.process.kill()
        since_report_s = (datetime.now(UTC) - state.updated_at).total_seconds()
        status = killed.process.wait()
        self._view.tell(f"writer {killed.process.pid} killed at {state.progress.processed:,} rows")
        self._writer = self._started_writer()
        away_s = time.monotonic() - began
        self._kills.append(
            Kill(
                pid=killed.process.pid,
                status=status,
                processed=state.progress.processed,
                workers=len(state.workers),
                since_report_s=since_report_s,
                away_s=away_s,
            )
        )
        self._advanced_at = time.monotonic()
        self._view.tell(f"writer {self._writer.process.pid} took over after {away_s:.2f} s")

    def _check(self, state: JobState) -> None:
        for child in (self._writer, *self._workers, *self._readers):
            if child.process.poll() not in ({None, 0} if child in self._workers else {None}):
                child.check()
                raise DemoFailed(f"{child.name} ended before its time")
        if self._still_for_s() > self._options.patience_s:
            done = f"{state.progress.processed:,} of {state.progress.total or 0:,} rows"
            raise DemoFailed(f"nothing went on for {self._options.patience_s:g} s, after {done}")

    def _still_for_s(self) -> float:
        return time.monotonic() - self._advanced_at

    def _moment(self, state: JobState) -> Moment:
        return Moment(
            state=state,
            writer=self._writer.process.pid,
            kills=len(self._kills),
            kills_wanted=self._options.kills,
            workers=sum(worker.running for worker in self._workers),
            readers=sum(reader.running for reader in self._readers),
            reads=sum(int(reader.last_report().get("reads", 0)) for reader in self._readers),
            seconds=time.monotonic() - self._began,
        )

    def _reads(self) -> Reads:
        for reader in self._readers:
            reader.end_input()
        for reader in self._readers:
            wait_until("it reported", lambda: not reader.running, reader)  # noqa: B023 - called in this turn
        reports = [reader.report() for reader in self._readers]
        counts = {name: sum(int(report[name]) for report in reports) for name in COUNTED}
        per_s = sum(report["reads"] / report["seconds"] for report in reports)
        return Reads(**counts, per_s=per_s, longest_s=max((report["longest_s"] for report in reports), default=0.0))


def named(options: DemoOptions) -> str:
    """What is migrated, in words; a file's name need not be valid UTF-8."""
    words = str(options.source) if options.source else f"the standard library in {standard_library()}"
    return words.encode(errors="replace").decode()


def _total(options: DemoOptions, place: Place) -> int:
    with opened_source(place) as source:
        total = sum(group.items for group in wanted_groups(source, place))
    if not total:
        raise SourceUnreadable(f"{named(options)} has no rows to migrate", hint="name a database that has some")
    return total


@contextmanager
def _place(directory: Path | None) -> Generator[Place]:
    if directory is None:
        with tempfile.TemporaryDirectory(prefix="actorstate-demo-") as temporary:
            yield Place(Path(temporary))
        return
    try:
        directory.mkdir(parents=True, exist_ok=True)
        empty = not any(directory.iterdir())
    except OSError as error:
        raise BadRequest(f"{str(directory)!r} is no directory to work in: {error.strerror}") from error
    if not empty:
        raise BadRequest(f"{str(directory)!r} is not empty", hint="name a new directory, or leave out --dir")
    yield Place(directory.absolute())
