"""All users of DATA, one after the other or several at once, each for himself: one's failure is only his own."""

import time
import traceback
from collections.abc import Generator, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from actorstate.errors import ActorStateError, DiskFull, NeedsAttention, SourceUnreadable, UserRefused
from actorstate.migrate.apply import carry_out, row_of
from actorstate.migrate.journal import Journal, read_journal
from actorstate.migrate.layouts import Layout
from actorstate.migrate.nextline import command_line, hint_of, look_closer
from actorstate.migrate.plan import Plan, UserPlan, plan_user
from actorstate.migrate.preflight import Room, objections
from actorstate.migrate.recovery import recover
from actorstate.migrate.runlock import forget_done, must_exist, note_done, only_one
from actorstate.migrate.sqlitefiles.hold import held
from actorstate.migrate.survey import facts_of, registered, survey
from actorstate.migrate.work import Options, Work
from actorstate.store.files import is_full

Result = Literal["migrated", "recorded", "skipped", "refused", "failed", "needs_attention", "rolled_back", "planned"]
GOOD: frozenset[Result] = frozenset({"migrated", "recorded", "skipped", "rolled_back", "planned"})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was done for one user, where his backup lies, and what to type next."""

    user: str
    result: Result
    reason: str = ""
    backup: str = ""
    undo: str = ""
    next: str = ""
    bytes: int = 0
    took_s: float = 0.0
    recovered: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of a run, by user."""

    data: str
    layout: str
    users: tuple[Outcome, ...]
    took_s: float = 0.0
    stopped: str = ""
    """Why not all users had their turn."""

    @property
    def good(self) -> bool:
        """Whether nobody was refused, failed or left out."""
        return not self.stopped and all(one.result in GOOD for one in self.users)

    @property
    def counts(self) -> dict[str, int]:
        """How many users by result."""
        counts: dict[str, int] = {}
        for one in self.users:
            counts[one.result] = counts.get(one.result, 0) + 1
        return counts


class Watcher:
    """Follows a run; does nothing by itself. All is called in the thread that runs the run."""

    def begun(self, plan: Plan) -> None:
        """The plan that is carried out."""

    def may_go_on(self) -> None:
        """Called before each user: may wait (pause), or raise to stop (JobCancelled)."""

    def ended(self, outcome: Outcome, plan: UserPlan) -> None:
        """A user is done with."""

    def finished(self, report: Report) -> None:
        """The report that the run returns."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a run is made."""

    workers: int = 1
    user: str | None = None
    wait_s: float = 0.0
    """How long to wait for another run to end."""
    options: Options = field(default_factory=Options)


def run_all(data: Path, layout: Layout, settings: Settings, watcher: Watcher) -> Report:
    """Migrates all users who need it. Raises MigrationRunning, UserRefused for a folder that is not there."""
    started = time.monotonic()
    must_exist(data, layout)
    with only_one(data, settings.wait_s):
        forget_done(data)
        plan = survey(data, layout, settings.user)
        watcher.begun(plan)
        outcomes: dict[str, Outcome] = {}
        stopped = _each(Round(data, layout, settings), plan, watcher, outcomes)
        ordered = tuple(outcomes[one.user] for one in plan.users if one.user in outcomes)
        report = Report(str(data), layout.name, ordered, time.monotonic() - started, stopped)
        if report.good and settings.user is None:
            note_done(data, layout.key)
    watcher.finished(report)
    return report


@dataclass(frozen=True, slots=True)
class Round:
    """One run: what all of its users share."""

    data: Path
    layout: Layout
    settings: Settings
    room: Room = field(default_factory=Room)


def _each(run: Round, plan: Plan, watcher: Watcher, outcomes: dict[str, Outcome]) -> str:
    """Users in turn, as many at once as there are workers; the reason when it was stopped before all had theirs."""
    waiting: dict[Future[Outcome], UserPlan] = {}

    def take(futures: Iterable[Future[Outcome]]) -> None:
        for future in futures:
            one = waiting.pop(future)
            outcomes[one.user] = future.result()
            watcher.ended(outcomes[one.user], one)

    stopped = ""
    with ThreadPoolExecutor(run.settings.workers, "migrate") as pool, _outlasting(waiting):
        for one in plan.users:
            try:
                watcher.may_go_on()
            except ActorStateError as error:
                stopped = error.message
                break
            waiting[pool.submit(migrate_one, one, run)] = one
            while len(waiting) >= run.settings.workers:
                take(wait(waiting, return_when=FIRST_COMPLETED).done)
        take(wait(waiting).done)
    return stopped


