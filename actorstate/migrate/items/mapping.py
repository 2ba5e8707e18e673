"""Which field of the source becomes which of the target."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from actorstate.errors import BadRequest
from actorstate.migrate.items.shape import Fields

MAX_HISTORY = 10
"""Mappings that a job remembers: the first and the last 9."""


@dataclass(frozen=True, slots=True)
class FieldMapping:
    """`renamed` maps old names to new ones, `constants` new names to values; all other fields keep their names."""

    renamed: Mapping[str, str] = field(default_factory=dict[str, str])
    constants: Mapping[str, object] = field(default_factory=dict[str, object])
    dropped: Collection[str] = frozenset()

    def name(self, old: str) -> str:
        """What the field is called in the target."""
        return self.renamed.get(old, old)

    def applied(self, fields: Fields) -> dict[str, object]:
        """The item's fields as the target is to have them."""
        kept = {self.name(old): value for old, value in fields.items() if old not in self.dropped}
        return kept | dict(self.constants)

    def told(self) -> dict[str, object]:
        """As the job's meta has it: old names to new ones (None: dropped), and `=new` to a constant."""
        constants = {f"={new}": value for new, value in self.constants.items()}
        return {**self.renamed, **dict.fromkeys(sorted(self.dropped)), **constants}

    def check(self, old: Sequence[str], new: Collection[str] | None, key: str) -> None:
        """Raises BadRequest that names all that is wrong between the fields `old` and `new`, and the `key`."""
        strange = [name for name in self._new_names(old) if new is not None and name not in new]
        wrong = [
            *(f"the source has no field {name!r}" for name in (key, *self.renamed, *self.dropped) if name not in old),
            *(f"{name!r} is renamed and dropped" for name in self.renamed if name in self.dropped),
            *([f"the key {key!r} is dropped"] if key in self.dropped else []),
            *self._collisions(old),
            *(f"the target has no field {name!r}" for name in strange),
        ]
        if wrong:
            told = f"; the source has {', '.join(old)}" + ("" if new is None else f"; the target has {', '.join(new)}")
            raise BadRequest(
                f"the mapping does not fit: {'; '.join(dict.fromkeys(wrong))}{told}",
                hint="rename, set or drop fields: --rename OLD=NEW, --set NEW=VALUE, --drop OLD",
            )

    def _new_names(self, old: Sequence[str]) -> list[str]:
        return [*(self.name(name) for name in old if name not in self.dropped), *self.constants]

    def _collisions(self, old: Sequence[str]) -> list[str]:
        names = self._new_names(old)
        return [f"two fields become {name!r}" for name in dict.fromkeys(names) if names.count(name) > 1]


def remembered(history: Sequence[object], mapping: FieldMapping, at: str, note: str) -> list[object]:
    """The history with this mapping, used from `at` on, as its last entry."""
    source = "user-edited" if history else "original"
    entry = {"timestamp": at, "mapping": mapping.told(), "source": source, "note": note}
    every = [*history, entry]
    return every if len(every) <= MAX_HISTORY else [every[0], *every[1 - MAX_HISTORY :]]
