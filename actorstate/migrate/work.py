"""One user's migration while it is under way: his folder, his journal, and the places that belong to it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from actorstate import telemetry
from actorstate.errors import NeedsAttention
from actorstate.migrate.journal import Journal, noted, write_journal
from actorstate.migrate.plan import Part
from actorstate.migrate.sqlitefiles.content import Contents

STEPS = ("backup", "verify_backup", "stage", "verify_stage", "switch", "register", "verify", "remove")
"""What is done for a user, in order; before `switch` nothing of his has changed its place."""

Tell = Callable[[str, int, int], None]
"""Hears (user, bytes copied, bytes in all)."""


def silent(_user: str, _done: int, _total: int) -> None:
    """Tells nobody."""


@dataclass(frozen=True, slots=True)
class Options:
    """How users are migrated."""

    lock_wait_s: float = 5.0
    """A database that is in use this long is refused."""
    backup_images: bool = False
    """Folders get a proven copy too, also where a rename moves them."""
    tell: Tell = silent

    @staticmethod
    def quiet(_done: int, _total: int) -> None:
        """Tells nobody how far a copy is."""


@dataclass(slots=True)
class Work:
    """One user's migration. `journal` is what is on the disk."""

    data: Path
    journal: Journal
    options: Options
    notes: list[str] = field(default_factory=list[str])
    """What the report should say beside the result."""
    recovered: bool = False
    """An interrupted run is finished: its new database may have been used since."""

    @property
    def user(self) -> str:
        return self.journal.plan.user

    @property
    def folder(self) -> Path:
        return self.data / self.journal.plan.user

    @property
    def database(self) -> Part:
        """The database's move. Raises NeedsAttention for a journal without one."""
        if self.journal.plan.database is None:
            raise NeedsAttention(f"the journal of {self.user} names no database")
        return self.journal.plan.database

    @property
    def contents(self) -> Contents:
        """What the source said. Raises NeedsAttention when the journal does not tell."""
        if self.journal.contents is None:
            raise NeedsAttention(f"the journal of {self.user} does not tell what his database said")
        return self.journal.contents

    @property
    def old(self) -> Path:
        return self.folder / self.database.old

    @property
    def new(self) -> Path:
        return self.folder / self.database.new

    @property
    def stage(self) -> Path:
        """Where the new database is made, on the file system where it will be."""
        return self.new.with_name(f".{self.new.name}.actorstate-stage")

    @property
    def backup_place(self) -> Path:
        """The first name of a backup of this move."""
        plan = self.journal.plan
        back = self.journal.state == "rolling_back"
        beside = self.new if back else self.old
        parent = self.folder / plan.backups if plan.backups else beside.parent
        return parent / f"{self.old.name}.pre-{'rollback' if back else 'migration'}-backup"

    def folders(self) -> Iterator[tuple[Part, Path, Path]]:
        """Each folder that moves: its part of the plan, the old place and the new one."""
        for part in self.journal.plan.folders:
            yield part, self.folder / part.old, self.folder / part.new

    def manifest(self, part: Part) -> Path:
        """The file that names the files of a folder, as they were before it moved."""
        at = self.journal.plan.folders.index(part)
        return self.folder / f".actorstate-migration.{at}.files.json"

    def clear_unwritten(self) -> None:
        """Removes what is left of small files that were never whole: their process was killed, or the disk full."""
        for place, name in ((self.folder, ".actorstate-migration"), (self.backup_place.parent, self.backup_place.name)):
            for left in place.glob(f".{name}*.tmp"):
                left.unlink(missing_ok=True)

    def enter(self, step: str) -> None:
        """The last step has ended and this one begins; durable on return."""
        self.save(replace(self.journal, step=step))
        reached(f"{step}.begun")

    def save(self, changed: Journal) -> None:
        """Writes the journal, which is then as given; the old one stands when that fails."""
        if (changed.state, changed.step) != (self.journal.state, self.journal.step):
            changed = noted(changed, f"{changed.state} {changed.step}".strip())
        write_journal(self.folder, changed)
        self.journal = changed


def staged(place: Path) -> Path:
    """Where the copy of a folder is made, beside its new place."""
    return place.with_name(f".{place.name}.actorstate-stage")


def set_aside(place: Path) -> Path:
    """Where a folder waits whose files are all in the new one."""
    return place.with_name(f".{place.name}.actorstate-old")


def reached(point: str) -> None:
    """A named point: here tests kill the process, or make the step fail."""
    telemetry.event("migrate.reached", point=point)
