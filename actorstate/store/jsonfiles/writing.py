"""A commit's way to the disk: everything is staged and synced, then published by renames."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from actorstate import telemetry
from actorstate.errors import StoreFailed
from actorstate.store.contract import StoredItem
from actorstate.store.files import sync_folder
from actorstate.store.jsonfiles.past import appended
from actorstate.store.jsonfiles.places import Places, stage, staged
from actorstate.store.jsonfiles.text import Held


@dataclass(slots=True)
class Write:
    """One job's part of a commit: new contents by path, the one that makes it true first, and lines to append.

    `again` removes the tombstone of a job that is there again; `sizes` are those of the appended files before.
    """

    held: Held
    contents: dict[Path, bytes]
    lines: dict[Path, bytes]
    unframed: int
    again: bool = False
    items: tuple[StoredItem, ...] = ()
    sizes: dict[Path, int] = field(default_factory=dict[Path, int])


def stage_all(writes: Sequence[Write]) -> Sequence[Write]:
    """All of it is on the disk, and nothing of it true. Raises OSError when it was taken back, else StoreFailed."""
    try:
        for write in writes:
            for path, content in write.contents.items():
                stage(path, content)
                telemetry.event("store.staged", path=path)
            for path, lines in write.lines.items():
                write.sizes[path] = appended(path, lines)
                telemetry.event("store.appended", path=path)
        telemetry.event("store.written", jobs=len(writes))
    except BaseException:
        _take_back(writes)
        raise
    return writes


def publish(places: Places, writes: Sequence[Write]) -> None:
    """Makes it true, job by job. Raises StoreFailed: what fails here leaves some of the batch done."""
    try:
        firsts, seconds = {places.generations, places.items}, set[Path]()
        for write in writes:
            firsts.add(_renamed(next(iter(write.contents))))
        _sync(firsts)
        for write in writes:
            seconds.update(_renamed(second) for second in list(write.contents)[1:])
            seconds |= _clear(places, write)
        _sync(seconds)
    except OSError as error:
        raise StoreFailed(f"{error.filename or places.directory}: {error.strerror or error}") from error


def _take_back(writes: Sequence[Write]) -> None:
    try:
        for write in writes:
            for path in write.contents:
                staged(path).unlink(missing_ok=True)
            for path, size in write.sizes.items():
                os.truncate(path, size)
    except OSError as error:
        raise StoreFailed(f"{error.filename} cannot be taken back: {error.strerror}") from error


def _renamed(path: Path) -> Path:
    staged(path).replace(path)
    telemetry.event("store.renamed", path=path)
    return path.parent


def _sync(folders: set[Path]) -> None:
    for folder in sorted(folders):
        sync_folder(folder)
        telemetry.event("store.folder_synced", path=folder)


def _clear(places: Places, write: Write) -> set[Path]:
    """Of a deleted job everything but its tombstone goes; one that is there again has none."""
    if write.held.deleted:
        places.unlink(write.held.job)
        return set(places.folders)
    if write.again:
        places.tombstone(write.held.job).unlink(missing_ok=True)
        return {places.deleted}
    return set()
