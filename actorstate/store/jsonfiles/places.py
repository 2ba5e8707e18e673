"""Where a job's files lie, and how one is replaced: everything is staged first, then renamed.

DIR/{id}.json                       the job
DIR/.backups/{id}.backup.json       second copy of the same revision
DIR/.generations/{id}.jsonl         its past: changes and keyframes
DIR/.deleted/{id}.json              tombstone of a deleted job: its revisions are never given again
DIR/{id}.json.corrupted.{ms}        a damaged file, kept
"""

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from actorstate import telemetry
from actorstate.core.messages.requests import JOB_ID_PATTERN
from actorstate.errors import DiskFull, StoreError, StoreFailed
from actorstate.store.files import is_full, make_private_folder, sync_folder

STAGED = ".staged"
"""How a file's name ends until it is renamed: what a writer left behind under such a name was never true."""

Print = tuple[int, int, int]
"""Inode, time of change (ns) and size: what a file has that nobody has touched since."""


@dataclass(frozen=True, slots=True)
class Places:
    """The folders of one directory."""

    directory: Path

    @property
    def backups(self) -> Path:
        return self.directory / ".backups"

    @property
    def generations(self) -> Path:
        return self.directory / ".generations"

    @property
    def items(self) -> Path:
        return self.directory / ".items"

    @property
    def deleted(self) -> Path:
        return self.directory / ".deleted"

    @property
    def folders(self) -> tuple[Path, ...]:
        return self.directory, self.backups, self.generations, self.items, self.deleted

    def main(self, job: str) -> Path:
        return self.directory / f"{job}.json"

    def second(self, job: str) -> Path:
        return self.backups / f"{job}.backup.json"

    def past(self, job: str) -> Path:
        return self.generations / f"{job}.jsonl"

    def ledger(self, job: str) -> Path:
        return self.items / f"{job}.jsonl"

    def tombstone(self, job: str) -> Path:
        return self.deleted / f"{job}.json"

    def prepare(self) -> None:
        """Makes the folders, and removes what was staged and never renamed."""
        for folder in self.folders:
            make_private_folder(folder)
            for leftover in folder.glob(f".*{STAGED}"):
                leftover.unlink()

    def unlink(self, job: str) -> None:
        """Removes the job's files, its tombstone excepted. Raises OSError."""
        for path in (self.main(job), self.second(job), self.past(job), self.ledger(job)):
            path.unlink(missing_ok=True)

    def jobs(self) -> Iterator[str]:
        """Ids of all jobs that have a file, in no order."""
        yield from _ids(self.directory, ".json")

    def known(self) -> set[str]:
        """Ids of all jobs of which anything is left."""
        ends = ((self.backups, ".backup.json"), (self.generations, ".jsonl"), (self.deleted, ".json"))
        return {*self.jobs(), *(job for folder, end in ends for job in _ids(folder, end))}


def staged(path: Path) -> Path:
    """The name under which a new content of `path` waits in the same folder."""
    return path.with_name(f".{path.name}{STAGED}")


def stage(path: Path, content: bytes) -> None:
    """Puts the new content beside `path`, on the disk. Raises OSError."""
    descriptor = os.open(staged(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def replace_durably(path: Path, content: bytes) -> None:
    """Replaces one file by itself, on the disk on return. Raises OSError."""
    stage(path, content)
    staged(path).replace(path)
    sync_folder(path.parent)


def print_of(path: Path) -> Print | None:
    """None when there is no such file."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def content_of(path: Path) -> bytes | None:
    """A file's bytes; None when there is no such file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def keep_aside(path: Path, content: bytes, why: str = "corrupted") -> Path:
    """Keeps `content` beside `path` under a name of its own, on the disk, and returns that. Raises OSError."""
    moment = time.time_ns() // 1_000_000
    kept = path.with_name(f"{path.name}.{why}.{moment}")
    while kept.exists():
        moment += 1
        kept = path.with_name(f"{path.name}.{why}.{moment}")
    replace_durably(kept, content)
    telemetry.event("store.quarantined", path=str(kept), of=path.name, why=why)
    return kept


def typed(error: OSError, directory: Path) -> StoreError:
    """DiskFull where there is no room, else StoreFailed."""
    if is_full(error):
        return DiskFull(f"the disk under {directory} is full; nothing was written")
    return StoreFailed(f"{error.filename or directory} cannot be written or read: {error.strerror or error}")


def _ids(folder: Path, end: str) -> Iterator[str]:
    for path in folder.glob(f"*{end}"):
        job = path.name.removesuffix(end)
        if re.match(JOB_ID_PATTERN, job) and path.is_file():
            yield job
