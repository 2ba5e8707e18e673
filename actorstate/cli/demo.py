"""`demo`: a migration whose writer is killed while it runs, and that loses nothing."""

import argparse
from pathlib import Path

from actorstate.cli.command import Command, add_timeout
from actorstate.demo.options import DemoOptions
from actorstate.demo.show import show_demo


def _add_demo(parser: argparse.ArgumentParser) -> None:
    default = DemoOptions()
    source = "the database to copy (default: an index of Python's own library)"
    parser.add_argument("--source", type=Path, metavar="FILE.sqlite", help=source)
    parser.add_argument("--dir", type=Path, metavar="DIR", help="keep everything there (default: a temporary folder)")
    add_timeout(parser, f"give up after so many seconds without any progress (default {default.patience_s:.0f})")


def _demo(options: argparse.Namespace) -> int:
    patience_s = options.timeout or DemoOptions().patience_s
    chosen = DemoOptions(source=options.source, directory=options.dir, patience_s=patience_s)
    return show_demo(chosen, as_json=options.json)


COMMANDS = {"demo": Command(_add_demo, _demo)}
