"""`serve`: the writer of a directory, for a terminal as well as for systemd; with `--detach` in the background."""

import argparse
import contextlib
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import get_args

from actorstate import telemetry
from actorstate.cli import exits
from actorstate.cli.asjson import line
from actorstate.cli.command import Command, add_directory, add_timeout, positive, seconds
from actorstate.config import WriterSettings
from actorstate.endpoint import Endpoint
from actorstate.errors import WriterRunning
from actorstate.store.choice import store_at
from actorstate.store.location import located
from actorstate.writer.detach import detached
from actorstate.writer.log import Format, configure
from actorstate.writer.process import serve
from actorstate.writer.takeover import end_holder

DETACHED_IDLE_EXIT_S = 300.0
DAY_S = 86_400.0
TAKE_OVER_ROUNDS = 3
"""A client may start a writer just when the old one is dead: that one is ended too, so many times in all."""

_AGES = {
    "late_after_s": "a worker is late when it was not heard for this long",
    "dead_after_s": "... and dead after this long",
    "stalled_after_s": "a worker is stalled when it beats but reports no progress for this long",
}


def _add_serve(parser: argparse.ArgumentParser) -> None:
    defaults = WriterSettings()
    add_directory(parser)
    for name, meaning in _AGES.items():
        option = f"--{name.removesuffix('_s').replace('_', '-')}"
        told = f"{meaning} (default {getattr(defaults, name):.0f})"
        parser.add_argument(option, dest=name, type=seconds, default=getattr(defaults, name), metavar="S", help=told)
    told = "delete a job that is created from now on this long after its end, unless it has a time of its own"
    parser.add_argument("--expire-after", type=seconds, metavar="S", help=f"{told} (default: never)")
    told = f"changes of each job that can be looked back at (default {defaults.history_changes:,})"
    parser.add_argument("--keep-changes", type=positive, default=defaults.history_changes, metavar="N", help=told)
    told = f"... and for how many days; whichever keeps less (default {defaults.history_age_s / DAY_S:.0f})"
    parser.add_argument("--keep-days", type=days, default=defaults.history_age_s, metavar="N", help=told)
    parser.add_argument("--detach", action="store_true", help="come back when it serves; it says the rest in DIR's log")
    told = f"end when nobody needed it for so long; 0: never (default 0, with --detach {DETACHED_IDLE_EXIT_S:.0f})"
    parser.add_argument("--idle-exit", type=seconds_or_0, metavar="S", help=told)
    parser.add_argument("--take-over", action="store_true", help="kill (SIGKILL) the writer that runs, then serve")
    told = "one line an event on standard error, or in DIR's log: fields as key=value (default), or JSON"
    parser.add_argument("--log-format", choices=get_args(Format), default="text", help=told)
    add_timeout(parser, f"how long SIGTERM waits for what was accepted (default {defaults.drain_s:.0f})")


def seconds_or_0(text: str) -> float:
    """As `seconds`, or 0."""
    return 0.0 if float(text) == 0 else seconds(text)


def days(text: str) -> float:
    """A positive number of days, in seconds: at most 31 years."""
    return seconds(str(float(text) * DAY_S))


def _serve(options: argparse.Namespace) -> int:
    configure(options.log_format)
    ended: list[int] = []
    for _ in range(TAKE_OVER_ROUNDS if options.take_over else 0):
        _take_over(options, ended)
        with contextlib.suppress(WriterRunning):
            return _begun(options, ended)
    return _begun(options, ended)


def _begun(options: argparse.Namespace, ended: list[int]) -> int:
    location, settings = located(options.directory), _settings(options)

    def begin(ready: Callable[[Endpoint], None]) -> int:
        def tell(endpoint: Endpoint) -> None:
            for pid in ended:
                telemetry.event("writer.took_over", killed=pid, epoch=endpoint.epoch)
            ready(endpoint)

        return serve(location, settings, tell)

    if not options.detach:
        return begin(lambda endpoint: _tell(options, endpoint, ended))
    _tell(options, detached(location.directory, begin), ended)
    return exits.FINE


def _settings(options: argparse.Namespace) -> WriterSettings:
    ages = {name: getattr(options, name) for name in _AGES}
    kept = {"history_changes": options.keep_changes, "history_age_s": options.keep_days}
    settings = replace(WriterSettings(), **ages, **kept, expire_after_s=options.expire_after)
    if options.timeout is not None:
        settings = replace(settings, drain_s=options.timeout)
    idle_exit_s = DETACHED_IDLE_EXIT_S if options.detach and options.idle_exit is None else options.idle_exit
    return replace(settings, idle_exit_s=idle_exit_s or 0.0)


def _take_over(options: argparse.Namespace, ended: list[int]) -> None:
    location = located(options.directory)
    store_at(location)  # what could not be served is left to the writer that does
    pid = end_holder(location.directory)
    if pid is not None:
        ended.append(pid)
    if not options.json:
        what = f"killed process {pid}, the writer of {options.directory}" if pid else "no other writer runs"
        print(f"actorstate: {what}", file=sys.stderr, flush=True)


def _tell(options: argparse.Namespace, endpoint: Endpoint, ended: list[int]) -> None:
    plain = f"actorstate: serving {options.directory} (epoch {endpoint.epoch}, pid {endpoint.pid})"
    facts = {name: getattr(endpoint, name) for name in Endpoint.__dataclass_fields__}
    told = line({"directory": options.directory, **facts, "ended": ended})
    try:
        print(told if options.json else plain, flush=True)
    except OSError:
        # Nobody reads: no reason for a writer not to serve. The buffer is emptied into nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


COMMANDS = {"serve": Command(_add_serve, _serve)}
