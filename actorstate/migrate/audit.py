"""What an earlier, unsafe migration has left behind: found by looking only, mended as a journaled migration.

| finding | how it came about | mended by |
| --- | --- | --- |
| both_databases | an error or a kill after the copy | removing the old one where both say the same; else `--keep` |
| log_left_behind | the database was moved without its `-wal` | its rows come back where nothing was written since |
| orphaned_files | a kill between the database and the folder | moving them to the new place |
| no_backup | migrated without one | making one of what there is |
| no_row | an error before the row was written | writing it |
| interrupted | a run of ours was killed | the command that it names |
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from actorstate.errors import ActorStateError
from actorstate.migrate.backup import backup_names, problem_of_backup
from actorstate.migrate.journal import UNFINISHED, Journal, read_journal
from actorstate.migrate.layouts import Layout
from actorstate.migrate.leftlog import gained
from actorstate.migrate.nextline import attention_step, whole
from actorstate.migrate.plan import UserFacts
from actorstate.migrate.runlock import must_exist
from actorstate.migrate.sqlitefiles.content import contents_of, looked_at
from actorstate.migrate.status import taken_up_by
from actorstate.migrate.survey import facts_of, registered, users_in

Kind = Literal[
    "both_databases", "log_left_behind", "orphaned_files", "no_backup", "no_row", "interrupted", "unreadable"
]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be."""

    user: str
    kind: Kind
    told: str
    can: str = ""
    """What `--mend` does about it; empty where it cannot do anything by itself."""
    mended: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class Ground:
    """What the findings of one user are made of."""

    data: Path
    layout: Layout
    facts: UserFacts
    kept: Journal | None

    @property
    def folder(self) -> Path:
        """The user's."""
        return self.data / self.facts.user

    @property
    def old(self) -> Path:
        """The database's old place."""
        return self.folder / self.layout.database.old

    @property
    def new(self) -> Path:
        """Its new place."""
        return self.folder / self.layout.database.new


def audit_all(data: Path, layout: Layout, user: str | None = None) -> Iterator[Finding]:
    """Everything that is found in DATA, or for one user. Changes nothing. Raises UserRefused."""
    must_exist(data, layout)
    recorded = registered(data, layout)
    for one in users_in(data, user):
        try:
            yield from audit_one(
                Ground(data, layout, facts_of(data, layout, one, one in recorded), read_journal(data / one))
            )
        except (ActorStateError, OSError) as error:
            yield Finding(one, "unreadable", whole(data, error))


def audit_one(ground: Ground) -> Iterator[Finding]:
    """The same for one user."""
    facts, kept = ground.facts, ground.kept
    if not ground.layout.moves:
        return
    if kept is not None and kept.state in UNFINISHED:
        yield Finding(facts.user, "interrupted", f"a run was interrupted; next: {taken_up_by(ground.data, kept)}")
    elif facts.old.is_there and facts.new.is_there:
        yield _both(ground)
    elif facts.new.is_there:
        yield from _left_behind(ground)


def _both(ground: Ground) -> Finding:
    with looked_at(ground.old) as old, looked_at(ground.new) as new:
        told = contents_of(old).differences(contents_of(new))
    if not told:
        say = "the old database is still there, and says the same as the new one"
        return Finding(ground.facts.user, "both_databases", say, "keeps a backup of the old one and removes it")
    say = f"the old and the new database differ ({told}); {attention_step(ground.data, ground.facts.user)}"
    return Finding(ground.facts.user, "both_databases", say)


def _left_behind(ground: Ground) -> Iterator[Finding]:
    user, facts = ground.facts.user, ground.facts
    if facts.log_bytes:
        yield _log(ground)
    for move, (old, _) in zip(ground.layout.folders, facts.folders, strict=True):
        if old.is_there:
            say = f"{old.files:,} files stayed behind in {move.old}/"
            yield Finding(user, "orphaned_files", say, f"moves them to {move.new}/")
    if not _has_backup(ground):
        yield Finding(user, "no_backup", "there is no backup of ours", "makes one of the database as it is now")
    if ground.layout.registry is not None and not facts.recorded:
        yield Finding(user, "no_row", f"there is no row in {ground.layout.registry.database}", "writes it")


def _log(ground: Ground) -> Finding:
    user, name = ground.facts.user, f"{ground.layout.database.old}-wal"
    found = gained(ground.old, ground.new)
    if found is None:
        return Finding(user, "log_left_behind", f"{name} stayed behind; no database here fits it")
    told = f"{name} stayed behind with committed changes: {found.told}"
    if found.untouched:
        return Finding(
            user, "log_left_behind", told, "brings them back, and the user to the old layout: run it again then"
        )
    return Finding(user, "log_left_behind", f"{told}; the new database was written to since")


def _has_backup(ground: Ground) -> bool:
    """One that is whole; or there was one, whose grace is over."""
    if ground.kept is not None and ground.kept.state == "done":
        files = [ground.folder / name for name in ground.kept.backups]
        return not any(problem_of_backup(file) for file in files if not file.is_dir())
    place = ground.old.with_name(f"{ground.old.name}.pre-migration-backup")
    return any(name.exists() and not problem_of_backup(name) for name in backup_names(place))


def words_of(one: Finding) -> Iterator[str]:
    """A finding in words."""
    yield f"{one.user}: {one.kind.replace('_', ' ')}: {one.told}"
    if one.mended:
        yield f"  mended{f': {one.note}' if one.note else ''}"
    elif one.note:
        yield f"  not mended: {one.note}"
    elif one.can:
        yield f"  --mend {one.can}"
