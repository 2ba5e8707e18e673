"""Folders of files: what is in them, copies that are proven, and moving so that no file is ever lost on the way.

A manifest names every file below a folder with its size and sha256; a symbolic link with where it points.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from actorstate.errors import UserRefused, VerificationFailed
from actorstate.migrate.sqlitefiles.hold import like, sync_file
from actorstate.store.files import sync_folder, write_whole

CHUNK = 1024 * 1024
MAX_NAMED = 5
"""Names in a message; more are counted only."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file: its size, its sha256 (of a symbolic link: where it points)."""

    bytes: int
    sha256: str
    link: bool = False


Manifest = dict[str, Entry]
"""By path below the folder."""


def sha256_of(path: Path) -> str:
    """Of the file's content. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def manifest_of(folder: Path) -> Manifest:
    """Reads every file; empty for a folder that is not there. Raises UserRefused for what is no file, OSError."""
    return {str(path.relative_to(folder)): _entry(path) for path in walked(folder)}


def walked(folder: Path) -> Iterator[Path]:
    """Every file and symbolic link below the folder, in order. Raises OSError where one cannot be listed."""
    if not folder.is_dir():
        return
    for entry in sorted(os.scandir(folder), key=lambda one: one.name):
        if entry.is_dir(follow_symlinks=False):
            yield from walked(Path(entry.path))
        else:
            yield Path(entry.path)


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Keeps it in a file of its own, whole; its name is durable once its folder is synced."""
    plain = {name: [one.bytes, one.sha256, one.link] for name, one in manifest.items()}
    write_whole(path, json.dumps({"actorstate": 1, "files": plain}).encode() + b"\n")


def read_manifest(path: Path) -> Manifest | None:
    """What `write_manifest` wrote; None for anything else."""
    try:
        files = cast("dict[str, list[object]]", json.loads(path.read_bytes())["files"])
        return {name: Entry(int(str(one[0])), str(one[1]), bool(one[2])) for name, one in files.items()}
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError):
        return None


def missing(wanted: Manifest, there: Manifest) -> str:
    """Which files of `wanted` are not in `there` as they should be, in words; empty when all are."""
    names = [name for name, entry in wanted.items() if there.get(name) != entry]
    told = ", ".join(names[:MAX_NAMED]) + (f" and {len(names) - MAX_NAMED:,} more" if len(names) > MAX_NAMED else "")
    return f"{len(names):,} of {len(wanted):,} files are missing or differ: {told}" if names else ""


def make_folder(folder: Path, pattern: Path) -> None:
    """Makes the folder with its parents, with the mode and owner of `pattern`; durable by `sync_up`."""
    if folder.is_dir():
        return
    make_folder(folder.parent, pattern)
    stat = pattern.stat()
    folder.mkdir(exist_ok=True)
    folder.chmod(stat.st_mode & 0o7777)
    if os.geteuid() == 0:
        os.chown(folder, stat.st_uid, stat.st_gid)


def sync_up(folder: Path, top: Path) -> None:
    """Makes the names in the folder, and in those above it below `top`, durable; those in `top` are its caller's."""
    while folder != top and folder.is_relative_to(top):
        if folder.is_dir():
            sync_folder(folder)
        folder = folder.parent


def copy_all(source: Path, copy: Path) -> Manifest:
    """Copies every file, each synced, and proves the copy by reading it again; the manifest of both.

    Files that arrive or change meanwhile are copied once more. Raises VerificationFailed, OSError.
    """
    wanted = manifest_of(source)
    for _ in range(3):
        make_folder(copy, source)
        there = manifest_of(copy)
        for name, entry in wanted.items():
            if there.get(name) != entry:
                copy_file(source / name, copy / name, source)
        for name in there.keys() - wanted.keys():
            (copy / name).unlink()
        before, wanted = wanted, manifest_of(source)
        if before == wanted and not missing(wanted, manifest_of(copy)):
            for folder in {copy, *(one for name in wanted for one in (copy / name).parents if copy in one.parents)}:
                sync_folder(folder)
            return wanted
    raise VerificationFailed(f"{source} could not be copied faithfully: {missing(wanted, manifest_of(copy))}")


def copy_file(source: Path, copy: Path, root: Path) -> None:
    """One file or symbolic link, with its mode, times and owner; its content is durable."""
    make_folder(copy.parent, root)
    if source.is_symlink():
        copy.unlink(missing_ok=True)
        copy.symlink_to(source.readlink())
    else:
        shutil.copyfile(source, copy)
        like(copy, source)
        sync_file(copy)


def merge(source: Path, target: Path) -> list[str]:
    """Moves every file of `source` into `target`; names under which both have different files are left, and told.

    A file that is the same on both sides is kept once. What is then empty of `source` goes.
    """
    conflicts: list[str] = []
    for path in list(walked(source)):
        name = str(path.relative_to(source))
        if not _merged(path, target / name, source):
            conflicts.append(name)
    remove_empty(source)
    return conflicts


def remove_known(folder: Path, manifest: Manifest, new: Path) -> list[str]:
    """Removes a folder whose files are all in `new`: one that is not, or has changed, goes there first.

    Returns the names under which `new` has another file; those stay.
    """
    for path in list(walked(folder)):
        name = str(path.relative_to(folder))
        if name in manifest and _entry(path) == manifest[name] and os.path.lexists(new / name):
            path.unlink()
    return merge(folder, new)


def remove_tree(folder: Path) -> None:
    """Removes a folder of our own with everything below it; none is fine."""
    if folder.is_dir():
        shutil.rmtree(folder)


def remove_empty(folder: Path) -> None:
    """Removes the folder and those below it, as far as they are empty. A mount point stays."""
    if not folder.is_dir() or folder.is_symlink():
        return
    for below in list(folder.iterdir()):
        remove_empty(below)
    if not os.path.ismount(folder) and not os.listdir(folder):  # noqa: PTH208 - an iterator would have to be closed
        folder.rmdir()


def _merged(path: Path, target: Path, root: Path) -> bool:
    if os.path.lexists(target):
        if _entry(path) != _entry(target):
            return False
    elif path.lstat().st_dev == _device(target.parent):
        make_folder(target.parent, root)
        path.rename(target)
        sync_folder(target.parent)
        return True
    else:
        copy_file(path, target, root)
        sync_folder(target.parent)
        if _entry(path) != _entry(target):
            raise VerificationFailed(f"{target} is no faithful copy of {path}, which was kept")
    path.unlink()
    return True


def _device(folder: Path) -> int:
    while not folder.is_dir():
        folder = folder.parent
    return folder.stat().st_dev


def _entry(path: Path) -> Entry:
    if path.is_symlink():
        return Entry(0, str(path.readlink()), link=True)
    if not path.is_file():
        raise UserRefused(f"{path} is neither a file nor a folder; it cannot be moved")
    return Entry(path.stat().st_size, sha256_of(path))
