"""`log`, `history`, `diff`, `restore`: what a job was, what was done to it, and the way back.

log      what happened, in words: who did what, the newest last
history  what came of it: status and counts at each revision
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import cast

from actorstate.cli import exits
from actorstate.cli.asjson import job_json, line
from actorstate.cli.command import Command, add_job, add_timeout, agrees, opened, positive
from actorstate.cli.moments import MEANING, moment
from actorstate.cli.table import Table
from actorstate.cli.views import ago, clean, watch_line
from actorstate.cli.views import moment as time_of
from actorstate.client.sync import Client
from actorstate.core.history import Difference, differences
from actorstate.core.messages.document import JobState
from actorstate.core.messages.replies import HistoryEntry
from actorstate.core.plain import as_plain

SHOWN = 20
FOLLOW_S = 20.0
MAX_VALUE = 200
"""Characters of a value on a line; `--json` has them all."""
RESTORED = ("progress", "checkpoints", "tracks", "steps", "phase", "meta", "errors", "error_count")
Shown = Callable[[list[HistoryEntry]], Iterable[str]]
_HISTORY = ("REVISION", "TIME", "STATUS", "PROCESSED", "FAILED", "WHO", "CHANGE")


def _add_log(parser: argparse.ArgumentParser) -> None:
    add_job(parser)
    parser.add_argument("-n", type=positive, default=SHOWN, metavar="N", help=f"the last N changes (default {SHOWN})")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what happens, until the job ends")
    add_timeout(parser)


def _log(options: argparse.Namespace) -> int:
    with opened(options) as client:
        entries = _newest(client, options.job, options.n, states=False)
        _print(options, entries, lambda kept: map(log_line, kept))
        if options.follow:
            _follow(client, options, entries[-1].revision if entries else 0)
    return exits.FINE


def _follow(client: Client, options: argparse.Namespace, after: int) -> None:
    finished = False
    while not finished:
        finished = client.wait(options.job, after=after, timeout_s=FOLLOW_S).finished
        for entry in client.history(options.job, after=after):
            print(line(as_plain(entry)) if options.json else log_line(entry), flush=True)
            after = entry.revision


def log_line(entry: HistoryEntry) -> str:
    """`2026-11-23T01:30:00Z  41  web-1  +500 succeeded, saved default`."""
    what = clean(entry.summary) or entry.what
    return f"{time_of(entry.at)}  {entry.revision:>6}  {clean(entry.who) or '-':<16}  {what}"


def _add_history(parser: argparse.ArgumentParser) -> None:
    add_job(parser)
    parser.add_argument("--after", type=_revision, metavar="R", help="those after revision R (default: the newest)")
    parser.add_argument("--limit", type=positive, default=SHOWN, metavar="N", help=f"at most N (default {SHOWN})")
    add_timeout(parser)


def _history(options: argparse.Namespace) -> int:
    with opened(options) as client:
        if options.after is None:
            entries = _newest(client, options.job, options.limit, states=True)
        else:
            entries = list(client.history(options.job, after=options.after, states=True, limit=options.limit))
    _print(options, entries, lambda kept: Table(_HISTORY).lines(map(history_columns, kept)))
    return exits.FINE


def history_columns(entry: HistoryEntry) -> tuple[str, ...]:
    """One revision's values under the columns of `history`, without spaces."""
    progress = entry.progress
    counts = ("-", "-") if progress is None else (str(progress.processed), str(progress.failed))
    who = clean(entry.who).replace(" ", "_") or "-"
    return str(entry.revision), time_of(entry.at), entry.status or "-", *counts, who, entry.what


def _newest(client: Client, job: str, number: int, *, states: bool) -> list[HistoryEntry]:
    return list(client.history(job, newest_first=True, states=states, limit=number))[::-1]


def _print(options: argparse.Namespace, entries: list[HistoryEntry], shown: Shown) -> None:
    plain = (line(as_plain(entry)) for entry in entries)
    if options.json and not getattr(options, "follow", False):
        print("[" + ",\n".join(plain) + "]")
        return
    for text in plain if options.json else shown(entries):
        print(text, flush=True)
    if not entries and not options.json:
        print(f"actorstate: no such changes of job {options.job!r} are kept", file=sys.stderr)


