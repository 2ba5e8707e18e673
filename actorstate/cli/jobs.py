"""`jobs`, `get`, `watch`: what the jobs are doing."""

import argparse
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from typing import get_args

from actorstate.cli import exits
from actorstate.cli.asjson import error_json, job_json
from actorstate.cli.command import Command, add_directory, add_job, add_timeout, can_draw, deadline_s, opened, positive
from actorstate.cli.moments import MEANING, moment
from actorstate.cli.table import Table
from actorstate.cli.views import JOB_COLUMNS, job_columns, job_lines, span, watch_line
from actorstate.client.sync import Client
from actorstate.core.messages.document import Health, JobState, Status
from actorstate.errors import CorruptJob, WriterUnavailable
from actorstate.store.location import quoted

TABLE_COLUMNS = 60
"""On a narrower terminal the table would have to cut ids; plain lines do not."""
POLL_S = 1.0
"""How long `watch` waits for news before it looks at the clock again."""
SILENT_S = 2.0
"""After this long without an answer `watch` says that it waits for the writer."""
RETRY_S = 0.5
LINE_EVERY_S = 1.0
FRAME_EVERY_S = 0.1
"""At most one line or frame in this time; a change of status, phase or health is never held back."""

Show = Callable[[JobState, str], None]


def _add_jobs(parser: argparse.ArgumentParser) -> None:
    add_directory(parser)
    parser.add_argument("--status", choices=get_args(Status), metavar="STATUS", help=", ".join(get_args(Status)))
    parser.add_argument("--kind", metavar="KIND", help="as given when the job was created")
    parser.add_argument("--health", choices=get_args(Health), metavar="HEALTH", help=", ".join(get_args(Health)))
    parser.add_argument("--newest", action="store_true", help="those created last come first (default: by id)")
    parser.add_argument("--limit", type=positive, metavar="N", help="at most so many (default: all)")
    add_timeout(parser)


def _jobs(options: argparse.Namespace) -> int:
    with opened(options) as client:
        wanted = {"status": options.status, "kind": options.kind, "health": options.health}
        left_out: list[CorruptJob] = []
        states = islice(_readable(client.jobs(**wanted, newest=options.newest), left_out), options.limit)
        if options.json:
            jobs = [job_json(state) for state in states]  # whole before the first byte: an error is then the only value
            jobs += [error_json(error, f"actorstate verify {quoted(options.directory)}") for error in left_out]
            print("[" + ",\n".join(jobs) + "]")
            return exits.REFUSED if left_out else exits.FINE
        if can_draw(TABLE_COLUMNS):
            from actorstate.cli.terminal import draw_jobs  # noqa: PLC0415 - rich costs 50 ms and is optional

            draw_jobs(states)
        else:
            for shown in Table(JOB_COLUMNS).lines(map(job_columns, states)):
                print(shown)
    for error in left_out:
        raise error
    return exits.FINE


def _readable(states: Iterator[JobState], left_out: list[CorruptJob]) -> Iterator[JobState]:
    """All that can be read is shown, before it is told (in `left_out`, at the end) what cannot."""
    try:
        yield from states
    except CorruptJob as error:
        left_out.append(error)


def _add_get(parser: argparse.ArgumentParser) -> None:
    add_job(parser)
    parser.add_argument("--at", type=moment, metavar="AT", help=f"as it was then: {MEANING}")
    add_timeout(parser)


def _get(options: argparse.Namespace) -> int:
    with opened(options) as client:
        state = client.get(options.job, at=options.at)
    if options.json:
        print(job_json(state))
    else:
        print("\n".join(job_lines(state, datetime.now(UTC))))
    return exits.FINE


def _add_watch(parser: argparse.ArgumentParser) -> None:
    add_job(parser)
    add_timeout(parser, "give up when no writer answers for this many seconds (default: wait on)")


def _watch(options: argparse.Namespace) -> int:
    first_s = deadline_s(options)
    with opened(options, SILENT_S) as client, _shown(as_json=options.json) as show:
        state = client.get(options.job, timeout_s=first_s)
        show(state, "")
        for newest, notice in follow(client, state, options.timeout):
            state = newest
            show(state, notice)
    return exits.FINE if state.status == "completed" else exits.NO


def follow(client: Client, state: JobState, patience_s: float | None) -> Iterator[tuple[JobState, str]]:
    """The job's state about once a second, and whenever it is newer, until it has ended.

    Beside it a notice while no writer answers; after `patience_s` of that, WriterUnavailable.
    """
    heard = time.monotonic()
    while not state.finished:
        try:
            state = client.wait(state.id, after=state.revision, timeout_s=POLL_S)
            heard = time.monotonic()
            yield state, ""
        except WriterUnavailable:
            silent_s = time.monotonic() - heard
            if patience_s is not None and silent_s > patience_s:
                raise
            yield state, f"no writer answers for {span(silent_s)}; this is the last known state, waiting for it"
            time.sleep(RETRY_S)


@contextmanager
def _shown(*, as_json: bool) -> Generator[Show]:
    if not as_json and can_draw():
        from actorstate.cli.terminal import live  # noqa: PLC0415 - rich costs 50 ms and is optional

        with live() as draw:
            yield _draw_at_most_every(draw)
    else:
        yield _Lines(as_json=as_json).show


def _draw_at_most_every(draw: Callable[[JobState, datetime, str], None]) -> Show:
    drawn = 0.0

    def show(state: JobState, notice: str) -> None:
        nonlocal drawn
        if state.finished or time.monotonic() >= drawn + FRAME_EVERY_S:
            draw(state, datetime.now(UTC), notice)
            drawn = time.monotonic()

    return show


class _Lines:
    """A line for each news: in JSON every state; in text at most one a second while nothing but counts changes."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._printed: JobState | None = None
        self._at = 0.0
        self._notice = ""

    def show(self, state: JobState, notice: str) -> None:
        if bool(notice) != bool(self._notice):
            print(f"actorstate: {notice or 'the writer answers again'}", file=sys.stderr, flush=True)
        self._notice = notice
        if self._is_news(state):
            print(job_json(state) if self._as_json else watch_line(state), flush=True)
            self._printed, self._at = state, time.monotonic()

    def _is_news(self, state: JobState) -> bool:
        last = self._printed
        if last is None or self._as_json:
            return last is None or state.revision != last.revision
        turned = (state.status, state.phase, state.health) != (last.status, last.phase, last.health)
        return turned or (state.revision != last.revision and time.monotonic() >= self._at + LINE_EVERY_S)


COMMANDS = {
    "jobs": Command(_add_jobs, _jobs),
    "get": Command(_add_get, _get),
    "watch": Command(_add_watch, _watch),
}
