"""`top`: all jobs that are not finished, live, from a mirror of them."""

import argparse
import math
import os
import select
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime

from actorstate.cli import exits
from actorstate.cli.asjson import job_json
from actorstate.cli.command import Command, add_directory, add_timeout, can_draw, deadline_s, opened, seconds
from actorstate.cli.table import Table
from actorstate.cli.views import JOB_COLUMNS, job_columns, span
from actorstate.client.mirror import Mirror
from actorstate.core.messages.document import JobState
from actorstate.store.location import quoted

EVERY_S = 1.0
SILENT_S = 3.0
"""The writer beats each second; after this long without a beat `top` says that it waits."""
FIRST = ("dead", "stalled", "late")
"""Whose health needs somebody comes first, then what runs, then what waits, then what has ended meanwhile."""
ORDER = ("running", "waiting", "paused", "pending")

Wait = Callable[[float], bool]
Show = Callable[[list[JobState], str], None]


def _add_top(parser: argparse.ArgumentParser) -> None:
    add_directory(parser)
    parser.add_argument("--every", type=seconds, default=EVERY_S, metavar="S", help="seconds between two looks")
    parser.add_argument("--once", action="store_true", help="one look, and end")
    add_timeout(parser)


def _top(options: argparse.Namespace) -> int:
    with opened(options) as client:
        client.ask(timeout_s=deadline_s(options))
        with client.mirror(every_s=min(0.1, options.every)) as mirror, _shown(options) as show, _quit_key() as quits:
            while True:
                show(sorted(mirror.jobs(max_age_s=math.inf), key=_urgency), _notice(mirror, options.directory))
                if options.once or quits(options.every):
                    return exits.REFUSED if mirror.left_out else exits.FINE


def _urgency(state: JobState) -> tuple[bool, int, str]:
    last = len(ORDER)
    return state.health not in FIRST, ORDER.index(state.status) if state.status in ORDER else last, state.id


def _notice(mirror: Mirror, directory: str) -> str:
    age_s, left_out = mirror.age_s, mirror.left_out
    if age_s > SILENT_S:
        return f"no writer answers for {span(age_s)}; this is the last known state"
    jobs = "1 job is" if left_out == 1 else f"{left_out:,} jobs are"
    return f"{jobs} damaged, and left out for now; type: actorstate verify {quoted(directory)}" if left_out else ""


@contextmanager
def _shown(options: argparse.Namespace) -> Generator[Show]:
    if not options.json and not options.once and can_draw():
        from actorstate.cli.terminal import live_jobs  # noqa: PLC0415 - rich costs 50 ms and is optional

        with live_jobs() as draw:
            yield lambda states, notice: draw(states, datetime.now(UTC), notice)
    else:
        yield _Lines(as_json=options.json).show


class _Lines:
    """A line for each job that has changed since the last look: in a pipe under a heading, or as JSON."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._printed: dict[str, tuple[int, int]] = {}
        self._table = Table(JOB_COLUMNS)
        self._said = ""

    def show(self, states: list[JobState], notice: str) -> None:
        said = notice.partition(" for ")[0]  # without the seconds of silence, which are others at each look
        if said != self._said:
            print(f"actorstate: {notice or 'the writer answers again'}", file=sys.stderr, flush=True)
        self._said = said
        changed = [state for state in states if self._printed.get(state.id) != (state.epoch, state.revision)]
        self._printed.update((state.id, (state.epoch, state.revision)) for state in changed)
        for shown in map(job_json, changed) if self._as_json else self._table.lines(map(job_columns, changed)):
            print(shown, flush=True)


@contextmanager
def _quit_key() -> Generator[Wait]:
    """Whether somebody typed q within so many seconds; where nobody can type, it only waits."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        yield _only_wait
        return
    import termios  # noqa: PLC0415 - only where there is a terminal
    import tty  # noqa: PLC0415 - as above

    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield _typed_q
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _typed_q(within_s: float) -> bool:
    until = time.monotonic() + within_s
    while select.select([sys.stdin], [], [], max(0.0, until - time.monotonic()))[0]:
        typed = os.read(sys.stdin.fileno(), 64).lower()
        if not typed or b"q" in typed:
            return True
    return False


def _only_wait(for_s: float) -> bool:
    time.sleep(for_s)
    return False


COMMANDS = {"top": Command(_add_top, _top)}
