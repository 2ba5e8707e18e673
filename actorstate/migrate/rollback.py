"""The way back: the same steps with the places exchanged, so that it is as safe as the way there.

Back comes what the user has now, rows written since the migration included. `from_backup` brings back what he
had before it, and keeps what he has now as a backup of its own. After a rollback he is first migrated again for
that, so that each of the two moves is backed up, journaled and undone like any other.
"""

import shlex
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from actorstate.errors import ActorStateError, NeedsAttention, SourceUnreadable, UserRefused
from actorstate.migrate.apply import carry_out
from actorstate.migrate.backup import description_of_backup
from actorstate.migrate.journal import UNFINISHED, Journal, read_journal
from actorstate.migrate.nextline import attention_step, command_line, look_closer
from actorstate.migrate.plan import Plan, UserPlan, reverse
from actorstate.migrate.recovery import recover
from actorstate.migrate.run import Outcome, Report, Watcher, failed, full_disk_told, told
from actorstate.migrate.runlock import forget_done, only_one
from actorstate.migrate.sqlitefiles.hold import held
from actorstate.migrate.survey import users_in
from actorstate.migrate.verification import judge
from actorstate.migrate.work import Options, Work


def roll_back_all(
    data: Path, watcher: Watcher, options: Options, *, user: str | None = None, from_backup: bool = False
) -> Report:
    """Brings all migrated users back, or one. Raises MigrationRunning, UserRefused for one who is not there."""
    started = time.monotonic()
    outcomes: list[Outcome] = []
    stopped = ""
    with only_one(data):
        plan = _planned(data, user)
        forget_done(data)
        watcher.begun(plan)
        for one in plan.users:
            try:
                watcher.may_go_on()
            except ActorStateError as error:
                stopped = error.message
                break
            outcomes.append(roll_back_one(data, one.user, options, from_backup=from_backup))
            watcher.ended(outcomes[-1], one)
    report = Report(str(data), "", tuple(outcomes), time.monotonic() - started, stopped)
    watcher.finished(report)
    return report


def _planned(data: Path, user: str | None) -> Plan:
    """The plan of the way back: what the journals say was moved; users without one were never migrated."""
    return Plan(str(data), "", tuple(plan for one in users_in(data, user) for plan in _way_back(data, one)))


def _way_back(data: Path, user: str) -> Iterator[UserPlan]:
    try:
        kept = read_journal(data / user)
    except UserRefused as error:
        yield UserPlan(user, "refuse", error.message)  # told in whole when it is his turn
        return
    if kept is not None:
        yield reverse(kept.plan)


def roll_back_one(data: Path, user: str, options: Options, *, from_backup: bool = False) -> Outcome:
    """One user, to an outcome."""
    started = time.monotonic()
    try:
        kept = read_journal(data / user)
        if kept is None:
            raise NeedsAttention(f"the journal of {user} is gone")
        with full_disk_told():
            outcome = _rolled_back(Work(data, kept, options), from_backup=from_backup)
    except (ActorStateError, OSError) as error:
        outcome = failed(data, user, error)
        if isinstance(error, SourceUnreadable) and not from_backup:
            line = command_line("rollback", data, user, "--from-backup")
            outcome = replace(outcome, next=f"to have the backup, and keep that as it is: {line}")
    return replace(outcome, took_s=round(time.monotonic() - started, 3))


def _rolled_back(work: Work, *, from_backup: bool) -> Outcome:
    if taken_up := work.journal.state in UNFINISHED:
        recover(work)
        work.recovered = False
    match work.journal.state:
        case "rolled_back" if taken_up and not from_backup:
            return told(work, "rolled_back")
        case "rolled_back" if not from_backup:
            return Outcome(work.user, "skipped", "he was rolled back already")
        case "rolled_back":
            return _brought_back(work, reverse(work.journal.plan))
        case "undone" if from_backup and work.journal.origin:
            return _brought_back(work, work.journal.plan)
        case "undone":
            return Outcome(work.user, "skipped", "he is where he was: an earlier migration was undone")
        case "needs_attention":
            raise UserRefused(f"{work.user}: {work.journal.reason}", hint=attention_step(work.data, work.user))
        case _:
            return _go_back(work, from_backup=from_backup)


def _brought_back(work: Work, forth: UserPlan) -> Outcome:
    """The backup for one who is in the old layout: `forth`, and back with it."""
    given = description_of_backup(work.folder / _origin(work))
    work.journal = replace(work.journal, state="migrating", step="", plan=forth, contents=None, reason="")
    if work.old.exists():
        problem, _ = judge(work.old, None)
        if problem:
            aside = f"mv -n {shlex.quote(str(work.old))} {shlex.quote(str(work.old))}.aside"
            hint = f"keep it aside with its -wal, if it has one, and type it again: {aside}"
            raise UserRefused(f"{work.user}: {problem}", hint=hint)
        if given is not None and judge(work.old, given.contents) == ("", ""):
            return Outcome(work.user, "skipped", "he has what the backup has already")
        with held(work.old, work.options.lock_wait_s) as source:
            carry_out(work, source)
    return _go_back(work, from_backup=True)


def _origin(work: Work) -> str:
    """The backup of his migration. Raises UserRefused when it is there no more."""
    origin = work.journal.origin or work.journal.backup
    if origin in work.journal.backups:
        return origin
    raise UserRefused(
        f"{work.user}: the backup {origin} was pruned; what he has now can be brought back without it",
        hint=f"leave out --from-backup: {command_line('rollback', work.data, work.user)}",
    )


def _go_back(work: Work, *, from_backup: bool) -> Outcome:
    if work.old.exists():
        told_why = f"{work.user}: both {work.old} and {work.new} are there; see `audit`"
        raise UserRefused(told_why, hint=look_closer(work.data, work.user, told_why))
    work.journal = _turned(work.journal, _origin(work) if from_backup else "")
    if not work.old.exists() and from_backup:
        carry_out(work, None)
    else:
        with held(work.old, work.options.lock_wait_s) as source:
            carry_out(work, source)
    return told(work, "rolled_back")


def _turned(kept: Journal, from_backup: str) -> Journal:
    return replace(
        kept,
        state="rolling_back",
        step="",
        plan=reverse(kept.plan),
        contents=None,
        from_backup=from_backup,
        reason="",
        origin=kept.origin or kept.backup,
    )
