"""Which store a location names: a directory (SQLite), or `json:///dir` (JSON files in that directory).

What comes after `json://` is the path as it stands: nothing in it is decoded. Clients need the directory
alone, where the writer's address lies; which store it opens is in `choice.py`.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from actorstate.errors import BadRequest, OtherStore

JSON_SCHEME = "json://"
_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*:/"
"""Of another kind of store, or with a slash too few: taken for a path it would become a folder of that name."""
_HINT = "give a directory, or json:///dir for JSON files in /dir"
Kind = Literal["sqlite", "json"]


@dataclass(frozen=True, slots=True)
class Location:
    """A directory, and which kind of store is in it."""

    kind: Kind
    directory: Path

    def __str__(self) -> str:
        return f"{JSON_SCHEME}{self.directory}" if self.kind == "json" else str(self.directory)


def other_store(there: Location) -> OtherStore:
    """What is said where jobs are of another kind than they were named."""
    what = "a SQLite store" if there.kind == "sqlite" else "JSON files of jobs"
    return OtherStore(f"{there.directory} holds {what}; it was not touched", location=str(there))


def quoted(place: object) -> str:
    """A path or location as a shell takes it: hints are there to be typed."""
    return shlex.quote(str(place))


def located(text: str | Path) -> Location:
    """What a location names; relative paths are made absolute. Raises BadRequest for another scheme, or no path."""
    if not isinstance(cast("object", text), str | Path) or "\0" in str(text):
        raise BadRequest(f"{text!r:.80} names no store", hint=_HINT)
    given = str(text)
    path = given.removeprefix(JSON_SCHEME)
    if not path or re.match(_SCHEME, path):
        raise BadRequest(f"{given!r} names no store", hint=_HINT)
    if not Path(path).absolute().name:
        raise BadRequest(f"{given!r} is the root of all directories, and no place for jobs", hint=_HINT)
    return Location("json" if given != path else "sqlite", Path(path).absolute())
