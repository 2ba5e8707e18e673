"""CSV files and JSON lines as sources.

A place is the number of lines up to the item's end and a checksum over all of them, so a file that has changed
before that place is noticed when a migration goes on; what was added at its end is read.
"""

import csv
import json
import math
import zlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader
from itertools import islice
from pathlib import Path
from typing import cast

from actorstate.errors import ItemRefused, SourceUnreadable
from actorstate.migrate.items.rules import refused
from actorstate.migrate.items.shape import Fields, Place

NAMES_FROM = 1_000
"""Fields of a file of JSON lines are those of so many items at its beginning."""
MAX_LINE_BYTES = 64 * 1024 * 1024
"""A longer line is an error, and not read into memory."""


class CsvFile:
    """A CSV file in UTF-8 whose first row names the fields; values are text. Empty lines are left out."""

    def __init__(self, path: Path) -> None:
        self.path = path
        csv.field_size_limit(MAX_LINE_BYTES)  # the module's own, for all its readers, is 128 KiB
        with _reading(path) as lines:
            self._names = tuple(next(csv.reader(lines, strict=True), ()))
        if not self._names or len(set(self._names)) < len(self._names):
            raise SourceUnreadable(f"the first row of {str(path)!r} does not name each field once: {self._names}")

    def fields(self) -> Sequence[str]:
        """See Source."""
        return self._names

    def count(self) -> int:
        """See Source; reads the file."""
        return sum(1 for _ in self.items(None))

    def items(self, after: Place | None) -> Iterator[tuple[Place, Fields | ItemRefused]]:
        """See Source."""
        with _reading(self.path) as lines:
            rows = csv.reader(lines, strict=True)
            next(rows, None)
            lines.skip_to(after)
            for row in rows:
                if row:
                    yield lines.place, self._fields(row)

    def _fields(self, row: list[str]) -> Fields | ItemRefused:
        if len(row) != len(self._names):
            return refused(f"it has {len(row)} values for {len(self._names)} fields")
        return dict(zip(self._names, row, strict=True))


class JsonLines:
    """A file with a JSON object a line, in UTF-8. Empty lines are left out; a broken one is an item that fails."""

    def __init__(self, path: Path) -> None:
        self.path = path
        first = (fields for _, fields in islice(self.items(None), NAMES_FROM))
        self._names = tuple(dict.fromkeys(name for fields in first if not isinstance(fields, ItemRefused)
                                          for name in fields))  # fmt: skip

    def fields(self) -> Sequence[str]:
        """See Source: those of the first items."""
        return self._names

    def count(self) -> int:
        """See Source; reads the file."""
        return sum(1 for _ in self.items(None))

    def items(self, after: Place | None) -> Iterator[tuple[Place, Fields | ItemRefused]]:
        """See Source."""
        with _reading(self.path) as lines:
            lines.skip_to(after)
            for line in lines:
                if line.strip():
                    yield lines.place, _parsed(line)


class _Lines:
    """The lines of an open file as text, counted and summed up on the way."""

    def __init__(self, path: Path, file: BufferedReader) -> None:
        self._path, self._file = path, file
        self._number = self._sum = 0

    @property
    def place(self) -> str:
        """Behind the line that was read last."""
        return f"{self._number:012}:{self._sum:08x}"

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._file.readline(MAX_LINE_BYTES + 1)
        if not line:
            raise StopIteration
        if len(line) > MAX_LINE_BYTES:
            raise SourceUnreadable(f"line {self._number + 1:,} of {str(self._path)!r} is longer than 64 MiB")
        if not line.endswith(b"\n"):
            line += b"\n"  # else the same line would be another one when the next is added
        self._number += 1
        self._sum = zlib.crc32(line, self._sum)
        return line.decode("utf-8-sig" if self._number == 1 else "utf-8", errors="surrogateescape")

    def skip_to(self, place: Place | None) -> None:
        """Goes on behind that place; raises SourceUnreadable where the file was changed before it."""
        if place is None:
            return
        number = int(str(place).partition(":")[0])
        for _ in islice(self, max(0, number - self._number)):
            pass
        if self.place != place:
            raise SourceUnreadable(
                f"{str(self._path)!r} was changed within its first {number:,} lines, which are migrated already",
                hint="bring the file back as it was, or do all items anew: --again",
            )


@contextmanager
def _reading(path: Path) -> Generator[_Lines]:
    try:
        with path.open("rb") as file:
            yield _Lines(path, file)
    except (OSError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SourceUnreadable(f"{str(path)!r} cannot be read: {reason}") from error


def parsed_json(text: str) -> object:
    """What the text says; raises ValueError where it would be read as something else: NaN, 1e400, a name twice."""
    found: object = json.loads(text, parse_constant=_number, parse_float=_number, object_pairs_hook=_object)
    return found


def _number(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is no JSON number")
    return number


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is there twice")
    return found


def _parsed(line: str) -> Fields | ItemRefused:
    try:
        found = parsed_json(line)
    except (ValueError, RecursionError) as error:
        return refused(f"it is no JSON: {error}")
    return cast("Fields", found) if isinstance(found, dict) else refused("it is no JSON object")
