"""One user's migration while it is under way: his folder, his journal, and the places that belong to it.

What is synced, and what for; a sync that is not in this list protects nothing:

    journal before the first step   what a kill leaves is known to be ours, and undone
    journal between two steps       it tells of the end of one and the beginning of the next, in one write
    backup, its manifest            it is the way back, and counts only with both
    staged files, their manifests   the content that will take the original's place
    new folders, from below         the names of what was switched, before the old ones can go
    row (registry.py)               it is there before the old database is gone
    a log that has rows             gone before its database, or its rows would count as left behind
    old folders                     what was removed stays so, once the journal says that it is over
    journal at the end              the grace of the backups counts from here

The journal's write makes all names in the user's own folder durable too. From `switch` on both places are judged, with
what the source said; from `remove` on there is only forward.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from actorstate import telemetry
from actorstate.errors import NeedsAttention
from actorstate.migrate.backup import ours_at
from actorstate.migrate.journal import Journal, noted, write_journal
from actorstate.migrate.plan import Part
from actorstate.migrate.sqlitefiles.content import Contents
from actorstate.migrate.sqlitefiles.registry import Rows

STEPS = ("backup", "verify_backup", "stage", "verify_stage", "switch", "register", "verify", "remove")
"""What is done for a user, in order; before `switch` nothing of his has changed its place."""

Tell = Callable[[str, int, int], None]
"""Hears (user, bytes done with, bytes in all)."""
READ, COPIED, COMPARED = 0.4, 0.55, 0.9
"""How much of the work for a database is done by then: reading and comparing its rows takes longer than copying."""


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
    rows: Rows = field(default_factory=Rows)
    """Through which users who are at work at once get their rows."""

    @staticmethod
    def quiet(_done: int, _total: int) -> None:
        """Tells nobody how far a copy is."""


@dataclass(slots=True)
class Work:
    """One user's migration. `journal` is what is on the disk, or will be with the next step that is written down."""

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

    def folder_backup_place(self, old: Path) -> Path:
        """The same for a backup of one of the folders."""
        return self.backup_place.with_name(old.name + self.backup_place.name.removeprefix(self.old.name))

    def folders(self) -> Iterator[tuple[Part, Path, Path]]:
        """Each folder that moves: its part of the plan, the old place and the new one."""
        for part in self.journal.plan.folders:
            yield part, self.folder / part.old, self.folder / part.new

    def manifest(self, part: Part) -> Path:
        """The file that names the files of a folder, as they were before it moved."""
        at = self.journal.plan.folders.index(part)
        return self.folder / f".actorstate-migration.{at}.files.json"

    def backups_there(self) -> Iterator[str]:
        """Backups of this move that are ours, by their manifests: also one whose run was killed before it was noted."""
        for place in (self.backup_place, *(self.folder_backup_place(old) for _, old, _ in self.folders())):
            yield from (str(one.relative_to(self.folder)) for one in ours_at(place))

    def clear_unwritten(self) -> None:
        """Removes what is left of small files that were never whole: their process was killed, or the disk full."""
        for place, name in ((self.folder, ".actorstate-migration"), (self.backup_place.parent, self.backup_place.name)):
            for left in place.glob(f".{name}*.tmp"):
                left.unlink(missing_ok=True)

    def tell(self, database: float, folders: float = 0.0) -> None:
        """Says how far this user is: the shares of his database and of his folders that are done with."""
        plan = self.journal.plan
        size = 0 if plan.database is None else plan.database.bytes
        self.options.tell(self.user, int(size * database + (plan.bytes - size) * folders), plan.bytes)

    def enter(self, step: str) -> None:
        """The last step has ended and this one begins; the disk knows on return."""
        self.save(replace(self.journal, step=step))
        reached(f"{step}.begun")

    def save(self, changed: Journal) -> None:
        """Writes the journal, which is then as given; the old one stands when that fails."""
        changed = self._noted(changed)
        write_journal(self.folder, changed)
        self.journal = changed

    def remember(self, changed: Journal) -> None:
        """What the step has found, for the write at its end."""
        self.journal = self._noted(changed)

    def _noted(self, changed: Journal) -> Journal:
        same = (changed.state, changed.step) == (self.journal.state, self.journal.step)
        return changed if same else noted(changed, f"{changed.state} {changed.step}".strip())


def staged(place: Path) -> Path:
    """Where the copy of a folder is made, beside its new place."""
    return place.with_name(f".{place.name}.actorstate-stage")


def set_aside(place: Path) -> Path:
    """Where a folder waits whose files are all in the new one."""
    return place.with_name(f".{place.name}.actorstate-old")


def reached(point: str) -> None:
    """A named point: here tests kill the process, or make the step fail."""
    telemetry.event("migrate.reached", point=point)
