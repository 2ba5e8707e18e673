"""`serve`: the writer of a directory, in the foreground, for a terminal as well as for systemd."""

import argparse
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from actorstate.cli.asjson import line
from actorstate.cli.command import Command, add_directory, add_timeout, seconds
from actorstate.config import WriterSettings
from actorstate.endpoint import Endpoint
from actorstate.writer.process import serve

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
    add_timeout(parser, f"how long SIGTERM waits for what was accepted (default {defaults.drain_s:.0f})")


def _serve(options: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    ages = {name: getattr(options, name) for name in _AGES}
    settings = replace(WriterSettings(), **ages)
    if options.timeout is not None:
        settings = replace(settings, drain_s=options.timeout)
    return serve(Path(options.directory), settings, _teller(options))


def _teller(options: argparse.Namespace) -> Callable[[Endpoint], None]:
    def tell(endpoint: Endpoint) -> None:
        plain = f"actorstate: serving {options.directory} (epoch {endpoint.epoch}, pid {endpoint.pid})"
        facts = {name: getattr(endpoint, name) for name in Endpoint.__dataclass_fields__}
        try:
            print(line({"directory": options.directory, **facts}) if options.json else plain, flush=True)
        except OSError:
            # Nobody reads: no reason for a writer not to serve. The buffer is emptied into nothing.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    return tell


COMMANDS = {"serve": Command(_add_serve, _serve)}
