"""Backups that count: made by SQLite with the log inside, opened and compared before they get their name.

    peek.db.pre-migration-backup                 the database
    peek.db.pre-migration-backup.manifest.json   time, size, sha256, count and digest of each table

A file of that name without our manifest, or that its manifest does not describe, is somebody else's: it is
neither trusted nor overwritten, and ours gets a number behind it.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from actorstate import telemetry
from actorstate.errors import UserRefused, VerificationFailed
from actorstate.migrate.folders import (
    Manifest,
    copy_all,
    make_folder,
    read_manifest,
    remove_tree,
    sha256_of,
    write_manifest,
)
from actorstate.migrate.sqlitefiles.content import Contents, contents_of, problems_of, unchanged
from actorstate.migrate.sqlitefiles.hold import Held
from actorstate.store.files import sync_folder, write_whole

MAX_NUMBER = 99
"""Backups of one database; above it the user is refused until old ones are pruned."""
BACKUP_MANIFEST = ".manifest.json"


@dataclass(frozen=True, slots=True)
class Description:
    """What a backup's manifest says of it."""

    made_at: float
    original: str
    bytes: int
    sha256: str
    contents: Contents


def backup_names(place: Path) -> Iterator[Path]:
    """The names a backup may have, in order."""
    yield place
    for number in range(2, MAX_NUMBER + 1):
        yield place.with_name(f"{place.name}.{number}")


def description_of_backup(backup: Path) -> Description | None:
    """What our manifest beside it says; None without one. Raises OSError."""
    try:
        raw = json.loads(_manifest(backup).read_bytes())
        if raw.pop("actorstate") != 1:
            return None
        contents = Contents.from_plain(raw["contents"])
        return Description(raw["made_at"], raw["original"], raw["bytes"], raw["sha256"], contents)
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
        return None


def problem_of_backup(backup: Path) -> str:
    """Why the backup is not to be trusted, in words; empty for one that is whole and says what its manifest says."""
    told = description_of_backup(backup)
    if told is None:
        return "it has no manifest of ours"
    if not backup.is_file():
        return "it is gone"
    if sha256_of(backup) != told.sha256:
        return "its bytes are not those that its manifest describes"
    return _judged(backup, told.contents)


def ours_at(place: Path) -> Iterator[Path]:
    """Backups under the names of this place that have a manifest of ours."""
    for name in backup_names(place):
        described = read_manifest(_manifest(name)) if name.is_dir() else description_of_backup(name)
        if described is not None and os.path.lexists(name):
            yield name


def made_backup(source: Held, contents: Contents, place: Path, tell: Callable[[int, int], None]) -> Path:
    """A verified backup of the held database: one of ours that says the same, or a new one under the next free name."""
    for name in backup_names(place):
        if not os.path.lexists(name):
            return _made(source, contents, name, tell)
        told = description_of_backup(name)
        if told is not None and told.contents == contents and not problem_of_backup(name):
            return name
    raise UserRefused(f"{place} and {MAX_NUMBER - 1} more backups are there already; remove or prune some")


def made_folder_backup(folder: Path, place: Path) -> Path:
    """A proven copy of a folder under the next free name, with a manifest beside it."""
    backup = next((name for name in backup_names(place) if not os.path.lexists(name)), None)
    if backup is None:
        raise UserRefused(f"{place} and {MAX_NUMBER - 1} more backups are there already; remove or prune some")
    unfinished = backup.with_name(f".{backup.name}.actorstate-new")
    manifest: Manifest = copy_all(folder, unfinished)
    write_manifest(_manifest(backup), manifest)
    unfinished.rename(backup)
    return backup


def remove_backup(backup: Path) -> None:
    """Removes it and its manifest: the manifest last, so that what is left is known to be ours."""
    if backup.is_dir():
        remove_tree(backup)
    else:
        backup.unlink(missing_ok=True)
    sync_folder(backup.parent)
    _manifest(backup).unlink(missing_ok=True)
    sync_folder(backup.parent)


def clear_unfinished(place: Path) -> None:
    """Removes what an interrupted run left of a backup that never got its name."""
    for name in backup_names(place):
        unfinished = name.with_name(f".{name.name}.actorstate-new")
        if unfinished.is_dir():
            remove_tree(unfinished)
        else:
            unfinished.unlink(missing_ok=True)


def _made(source: Held, contents: Contents, backup: Path, tell: Callable[[int, int], None]) -> Path:
    make_folder(backup.parent, source.path.parent)
    unfinished = backup.with_name(f".{backup.name}.actorstate-new")
    source.copy_to(unfinished, tell)
    telemetry.event("migrate.reached", point="backup.copied")
    if problem := _judged(unfinished, contents):
        if damage := source.problems():
            raise UserRefused(f"{source.path} is damaged: {'; '.join(damage)}", path=str(source.path))
        raise VerificationFailed(f"the backup {unfinished} is not what {source.path} is: {problem}")
    size, digest = unfinished.stat().st_size, sha256_of(unfinished)
    told = Description(time.time(), source.path.name, size, digest, contents)
    write_whole(_manifest(backup), json.dumps({"actorstate": 1, **asdict(told)}).encode() + b"\n")
    telemetry.event("migrate.reached", point="backup.described")
    unfinished.rename(backup)
    return backup


def _judged(database: Path, contents: Contents) -> str:
    with unchanged(database) as connection:
        if problems := problems_of(connection):
            return "; ".join(problems)
        return contents.differences(contents_of(connection))


def _manifest(backup: Path) -> Path:
    return backup.with_name(backup.name + BACKUP_MANIFEST)
