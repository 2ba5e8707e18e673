"""What an item is, where items come from, and where they go: two interfaces that a user implements in a few lines."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from actorstate.errors import ItemRefused

Fields = Mapping[str, object]
"""Values by field: text, numbers, bytes, None; lists and dicts where the target takes them."""
Place = str | int
"""Where an item stands in its source, at most 256 bytes: what `Source.items` needs to go on behind it."""

_LINE = re.compile(r"@(\d+):[0-9a-f]{8}")
"""How an item of a file is called that has no key: by its line, and a checksum up to there."""


def spot_of(name: str) -> str | None:
    """Where the nameless item of this `name` stands, whatever is there by now; None where `name` is a key."""
    line = _LINE.fullmatch(name)
    return name if line is None and name.startswith("@") else line and line[1]


NETWORK, VALIDATION, PERMISSION = "network", "validation", "permission"
RATE_LIMIT, DUPLICATE, UNKNOWN = "rate_limit", "duplicate", "unknown"
"""Categories of failures."""
UNTRIED = "untried"
"""A target may refuse the items behind one of `rate_limit` or `network` so: their turn has not come."""


@dataclass(frozen=True, slots=True)
class Item:
    """What is to be in the target under `key`. `once` is the same for each try to bring this very content there."""

    key: str
    fields: Fields
    once: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What the target has under an item's key, and what the item would make of it, field by field and comparable."""

    stored: Fields
    wanted: Fields

    @property
    def changes(self) -> dict[str, tuple[object, object]]:
        """The fields that differ: what is stored, and what is wanted."""
        pairs = ((name, self.stored.get(name), value) for name, value in self.wanted.items())
        return {name: (stored, value) for name, stored, value in pairs if stored != value}


class Source(Protocol):
    """Where items come from. Asked again, it gives the same items in the same order; new ones come at the end."""

    def fields(self) -> Sequence[str]:
        """The names of the fields that its items may have."""
        ...

    def count(self) -> int | None:
        """How many items there are, or None where only reading them all would tell."""
        ...

    def items(self, after: Place | None) -> Iterator[tuple[Place, Fields | ItemRefused]]:
        """Each item behind that place (None: all) with its own; an unreadable one as ItemRefused.

        Raises SourceUnreadable where nothing more can be read.
        """
        ...


class Target(Protocol):
    """Where items go. With several workers `look` and `write` are called by several threads at once."""

    def fields(self) -> Collection[str] | None:
        """The names of the fields that it takes; None: any."""
        ...

    def look(self, items: Sequence[Item]) -> Sequence[Seen | ItemRefused | None]:
        """For each item what is there under its key (None: nothing), or why that cannot be told."""
        ...

    def write(self, creates: Sequence[Item], updates: Sequence[Item]) -> Mapping[str, ItemRefused]:
        """Returns when all are durable, but for those that it refuses: their keys, and why.

        A create must not change what is there: that is refused as a `duplicate`. A refusal as `rate_limit`
        (with `retry_after_s`) or `network` is tried again. Raises TargetFailed where going on makes no sense.
        """
        ...


@runtime_checkable
class Purgeable(Protocol):
    """A target whose items can be listed and deleted."""

    def surplus(self, items: Iterable[Item]) -> Iterator[str]:
        """In their order, the keys that it has and none of the items has."""
        ...

    def delete(self, keys: Sequence[str]) -> int:
        """Returns when none of them is there any more: how many there were."""
        ...
