"""`items`: what became of a job's items, from the ledger beside it."""

import argparse
import sys
from collections.abc import Iterable
from itertools import islice
from typing import get_args

from actorstate.cli import exits
from actorstate.cli.asjson import line
from actorstate.cli.command import Command, add_job, add_timeout, opened, positive
from actorstate.cli.views import clean, moment
from actorstate.core.messages.document import ItemOutcome, ItemState
from actorstate.core.plain import as_plain

COLUMNS = ("KEY", "OUTCOME", "CATEGORY", "TRIES", "LAST", "ERROR")
_WIDTHS = (28, 9, 12, 5, 20, 0)


def _add_items(parser: argparse.ArgumentParser) -> None:
    add_job(parser)
    words = ", ".join(get_args(ItemOutcome))
    parser.add_argument("--outcome", choices=get_args(ItemOutcome), metavar="OUTCOME", help=words)
    parser.add_argument("--category", metavar="NAME", help="of the failure; `actorstate get DIR JOB` counts them")
    parser.add_argument("--after", default="", metavar="KEY", help="begin behind this key")
    parser.add_argument("--limit", type=positive, metavar="N", help="at most so many (default: all)")
    add_timeout(parser)


def _items(options: argparse.Namespace) -> int:
    with opened(options) as client:
        found = client.items(options.job, outcome=options.outcome, category=options.category, after=options.after)
        page = islice(found, options.limit)
        number = _print_lines(page) if options.json else _print_table(page)
    if not number and not options.json:
        print(f"actorstate: job {options.job!r} has no such items", file=sys.stderr)
    return exits.FINE


def _print_lines(items: Iterable[ItemState]) -> int:
    """JSON lines: a ledger may be longer than memory, so nothing is held back for a closing bracket."""
    number = 0
    for number, item in enumerate(items, start=1):  # noqa: B007 - the number of the last one is the answer
        print(line(as_plain(item)))
    return number


def _print_table(items: Iterable[ItemState]) -> int:
    number = 0
    for number, item in enumerate(items, start=1):
        if number == 1:
            print(_row(COLUMNS))
        error = clean(item.error) or "-"
        category = clean(item.category).replace(" ", "_") or "-"
        print(_row((clean(item.key), item.outcome, category, str(item.attempts), moment(item.last_at), error)))
    return number


def _row(values: tuple[str, ...]) -> str:
    return "  ".join(value.ljust(width) for value, width in zip(values, _WIDTHS, strict=True)).rstrip()


COMMANDS = {"items": Command(_add_items, _items)}
