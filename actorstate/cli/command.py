"""What the commands share: their common options, and how each reaches a client."""

import argparse
import contextlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

from actorstate.client.start import is_switched_off
from actorstate.client.sync import Client, connect
from actorstate.config import ClientSettings
from actorstate.endpoint import is_begun, lock_holder, read_endpoint
from actorstate.errors import WriterUnavailable
from actorstate.store.location import Location, located, other_store, quoted

TIMEOUT_S = 10.0
USUAL_COLUMNS = 80
"""Of a terminal that does not tell its size: some pseudo-terminals say 0."""
UNWRITTEN_TIMEOUT_S = 1.0
"""Default deadline where nobody holds the lock and none may be started: enough for one just starting again."""
IDLE_EXIT_S = 30.0
"""A writer that a command had to start goes soon: on a server it should not be in its supervisor's way."""


@dataclass(frozen=True, slots=True)
class Command:
    """How a command fills its parser, and what it does; `run` returns the exit status."""

    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def seconds(text: str) -> float:
    """A positive number of seconds; argparse turns the ValueError into a usage error."""
    value = float(text)
    if not 0 < value < 1e9:  # noqa: PLR2004 - 31 years; infinity and NaN fail the comparison
        raise ValueError(text)
    return value


def positive(text: str) -> int:
    """A whole number above zero, as large as a length may be."""
    value = int(text)
    if not 1 <= value <= sys.maxsize:
        raise ValueError(text)
    return value


def add_directory(parser: argparse.ArgumentParser) -> None:
    """The first argument of nearly all commands."""
    parser.add_argument(
        "directory", metavar="DIR", help="the directory of the jobs, or json:///dir for JSON files in /dir"
    )


def add_job(parser: argparse.ArgumentParser) -> None:
    """DIR and JOB."""
    add_directory(parser)
    parser.add_argument("job", metavar="JOB", help="the id of a job; `actorstate jobs DIR` lists them")


def add_timeout(parser: argparse.ArgumentParser, meaning: str = "") -> None:
    """`--timeout`; `meaning` says what a command without an answer to wait for does with it."""
    default = f"default {TIMEOUT_S:.0f}; {UNWRITTEN_TIMEOUT_S:.0f} where no writer runs or may be started"
    told = meaning or f"give up after this many seconds ({default})"
    parser.add_argument("--timeout", type=seconds, metavar="S", help=told)


def opened(options: argparse.Namespace, timeout_s: float | None = None) -> Client:
    """A client of the options' directory, to be closed by `with`; `timeout_s` overrules the options' deadline."""
    settings = ClientSettings(timeout_s=timeout_s or deadline_s(options), writer_idle_exit_s=IDLE_EXIT_S)
    return connect(options.directory, settings=settings)


def deadline_s(options: argparse.Namespace) -> float:
    """`--timeout`; without it 10 s, or 1 s where nobody holds the writer's lock and none may be started.

    Raises WriterUnavailable where there are no jobs.
    """
    writer = has_writer(options.directory)
    if options.timeout is not None:
        return float(options.timeout)
    return TIMEOUT_S if writer or not is_switched_off() else UNWRITTEN_TIMEOUT_S


def agrees(question: str) -> bool:
    """Asks on the terminal; anything but yes is no."""
    print(question, end="", flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def can_draw(columns: int = 0) -> bool:
    """Whether standard output is a terminal of so many columns that can move its cursor, and rich is there to do it."""
    if not sys.stdout.isatty() or os.environ.get("TERM", "") in {"", "dumb"}:
        return False
    width = os.get_terminal_size(sys.stdout.fileno()).columns or USUAL_COLUMNS
    return width >= columns and find_spec("rich") is not None


def has_writer(directory: str) -> bool:
    """Whether a process holds the directory's lock.

    Raises WriterUnavailable when there is no such directory, or none with jobs in it: most often a typing
    error, and no command may begin a new one by it. Raises OtherStore where a writer keeps the other kind.
    """
    location = located(directory)
    path = location.directory
    if not is_begun(location):
        raise _nothing(location, directory)
    if lock_holder(path) is None:
        return False
    with contextlib.suppress(WriterUnavailable):  # it is on its way
        there = Location(read_endpoint(path).store, path)
        if there != location:
            raise other_store(there)
    return True


def _nothing(location: Location, directory: str) -> WriterUnavailable:
    """By their names alone: whether files are jobs, only a writer looks."""
    path, files = location.directory, Location("json", location.directory)
    what = "are no jobs in" if path.is_dir() else "is no directory"
    hint = f"check the path; to begin a new one: actorstate serve {quoted(directory)}"
    if is_begun(files):
        what, hint = "is no SQLite store in", f"if its *.json files are jobs, name it {quoted(files)}; {hint}"
    return WriterUnavailable(f"there {what} {path}", hint=hint, directory=directory)
