"""The demo in words: lines for a pipe, and what the drawing on a terminal says."""

from collections.abc import Iterator

from actorstate.demo.run import Moment
from actorstate.demo.verdict import Verdict

TABLES_SHOWN = 40
"""More tables are counted, and only those that are wrong are named; --json has them all."""


def facts(moment: Moment) -> Iterator[tuple[str, str]]:
    """How it stands: subject and words."""
    progress = moment.state.progress
    per_s = moment.state.rate.per_s
    speed = f", {per_s:,.0f} a second" if per_s else ""
    yield progress.unit, f"{progress.processed:,} of {progress.total or 0:,}{speed}"
    yield "workers", f"{moment.workers} at work"
    yield "readers", f"{moment.readers}, {moment.reads:,} reads so far"
    yield "writer", f"process {moment.writer}, killed {moment.kills} of {moment.kills_wanted} times"
    yield "revision", f"{moment.state.revision:,} in epoch {moment.state.epoch}"


def table_lines(verdict: Verdict) -> Iterator[tuple[str, str, str, str]]:
    """Name, rows expected, rows found, and what is to be said about it."""
    many = len(verdict.tables) > TABLES_SHOWN
    for table in verdict.tables:
        if table.ok and many:
            continue
        told = "ok" if table.ok else "rows differ" if table.expected == table.found else "rows lost or doubled"
        yield printable(table.name), f"{table.expected:,}", f"{table.found:,}", told
    if many:
        good = sum(table.ok for table in verdict.tables)
        yield f"({good:,} more tables)", "", "", "ok"


def skipped_lines(verdict: Verdict) -> Iterator[str]:
    """What was not migrated, and why."""
    for one in verdict.skipped:
        yield f"skipped: {one.kind} {printable(one.name)}: {printable(one.reason)}"


def verdict_lines(verdict: Verdict) -> Iterator[str]:
    """The whole verdict for a pipe."""
    yield f"{'TABLE':<40} {'EXPECTED':>12} {'FOUND':>12}"
    for name, expected, found, told in table_lines(verdict):
        yield f"{name:<40} {expected:>12} {found:>12}  {told}"
    yield from skipped_lines(verdict)
    yield ""
    for check in verdict.checks():
        yield f"{check.name:<26} {check.told:<62} {'ok' if check.ok else 'NOT SO'}"
    yield conclusion(verdict)


def conclusion(verdict: Verdict) -> str:
    """The last line."""
    if verdict.ok:
        return f"verdict: all of it held, in {verdict.seconds:.1f} s"
    wrong = ", ".join(check.name for check in verdict.checks() if not check.ok)
    return f"verdict: NOT SO: {wrong}"


def printable(text: str) -> str:
    """On one line, and nothing in it that a terminal would obey: names come from a stranger's file."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
