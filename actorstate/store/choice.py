"""The store that a location names. A directory that holds one kind of store is never opened as the other.

That would begin a second, empty store beside the jobs, without a word.
"""

import json
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from actorstate.errors import CorruptJob, OtherStore, StoreError
from actorstate.store.contract import Store
from actorstate.store.files import make_private_folder, write_durably
from actorstate.store.jsonfiles import JsonStore
from actorstate.store.jsonfiles.fence import MARK, PRIVATE
from actorstate.store.jsonfiles.mend import JsonMender
from actorstate.store.jsonfiles.text import is_jobs, parsed
from actorstate.store.jsonfiles.view import JsonView
from actorstate.store.location import Kind, Location, other_store, quoted
from actorstate.store.sqlite import SqliteStore
from actorstate.store.sqlite.mend import SqliteMender
from actorstate.store.sqlite.view import SqliteView
from actorstate.store.view import Mender, View

MOVE = "move"
"""`.actorstate/move` says where jobs are being moved from, and whether all have come."""
FILES_LOOKED_AT = 100
"""Among so many `*.json` files one of a job is looked for, where there is no mark yet."""


def kind_of(directory: Path) -> Kind | None:
    """The kind of store that is in a directory; None when there is none. Raises OSError."""
    if (directory / "jobs.sqlite").exists():
        return "sqlite"
    if (directory / PRIVATE / MARK).exists() or any(_are_jobs(directory)):
        return "json"
    return None


def store_at(location: Location) -> Store:
    """The store that a location names, not opened yet. Raises OtherStore where another kind is, or half a move."""
    _check_kind(location)
    moving = move_under_way(location.directory)
    if moving:
        raise OtherStore(
            f"{location} holds a part of {moving}: its move did not come to its end",
            hint=f"go on with it: actorstate move {quoted(moving)} {quoted(location)}",
            location=moving,
        )
    return opened_store(location)


def opened_store(location: Location) -> Store:
    """The store itself, whatever lies there; not opened yet."""
    if location.kind == "json":
        return JsonStore(location.directory)
    return SqliteStore(location.directory / "jobs.sqlite", location.directory / PRIVATE / "head")


def view_at(location: Location) -> View:
    """The store for reading alone, not opened yet. Raises OtherStore, and StoreError where there is none."""
    _check_kind(location)
    if kind_of(location.directory) is None:
        raise StoreError(f"there are no jobs in {location.directory}", hint="check the path")
    if location.kind == "json":
        return JsonView(location.directory)
    return SqliteView(location.directory / "jobs.sqlite", location.directory / PRIVATE / "head")


def mender_at(location: Location) -> Mender:
    """What mends the store of this location. Only under the directory's lock."""
    if location.kind == "json":
        return JsonMender(location.directory)
    return SqliteMender(location.directory / "jobs.sqlite")


def move_under_way(directory: Path) -> str:
    """Where the jobs of an unfinished move to this directory come from; empty when there is none."""
    try:
        mark = json.loads((directory / PRIVATE / MOVE).read_bytes())
    except (OSError, ValueError):
        return ""
    return "" if mark.get("done") else str(mark.get("from"))


def mark_move(directory: Path, source: str, *, done: bool) -> None:
    """Says in the target, on the disk on return, that it is under way or complete. Raises OSError."""
    make_private_folder(directory / PRIVATE)
    write_durably(directory / PRIVATE / MOVE, json.dumps({"from": source, "done": done}).encode() + b"\n")


def _check_kind(location: Location) -> None:
    found = kind_of(location.directory)
    if found is not None and found != location.kind:
        raise other_store(Location(found, location.directory))


def _are_jobs(directory: Path) -> Iterator[bool]:
    """Whether files are jobs by their looks."""
    if not directory.is_dir():
        return
    with os.scandir(directory) as found:
        names = [entry.path for entry in islice((e for e in found if e.name.endswith(".json")), FILES_LOOKED_AT)]
    for name in names:
        try:
            yield is_jobs(Path(name).stem, parsed(Path(name).read_bytes()))
        except CorruptJob:
            continue
