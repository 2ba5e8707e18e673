"""The store that a location names. A directory that holds one kind of store is never opened as the other.

That would begin a second, empty store beside the jobs, without a word.
"""

import json
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from actorstate.errors import OtherStore
from actorstate.store.contract import Store
from actorstate.store.jsonfiles import JsonStore
from actorstate.store.jsonfiles.fence import MARK, PRIVATE
from actorstate.store.location import Kind, Location
from actorstate.store.sqlite import SqliteStore

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
    """The store that a location names, not opened yet. Raises OtherStore where another kind is."""
    found = kind_of(location.directory)
    if found is not None and found != location.kind:
        there = Location(found, location.directory)
        what = "a SQLite store" if found == "sqlite" else "JSON files of jobs"
        raise OtherStore(
            f"{location.directory} holds {what}; it was not touched",
            hint=f"name it as it is: {there}",
            location=str(there),
        )
    if location.kind == "json":
        return JsonStore(location.directory)
    return SqliteStore(location.directory / "jobs.sqlite", location.directory / PRIVATE / "head")


def _are_jobs(directory: Path) -> Iterator[bool]:
    """Whether files are of the older tool's jobs: JSON objects with an id and a status."""
    if not directory.is_dir():
        return
    with os.scandir(directory) as found:
        names = [entry.path for entry in islice((e for e in found if e.name.endswith(".json")), FILES_LOOKED_AT)]
    for name in names:
        try:
            value = json.loads(Path(name).read_bytes())
        except (ValueError, RecursionError):
            continue
        yield isinstance(value, dict) and {"id", "status", "startedAt"} <= value.keys()
