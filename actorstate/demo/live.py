"""The demo drawn on a terminal. The demo's only module that imports rich, and imported only to draw."""

from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from actorstate.demo.run import Moment
from actorstate.demo.verdict import Verdict
from actorstate.demo.words import conclusion, facts, printable, skipped_lines, table_lines

BAR_WIDTH = 60
DRAWN_PER_S = 10


class LiveView:
    """Draws over itself while the block lasts; what is told stays above."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._live = Live(console=self._console, refresh_per_second=DRAWN_PER_S, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def tell(self, event: str) -> None:
        """A line above the drawing."""
        self._console.print(Text(printable(event)))

    def show(self, moment: Moment) -> None:
        """The drawing, from now on."""
        self._live.update(_drawn(moment))


def print_verdict(verdict: Verdict) -> None:
    """Tables and checks, in colours."""
    tables = Table("table", title_justify="left", box=None)
    tables.add_column("expected", justify="right")
    tables.add_column("found", justify="right")
    tables.add_column("")
    for name, expected, found, told in table_lines(verdict):
        tables.add_row(Text(name), expected, found, Text(told, "green" if told == "ok" else "bold red"))
    checks = Table("verdict", "", "", box=None)
    for check in verdict.checks():
        checks.add_row(check.name, check.told, Text("ok", "green") if check.ok else Text("NOT SO", "bold red"))
    console = Console(highlight=False)
    skipped = [Text(line, "yellow") for line in skipped_lines(verdict)]
    last = Text(conclusion(verdict), "bold green" if verdict.ok else "bold red")
    console.print(Group(tables, *skipped, "", checks, last))


def _drawn(moment: Moment) -> Table:
    progress = moment.state.progress
    drawn = Table.grid(padding=(0, 2))
    drawn.add_row("", ProgressBar(total=progress.total or 1, completed=progress.processed, width=BAR_WIDTH))
    for name, told in facts(moment):
        drawn.add_row(Text(name, "dim"), told)
    return drawn
