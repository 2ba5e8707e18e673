"""What is to become of an item: the rules of a migration, and the decision about each item. Pure.

    in the target      create                 update                 upsert
    nothing            create                 fails (validation)     create
    the same           duplicates             skipped                skipped
    something else     duplicates             update                 update

`duplicates` is skip (counted as a duplicate), error (fails as one), or update (as in the column upsert).
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, get_args

from actorstate.errors import BadRequest, ItemRefused, SourceUnreadable
from actorstate.migrate.items.mapping import FieldMapping
from actorstate.migrate.items.shape import DUPLICATE, VALIDATION, Fields, Item, Place, Purgeable, Seen, Source, Target

Mode = Literal["create", "update", "upsert"]
Duplicates = Literal["skip", "error", "update"]
Action = Literal["create", "update", "written", "skip", "duplicate"]
"""`written` was done by this migration before, and only has to be counted."""

MAX_BATCH = 1_000
MAX_WORKERS = 64
MAX_KEY = 256
"""Characters of a key; an item with a longer one fails, since the job's ledger could not tell it from others."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How items are migrated; `key` is the field of the source by which an item is known. Raises BadRequest."""

    key: str
    mode: Mode = "create"
    duplicates: Duplicates = "skip"
    mapping: FieldMapping = field(default_factory=FieldMapping)
    batch_size: int = 500
    workers: int = 1
    """Threads that look and write at once, for targets that answer slowly."""
    max_items: int | None = None
    stop_on_error: bool = False
    delete_missing: bool = False
    """After the items, and after an approval, what the source does not have is deleted in the target."""

    def __post_init__(self) -> None:
        for word, words in ((self.mode, get_args(Mode)), (self.duplicates, get_args(Duplicates))):
            if word not in words:
                raise BadRequest(f"{word!r} is none of {', '.join(words)}")
        if self.duplicates != "skip" and self.mode != "create":
            raise BadRequest("duplicates are told from others where items are created: leave it out, or mode='create'")
        for name, number, most in (("batch_size", self.batch_size, MAX_BATCH), ("workers", self.workers, MAX_WORKERS)):
            if not 1 <= number <= most:
                raise BadRequest(f"{name} is 1 to {most}, not {number}")
        if self.max_items is not None and self.max_items < 1:
            raise BadRequest(f"max_items is at least 1, not {self.max_items}")
        if self.max_items is not None and self.delete_missing:
            raise BadRequest("with max_items a part of the source is not seen: it cannot be told what it does not have")

    @property
    def overwrites(self) -> bool:
        """Whether what is there is changed."""
        return self.mode != "create" or self.duplicates == "update"

    @property
    def skips_duplicates(self) -> bool:
        """Whether what is there already counts as a duplicate, and not as a failure."""
        return self.mode == "create" and self.duplicates == "skip"

    def told(self) -> dict[str, object]:
        """As the job's meta has it, under the older tool's names."""
        return {
            "mode": self.mode,
            "duplicateBehavior": self.duplicates,
            "sourceMatchField": self.key,
            "targetMatchField": self.mapping.name(self.key),
            "batchSize": self.batch_size,
            "concurrency": self.workers,
            "stopOnError": self.stop_on_error,
            "maxItems": self.max_items,
            "deleteMissing": self.delete_missing,
            "fieldMapping": self.mapping.told(),
        }


@dataclass(frozen=True, slots=True)
class Migration:
    """Items of `source` go to `target` under the job `job`, which keeps how far it is. The names are for people."""

    job: str
    source: Source
    target: Target
    rules: Rules
    source_name: str = ""
    target_name: str = ""

    def check(self) -> None:
        """Raises BadRequest where the fields do not fit, or the target cannot delete what it should."""
        self.rules.mapping.check(self.source.fields(), self.target.fields(), self.rules.key)
        if self.rules.delete_missing and not isinstance(self.target, Purgeable):
            raise BadRequest(
                "this target does not list what it has, so what the source does not have cannot be deleted"
            )

    def total(self) -> int | None:
        """How many items will be migrated, if the source can tell."""
        count, most = self.source.count(), self.rules.max_items
        return count if most is None else most if count is None else min(count, most)

    def item(self, fields: Fields) -> Item:
        """The item as the target is to have it; raises ItemRefused."""
        key = key_of(fields, self.rules)
        if not key:
            raise refused(f"it has no {self.rules.key!r}, by which it would be known")
        if len(key) > MAX_KEY:
            raise refused(f"its {self.rules.key!r} has {len(key):,} characters, more than {MAX_KEY}")
        mapped, takes = self.rules.mapping.applied(fields), self.target.fields()
        if strange := [name for name in mapped if takes is not None and name not in takes]:
            raise refused(f"the target has no field {', '.join(map(repr, strange))}")
        if broken := [name for name, value in mapped.items() if isinstance(value, str) and not _is_text(value)]:
            raise refused(f"{', '.join(map(repr, broken))} is no valid UTF-8")
        return Item(key, mapped, _once(self.job, key, mapped))


def key_of(fields: Fields, rules: Rules) -> str:
    """The item's natural key as text; empty where it has none."""
    value = fields.get(rules.key)
    return "" if value is None else str(value)


def name_of(place: Place, fields: Fields | ItemRefused, rules: Rules) -> str:
    """The item's name in the ledger: its key or, where that cannot be told, its place."""
    key = "" if isinstance(fields, ItemRefused) else key_of(fields, rules)
    return key[:MAX_KEY] or nameless_at(place)


def nameless_at(place: Place) -> str:
    """The name in the ledger of an item at this place whose key cannot be told."""
    return f"@{place}"[:MAX_KEY]


def known_items(migration: Migration) -> Iterator[Item]:
    """What the source has, by key alone. Raises SourceUnreadable where a key cannot be told: it would be missed."""
    rules = migration.rules
    for place, fields in migration.source.items(None):
        if isinstance(fields, ItemRefused) or not (key := key_of(fields, rules)) or not _is_text(key):
            raise SourceUnreadable(
                f"the item at {place} has no key that can be read: what the source does not have cannot be told",
                hint="mend that item, or leave out --delete-missing",
            )
        yield Item(key, {rules.mapping.name(rules.key): fields[rules.key]}, "")


def decided(rules: Rules, seen: Seen | None, planned: Action | None) -> Action:
    """What is to be done; `planned` is what a former try of this migration was about to do. Raises ItemRefused."""
    if seen is None:
        if rules.mode == "update":
            raise refused("it is not in the target, and mode update creates nothing")
        return "create"
    same = not seen.changes
    if planned is not None and same:
        return "written"
    if rules.overwrites:
        return "skip" if same else "update"
    if planned is not None:
        return planned
    if rules.duplicates == "error":
        raise refused("it is in the target already", DUPLICATE)
    return "duplicate"


def refused(
    message: str, category: str = VALIDATION, retry_after_s: float | None = None, *, answered: bool = False
) -> ItemRefused:
    """Why an item cannot be taken; `answered` where it is the target itself that said so."""
    return ItemRefused(message, category=category, retry_after_s=retry_after_s, answered=answered)


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _once(job: str, key: str, fields: Fields) -> str:
    content = repr((job, key, sorted(fields.items(), key=lambda pair: pair[0])))
    return hashlib.sha256(content.encode(errors="surrogateescape")).hexdigest()[:32]
