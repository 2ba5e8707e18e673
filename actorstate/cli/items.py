"""`items`: what became of a job's items, from the ledger beside it."""

import argparse
import sys
from collections.abc import Iterable
from itertools import islice
from typing import get_args

from actorstate.cli import exits
from actorstate.cli.asjson import line
from actorstate.cli.command import Command, add_job, add_timeout, opened, positive
from actorstate.cli.table import Table
from actorstate.cli.views import clean, moment
from actorstate.core.messages.document import ItemOutcome, ItemState
from actorstate.core.plain import as_plain

COLUMNS = ("KEY", "OUTCOME", "CATEGORY", "TRIES", "LAST", "ERROR")


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
        if options.json:
            _print_json(page)
            return exits.FINE
        nothing = True
        for shown in Table(COLUMNS).lines(map(item_columns, page)):
            print(shown)
            nothing = False
    if nothing:
        print(f"actorstate: job {options.job!r} has no such items", file=sys.stderr)
    return exits.FINE


def _print_json(items: Iterable[ItemState]) -> None:
    """JSON lines: a ledger may be longer than memory, so nothing is held back for a closing bracket."""
    for item in items:
        print(line(as_plain(item)))


def item_columns(item: ItemState) -> tuple[str, ...]:
    """One item's values under COLUMNS, without spaces but in its error; what there is not is a dash."""
    category = clean(item.category).replace(" ", "_") or "-"
    tries, error = str(item.attempts), clean(item.error) or "-"
    return clean(item.key), item.outcome, category, tries, moment(item.last_at), error


COMMANDS = {"items": Command(_add_items, _items)}
