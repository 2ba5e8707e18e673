"""Drawings on a terminal. The only module that imports rich, and imported only when something is drawn."""

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from datetime import UTC, datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from actorstate.cli.views import JOB_COLUMNS, clean, counts, ends, job_glance, percent, speed
from actorstate.core.messages.document import JobState

STYLES = {
    "completed": "green",
    "failed": "red",
    "cancelled": "yellow",
    "paused": "cyan",
    "waiting": "cyan",
    "healthy": "green",
    "late": "yellow",
    "stalled": "yellow",
    "dead": "red",
}
BAR_WIDTH = 60
WIDE = 110
MIN_JOB = 12
"""Characters; below the first the columns that a page of `get` tells as well are left out."""
_ONLY_WIDE = {"KIND", "ROWS", "RATE", "NOTE"}

BESIDE_JOB = 52
"""Characters that the other columns of `top` need at most; a longer id is cut short."""
TOP_COLUMNS = ("JOB", "STATUS", "HEALTH", "DONE", "RATE", "ENDS")

Draw = Callable[[JobState, datetime, str], None]


def draw_jobs(states: Iterable[JobState]) -> None:
    """A table of the jobs, with fewer columns where the terminal is narrow; ids are folded, never cut."""
    console = Console()
    shown = [name for name in JOB_COLUMNS if console.width >= WIDE or name not in _ONLY_WIDE]
    table = Table(box=None, pad_edge=False)
    for name in shown:
        table.add_column(
            name, no_wrap=name not in {"JOB", "NOTE"}, overflow="fold", min_width=MIN_JOB if name == "JOB" else None
        )
    now = datetime.now(UTC)
    for state in states:
        values = job_glance(state, now)
        table.add_row(*(Text(values[name], STYLES.get(values[name], "")) for name in shown))
    console.print(table)


@contextmanager
def live_jobs() -> Generator[Callable[[list[JobState], datetime, str], None]]:
    """A table of jobs, drawn anew at each call of what this yields; as many as the terminal has lines for."""
    console = Console()

    def draw(states: list[JobState], now: datetime, notice: str) -> None:
        room = max(1, console.height - 4)
        table = Table(box=None, pad_edge=False)
        for name in TOP_COLUMNS:
            width = max(MIN_JOB, console.width - BESIDE_JOB) if name == "JOB" else None
            table.add_column(name, no_wrap=True, overflow="ellipsis", max_width=width)
        for state in states[:room]:
            values = job_glance(state, now)
            table.add_row(*(Text(values[name], STYLES.get(values[name], "")) for name in TOP_COLUMNS))
        rest = len(states) - room
        more = f"and {rest} more; " if rest > 0 else "" if states else "no job is under way; "
        picture.update(Group(table, Text(f"{more}q to quit", "dim"), Text(notice, "yellow")), refresh=True)

    with Live(console=console, auto_refresh=False) as picture:
        yield draw


@contextmanager
def live() -> Generator[Draw]:
    """A picture of one job, drawn anew at each call of what this yields: (state, now, notice)."""
    console = Console()

    def draw(state: JobState, now: datetime, notice: str) -> None:
        picture.update(_picture(state, now, notice, min(BAR_WIDTH, console.width)), refresh=True)

    with Live(console=console, auto_refresh=False) as picture:
        yield draw


def _picture(state: JobState, now: datetime, notice: str, width: int) -> Group:
    total = state.progress.total
    rows: list[RenderableType] = [
        _head(state),
        _line(ProgressBar(total=total or 1, completed=state.progress.processed, width=width, pulse=total is None)),
        Text(_facts(state, now)),
    ]
    if state.reason:
        rows.append(Text(clean(state.reason), STYLES.get(state.status, "")))
    if notice:
        rows.append(Text(notice, "yellow"))
    return Group(*rows)


def _line(bar: ProgressBar) -> Table:
    """A bar alone ends without a new line; a row of a table does not."""
    grid = Table.grid()
    grid.add_row(bar)
    return grid


def _head(state: JobState) -> Text:
    head = Text.assemble((state.id, "bold"))
    for word in (state.status, state.health, clean(state.phase or "")):
        if word:
            head.append("  ")
            head.append(word, STYLES.get(word, ""))
    return head


def _facts(state: JobState, now: datetime) -> str:
    facts = [percent(state.progress), counts(state.progress), speed(state.rate, state.progress.unit)]
    if state.rate.eta:
        facts.append(f"ends {ends(state.rate, now)}")
    return "  ".join(fact for fact in facts if fact and fact != "-")


@contextmanager
def bar(what: str, total: int) -> Generator[Callable[[str], None]]:
    """A bar that a call of what this yields moves by one; the text beside it is what is being looked at."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[at]}"), console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total, at="")
        yield lambda at: progress.update(task, advance=1, at=clean(at))