def _add_diff(parser: argparse.ArgumentParser) -> None:
    add_job(parser)
    parser.add_argument("a", type=moment, metavar="A", help=MEANING.replace("%", "%%"))
    parser.add_argument("b", type=moment, nargs="?", metavar="B", help="the same; without it, now")
    add_timeout(parser)


def _diff(options: argparse.Namespace) -> int:
    with opened(options) as client:
        found = client.diff(options.job, options.a, options.b)
    if options.json:
        print(line(as_plain(found)))
    else:
        print("\n".join(difference_lines(found)) or "no difference")
    return exits.FINE


def difference_lines(found: Iterable[Difference]) -> Iterator[str]:
    """`progress.succeeded: 10 -> 25`; of a tail what left it and what came to it."""
    for one in found:
        gone, come = _tail(one.old), _tail(one.new)
        if gone is None or come is None:
            yield f"{clean(one.path)}: {value_text(one.old)} -> {value_text(one.new)}"
            continue
        yield from (f"{clean(one.path)}: - {value_text(value)}" for value in gone)
        yield from (f"{clean(one.path)}: + {value_text(value)}" for value in come)


def _tail(value: object) -> list[object] | None:
    return cast("list[object]", value) if isinstance(value, list) else None


def value_text(value: object) -> str:
    """A value as JSON, cut where it is long; nothing is a dash."""
    plain = round(value, 3) if isinstance(value, float) else as_plain(value)
    text = "-" if value is None else clean(plain if isinstance(plain, str) else line(plain))
    return text if len(text) <= MAX_VALUE else text[:MAX_VALUE] + "…"


def _add_restore(parser: argparse.ArgumentParser) -> None:
    add_job(parser)
    parser.add_argument("at", type=moment, metavar="AT", help=MEANING)
    parser.add_argument("--by", default=os.environ.get("USER", ""), metavar="NAME", help="who asks (default: $USER)")
    parser.add_argument("--dry-run", action="store_true", help="show what would come back, and change nothing")
    parser.add_argument("--yes", action="store_true", help="do not ask (nobody is asked in a pipe or with --json)")
    add_timeout(parser)


def _restore(options: argparse.Namespace) -> int:
    with opened(options) as client:
        now, then = client.get(options.job), client.get(options.job, at=options.at)
        if not options.json:
            print("\n".join(restore_lines(now, then)))
        if options.dry_run:
            if options.json:
                print(line(as_plain(_coming_back(now, then))))
            return exits.FINE
        if sys.stdin.isatty() and not options.yes and not options.json and not agrees("bring it back? [y/N] "):
            print("left as it is")
            return exits.NO
        state = client.restore(options.job, at=then.revision, by=options.by)
    if options.json:
        print(job_json(state))
        return exits.FINE
    print(watch_line(state))
    print(f"  it is paused as revision {state.revision}; to go on: actorstate resume {options.directory} {state.id}")
    return exits.FINE


def restore_lines(now: JobState, then: JobState) -> Iterator[str]:
    """What a restore would do, before it is done."""
    when = ago(then.updated_at, datetime.now(UTC))
    yield f"{now.id} as it was at revision {then.revision}, {when}; it is at revision {now.revision} now"
    yield from (f"  {told}" for told in difference_lines(_coming_back(now, then)))
    if now.workers:
        names = ", ".join(f"{clean(name)} ({worker.health})" for name, worker in now.workers.items())
        yield f"  workers are detached and told so at their next message: {names}"
    if now.finished:
        yield f"  it is {now.status}: a new attempt begins"


def _coming_back(now: JobState, then: JobState) -> list[Difference]:
    return [one for one in differences(now, then) if one.path.split(".")[0] in RESTORED]


def _revision(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError(text)
    return value


COMMANDS = {
    "log": Command(_add_log, _log),
    "history": Command(_add_history, _history),
    "diff": Command(_add_diff, _diff),
    "restore": Command(_add_restore, _restore),
}
