"""Sources and targets by their names, as they are typed on a command line."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from actorstate.errors import BadRequest
from actorstate.migrate.items.files import CsvFile, JsonLines
from actorstate.migrate.items.overhttp import HttpTarget
from actorstate.migrate.items.shape import Source, Target
from actorstate.migrate.sqlitefiles.records import TableSource, TableTarget

SOURCES = "FILE.csv, FILE.jsonl or FILE.sqlite:TABLE"
TARGETS = "FILE.sqlite:TABLE or http://HOST/PATH/{key} (without {key}, the key is put at its end)"


@contextmanager
def opened_source(name: str) -> Generator[Source]:
    """The source of this name. Raises BadRequest for a name of no kind, SourceUnreadable."""
    suffix = Path(name).suffix.lower()
    if suffix == ".csv":
        yield CsvFile(Path(name))
    elif suffix in {".jsonl", ".ndjson"}:
        yield JsonLines(Path(name))
    else:
        path, table = _table(name, SOURCES)
        with TableSource(path, table) as source:
            yield source


@contextmanager
def opened_target(name: str, key: str, headers: Mapping[str, str], *, read_only: bool) -> Generator[Target]:
    """The target of this name, whose items are known by their field `key`. Raises BadRequest, SourceUnreadable."""
    if name.startswith(("http://", "https://")):
        with HttpTarget(name, headers) as service:
            yield service
        return
    path, table = _table(name, TARGETS)
    with TableTarget(path, table, key, read_only=read_only) as target:
        yield target


def _table(name: str, known: str) -> tuple[Path, str]:
    path, separator, table = name.rpartition(":")
    if not separator or not path or not table:
        raise BadRequest(f"{name!r} is no source or target that is known here", hint=f"use {known}")
    return Path(path), table
