"""Copying rows exactly as they are, part by part by several processes, each row counted once.

    source ── items(range) ──▶ run.track ──▶ target.put ──▶ target.commit ──▶ position saved
                                   ▲                             every `every` rows, in this order
                       rows below the saved position are not seen again

The target is on its disk before the position is, so a process that dies on any line loses nothing: the
rows after the saved position are put once more, and a target takes a row that it has for done. Items that
change on their way, and may fail one by one, are migrated by `migrate/items/`.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from actorstate.client.run import Run


class Text(bytes):
    """Text, byte for byte as the source stores it: it need not be valid in any encoding."""

    __slots__ = ()


Value = int | float | bytes | None
"""A `Text` is told from a blob by its type."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row to copy: which of `group` by its natural `key`, and all of its values."""

    group: str
    key: int | tuple[Value, ...]
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of one shape, as a table has them. One that is not `divisible` has to be copied by one worker in order."""

    name: str
    items: int
    divisible: bool = True


@dataclass(frozen=True, slots=True)
class Range:
    """`items` of a group in the order of their keys, from position `start`."""

    group: str
    start: int
    items: int


@dataclass(frozen=True, slots=True)
class Part:
    """What one worker copies in one go; `name` is the name of its track."""

    name: str
    ranges: tuple[Range, ...]

    @property
    def items(self) -> int:
        """How many there are in it."""
        return sum(part.items for part in self.ranges)


@dataclass(frozen=True, slots=True)
class Content:
    """How many rows there are, and a digest over all of their keys and values in order."""

    items: int
    sha256: str


class RowSource(Protocol):
    """Where rows come from. It stands still: the same range gives the same rows in the same order."""

    def groups(self) -> Sequence[Group]:
        """All groups, empty ones too."""
        ...

    def items(self, wanted: Range) -> Iterator[Row]:
        """The items of the range; raises SourceUnreadable."""
        ...


class RowTarget(Protocol):
    """Where rows go."""

    def put(self, item: Row) -> None:
        """Take the item with the next commit; one whose key is there already changes nothing."""
        ...

    def commit(self) -> None:
        """Return when all that was put is on the disk; raises DiskFull or TargetFailed, and then nothing of it is."""
        ...


def divide(groups: Iterable[Group], parts: int) -> tuple[Part, ...]:
    """Cuts the rows, groups one after the other, into at most `parts` parts of nearly equal length.

    The same groups give the same parts. Only a group that is not divisible can make a part longer.
    """
    sizes = list(groups)
    size = max(1, -(-sum(group.items for group in sizes) // parts))
    cut: list[list[Range]] = [[]]
    room = size
    for group in sizes:
        start = 0
        while start < group.items:
            if room <= 0:
                cut.append([])
                room = size
            left = group.items - start
            taken = min(left, room) if group.divisible else left
            cut[-1].append(Range(group.name, start, taken))
            start, room = start + taken, room - taken
    return tuple(Part(f"part-{number:03}", tuple(ranges)) for number, ranges in enumerate(cut, 1) if ranges)


def copy_part(run: Run, source: RowSource, target: RowTarget, part: Part, *, every: int = 500) -> None:
    """Copies the rows of `part` that are not yet there; returns when the job has all of them as succeeded.

    A part that was interrupted goes on where it was saved, whichever process does it. One run at a time
    (`AlreadyTracked`); raises what the source, the target and the run raise.
    """
    items = (item for wanted in part.ranges for item in source.items(wanted))
    for item in run.track(items, name=part.name, every=every, before_save=target.commit):
        target.put(item)


def content_of(items: Iterable[Row]) -> Content:
    """Counts and digests rows, to compare what is in the target with what the source has."""
    digest = hashlib.sha256()
    count = 0
    for count, item in enumerate(items, 1):  # noqa: B007 - the last number is the count
        types = "".join("t" if isinstance(value, Text) else "-" for value in item.values)
        digest.update(repr((item.key, types, item.values)).encode())
    return Content(count, digest.hexdigest())
