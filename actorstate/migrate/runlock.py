"""One run at a time for the users in DATA, and the note that nothing is left to do.

DATA/.actorstate-migration.lock   held by flock while a run lives; the kernel drops it with the process
DATA/.actorstate-migration.done   written when a run has left nothing unfinished; gone while one is at work
"""

import fcntl
import json
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from actorstate.errors import MigrationRunning
from actorstate.store.files import sync_folder, write_durably

LOCK = ".actorstate-migration.lock"
DONE = ".actorstate-migration.done"
RETRY_S = 0.05


@contextmanager
def only_one(data: Path, wait_s: float = 0.0) -> Generator[None]:
    """Nobody else runs while the block lasts. Raises MigrationRunning when somebody still does after `wait_s`."""
    descriptor = os.open(data / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _take(descriptor, data, wait_s)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, data: Path, wait_s: float) -> None:
    until = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                pid = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "PID"
                raise MigrationRunning(
                    f"process {pid} is migrating the users in {data}", pid=pid, directory=str(data)
                ) from None
            time.sleep(RETRY_S)
        else:
            return


def running(data: Path) -> bool:
    """Whether a run holds DATA. Only looks."""
    path = data / LOCK
    if not path.exists():
        return False
    inode = str(path.stat().st_ino)
    locks = Path("/proc/locks").read_text().splitlines()
    return any("FLOCK" in line and f":{inode} " in line for line in locks)


def note_done(data: Path, layout: str) -> None:
    """Nothing is left to do for this layout."""
    write_durably(data / DONE, json.dumps({"layout": layout}).encode() + b"\n")


def forget_done(data: Path) -> None:
    """Something may be left to do from here on."""
    if (data / DONE).exists():
        (data / DONE).unlink()
        sync_folder(data)


def is_done(data: Path, layout: str) -> bool:
    """Whether the last run of this layout left nothing to do."""
    try:
        told: object = json.loads((data / DONE).read_bytes())
    except (OSError, ValueError):
        return False
    return told == {"layout": layout}
