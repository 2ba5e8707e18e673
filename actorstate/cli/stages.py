"""What the commands share that work on a whole directory: its lock, and how far they are."""

import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from actorstate.cli.command import can_draw
from actorstate.endpoint import WriterLock
from actorstate.errors import WriterRunning

LINE_EVERY_S = 1.0
"""At most one line of progress in this time, where there is no terminal to draw on."""

Step = Callable[[str], None]
"""Told after each job."""


@contextmanager
def locked(directory: Path, command: str) -> Generator[None]:
    """No writer serves the directory while the block is open. Raises WriterRunning, with what to type."""
    lock = WriterLock(directory)
    try:
        lock.acquire()
    except WriterRunning as error:
        pid = error.details.get("pid")
        hint = f"end it first: kill {pid}; then again: {command}"
        raise WriterRunning(error.message, hint=hint, pid=pid) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def stages(what: str, total: int, *, quiet: bool) -> Generator[Step]:
    """How far it is: a bar on a terminal, else a line a second on standard error; nothing when `quiet`."""
    if quiet:
        yield lambda _at: None
    elif sys.stderr.isatty() and can_draw():
        from actorstate.cli.terminal import bar  # noqa: PLC0415 - rich costs 50 ms and is optional

        with bar(what, total) as step:
            yield step
    else:
        yield _lines(what, total)


def _lines(what: str, total: int) -> Step:
    done, told = 0, time.monotonic()

    def step(_at: str) -> None:
        nonlocal done, told
        done += 1
        if time.monotonic() >= told + LINE_EVERY_S:
            print(f"{what}: {done:,} of {total:,} jobs", file=sys.stderr, flush=True)
            told = time.monotonic()

    return step


def table(rows: list[tuple[str, str]]) -> str:
    """Names and what is said of them, one a line."""
    return "\n".join(f"  {name:<9} {told}" for name, told in rows)