@contextmanager
def _outlasting(waiting: Mapping[Future[Outcome], object]) -> Generator[None]:
    """What was begun has ended when the block has, also after several Ctrl-C: DATA is locked no longer than that.

    The pool itself waits once: of a thread whose `join` was interrupted Python believes that it has ended.
    """
    try:
        yield
    finally:
        interrupted: KeyboardInterrupt | None = None
        while not all(one.done() for one in waiting):
            try:
                wait(waiting)
            except KeyboardInterrupt as error:
                interrupted = error
        if interrupted is not None:
            raise interrupted


def migrate_one(plan: UserPlan, run: Round) -> Outcome:
    """One user, to an outcome: nothing that goes wrong here is raised."""
    started = time.monotonic()
    try:
        outcome = _migrated(plan, run)
    except (ActorStateError, OSError) as error:
        outcome = failed(run.data, plan.user, error)
    except Exception as error:  # noqa: BLE001 - a defect met by one user is told as his, and the others go on
        where = traceback.extract_tb(error.__traceback__)[-1]
        told = f"a defect of actorstate: {error!r} at {where.filename}:{where.lineno}; please report it"
        outcome = Outcome(plan.user, "failed", told, next="run it again: what was begun is finished or undone")
    return replace(outcome, took_s=round(time.monotonic() - started, 3))


def failed(data: Path, user: str, error: ActorStateError | OSError) -> Outcome:
    """The outcome of a user whose migration raised this."""
    told = error.message if isinstance(error, ActorStateError) else str(error)
    step = hint_of(data, error) or f"mend that, then run it again; nothing of {user} is half-way"
    match error:
        case NeedsAttention():
            result: Result = "needs_attention"
        case UserRefused():
            result = "refused"
        case SourceUnreadable():
            result = "refused"
            step = f"put a good copy of it in its place, then see the plan: {command_line('plan', data, user)}"
        case _:
            result = "failed"
    return Outcome(user, result, told, next=step)


def _migrated(plan: UserPlan, run: Round) -> Outcome:
    match plan.action:
        case "skip":
            return Outcome(plan.user, "skipped", plan.reason, next=look_closer(run.data, plan.user, plan.reason))
        case "refuse":
            read_journal(run.data / plan.user)  # what it raises says what to type, too
            raise UserRefused(f"{plan.user}: {plan.reason}", hint=look_closer(run.data, plan.user, plan.reason))
        case "record":
            return _recorded(plan, run)
        case "finish":
            return _finished(plan, run)
        case "migrate":
            return _moved(plan, run)


def _recorded(plan: UserPlan, run: Round) -> Outcome:
    if (entry := plan.record) is not None:
        database = run.data / entry.registry.database
        run.settings.options.rows.record(database, entry.registry.table, row_of(plan.user, entry))
    return Outcome(plan.user, "recorded")


def _finished(plan: UserPlan, run: Round) -> Outcome:
    data, layout = run.data, run.layout
    kept = read_journal(data / plan.user)
    if kept is None:
        raise NeedsAttention(f"the journal of {plan.user} is gone")
    work = Work(data, kept, run.settings.options)
    back = kept.state == "rolling_back"
    if recover(work):
        return replace(told(work, "rolled_back" if back else "migrated"), recovered=True)
    if back:
        return Outcome(plan.user, "skipped", "an interrupted rollback was undone: he is migrated", recovered=True)
    recorded = plan.user in registered(data, layout)
    fresh = plan_user(layout, facts_of(data, layout, plan.user, recorded))
    return replace(_migrated(fresh, run), recovered=True)


def _moved(plan: UserPlan, run: Round) -> Outcome:
    data, options = run.data, run.settings.options
    if found := next(objections(data, plan), None):
        raise UserRefused(f"{plan.user}: {found}")
    folder = data / plan.user
    before = read_journal(folder)
    fresh = Journal(run.layout.name, "migrating", "", plan, backups=() if before is None else before.backups)
    work = Work(data, fresh, options)
    with (
        full_disk_told(),
        run.room.claimed(data, plan, images=options.backup_images),
        held(work.old, options.lock_wait_s) as source,
    ):
        carry_out(work, source)
    return told(work, "migrated")


def told(work: Work, result: Result) -> Outcome:
    """The outcome of a user whose move has ended well."""
    backup = str(work.folder / work.journal.backup) if work.journal.backup else ""
    undo = command_line("rollback", work.data, work.user) if result == "migrated" else ""
    size = work.journal.plan.bytes
    return Outcome(work.user, result, backup=backup, undo=undo, bytes=size, notes=tuple(work.notes))


@contextmanager
def full_disk_told() -> Generator[None]:
    """Makes the system's answer of a full disk DiskFull."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise DiskFull(f"no space left: {error}", hint="free some space, then run it again") from error
        raise
