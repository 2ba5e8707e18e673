"""Drawings on a terminal. The only module that imports rich, and imported only when something is drawn."""

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from datetime import datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from actorstate.cli.views import JOB_COLUMNS, clean, counts, ends, job_columns, percent, speed
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

Draw = Callable[[JobState, datetime, str], None]


def draw_jobs(states: Iterable[JobState]) -> None:
    """A table of the jobs."""
    table = Table(box=None, pad_edge=False)
    for name in JOB_COLUMNS:
        table.add_column(name, no_wrap=name != "JOB", overflow="fold")
    for state in states:
        table.add_row(*(Text(value, STYLES.get(value, "")) for value in job_columns(state)))
    Console().print(table)


@contextmanager
def live() -> Generator[Draw]:
    """A picture of one job, drawn anew at each call of what this yields: (state, now, notice)."""
    with Live(console=Console(), auto_refresh=False) as picture:
        yield lambda state, now, notice: picture.update(_picture(state, now, notice), refresh=True)


def _picture(state: JobState, now: datetime, notice: str) -> Group:
    total = state.progress.total
    rows: list[RenderableType] = [
        _head(state),
        ProgressBar(total=total or 1, completed=state.progress.processed, width=BAR_WIDTH, pulse=total is None),
        Text(_facts(state, now)),
    ]
    if state.reason:
        rows.append(Text(clean(state.reason), STYLES.get(state.status, "")))
    if notice:
        rows.append(Text(notice, "yellow"))
    return Group(*rows)


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
