"""A plan and a report in words, for a terminal, a pipe or an app's own output."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from actorstate.migrate.nextline import look_closer
from actorstate.migrate.plan import Plan, UserPlan
from actorstate.migrate.preflight import examined
from actorstate.migrate.run import GOOD, Outcome, Report

DRY = "[DRY RUN] "
_UNITS = ("bytes", "kB", "MB", "GB", "TB")
_STEP = 1000.0


def size(number: float) -> str:
    """A number of bytes."""
    for unit in _UNITS[:-1]:
        if number < _STEP:
            return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= _STEP
    return f"{number:.1f} {_UNITS[-1]}"


def span(seconds: float) -> str:
    """A time that something takes, roughly."""
    if seconds < 1:
        return "less than a second"
    for name, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {name}"
    return f"{seconds:.0f} s"


def say_plan(plan: Plan, say: Callable[[str], None], *, images: bool = False, dry_run: bool = False) -> bool:
    """Says what a run would do, user by user as they are examined; whether nobody would be refused. Changes nothing."""
    mark = DRY if dry_run else ""
    if dry_run:
        say(f"{DRY}Migration check - no data will be moved")
    refused: set[str] = set()
    for one, found in examined(plan, images=images):
        refused |= {one.user} if found else set()
        closer = look_closer(Path(plan.data), one.user, "; ".join((one.reason, *found)))
        say(mark + (f"Would refuse {one.user}: {'; '.join(found)}" if found else _planned(one)))
        if closer:
            say(f"{mark}  {closer}")
    left = replace(plan, users=tuple(one for one in plan.users if one.user not in refused))
    told = f"{len(left.at_work)} of {len(plan.users)} users to do, {size(left.bytes)}"
    say(mark + told + (f", {about(left.estimate_s)} with one worker" if left.at_work else ""))
    return not refused


def _planned(one: UserPlan) -> str:
    match one.action:
        case "skip" | "refuse":
            return f"Would skip {one.user}: {one.reason}"
        case "finish":
            return f"Would finish {one.user}: {one.reason}"
        case "record":
            return f"Would record {one.user}"
        case "migrate":
            return f"Would migrate {one.user}: {'; '.join(_moves(one))}"


def _moves(one: UserPlan) -> Iterator[str]:
    if one.database is not None:
        yield f"{one.database.old} -> {one.database.new} ({size(one.database.bytes)})"
    for part in one.folders:
        across = ", to another disk" if part.crosses else ""
        yield f"{part.old}/ -> {part.new}/ ({part.files:,} files, {size(part.bytes)}{across})"


def about(seconds: float) -> str:
    """The same as a guess."""
    return span(seconds) if seconds < 1 else f"about {span(seconds)}"


def report_lines(report: Report) -> Iterator[str]:
    """For each user what was done, where the backup lies, how to undo it; those in trouble last; then the sum."""
    for one in sorted(report.users, key=lambda one: one.result not in GOOD):
        yield from outcome_lines(one)
    counts = ", ".join(f"{number} {result.replace('_', ' ')}" for result, number in sorted(report.counts.items()))
    yield f"{counts or 'nothing to do'}, in {report.took_s:.1f} s"
    if report.stopped:
        yield f"stopped before all had their turn: {report.stopped}"


def outcome_lines(one: Outcome) -> Iterator[str]:
    """One user's part of the report."""
    again = " (an interrupted run was taken up)" if one.recovered else ""
    moved = f", {size(one.bytes)} in {one.took_s:.1f} s" if one.bytes else ""
    yield f"{one.user}: {one.result.replace('_', ' ')}{f': {one.reason}' if one.reason else ''}{moved}{again}"
    for name, value in (("backup", one.backup), ("to undo it", one.undo), ("next", one.next)):
        if value:
            yield f"  {name}: {value}"
    for note in one.notes:
        yield f"  note: {note}"
