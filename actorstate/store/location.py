"""Which store a location names: a directory (SQLite), or `json:///dir` (JSON files in that directory).

What comes after `json://` is the path as it stands: nothing in it is decoded. Clients need the directory
alone, where the writer's address lies; which store it opens is in `choice.py`.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from actorstate.errors import BadRequest

JSON_SCHEME = "json://"
Kind = Literal["sqlite", "json"]


@dataclass(frozen=True, slots=True)
class Location:
    """A directory, and which kind of store is in it."""

    kind: Kind
    directory: Path

    def __str__(self) -> str:
        return f"{JSON_SCHEME}{self.directory}" if self.kind == "json" else str(self.directory)


def quoted(place: object) -> str:
    """A path or location as a shell takes it: hints are there to be typed."""
    return shlex.quote(str(place))


def located(text: str | Path) -> Location:
    """What a location names; relative paths are made absolute. Raises BadRequest for another scheme, or no path."""
    if not isinstance(cast("object", text), str | Path) or "\0" in str(text):
        raise BadRequest(f"{text!r:.80} names no store", hint="give a directory, or json:///dir for JSON files in /dir")
    given = str(text)
    path = given.removeprefix(JSON_SCHEME)
    if not path or "://" in path:
        raise BadRequest(f"{given!r} names no store", hint="give a directory, or json:///dir for JSON files in /dir")
    return Location("json" if given != path else "sqlite", Path(path).absolute())
