"""Small files that must survive power loss: whole or not at all, and on the disk when the call returns; file locks.

What root makes belongs to the folder's owner: whoever comes after as that user can read it, and replace it.
"""

import contextlib
import errno
import fcntl
import os
import time
from pathlib import Path

LOOK_AGAIN_S = 0.02
"""How often a lock that somebody else has is tried again."""


def is_full(error: BaseException) -> bool:
    """Whether the disk, or this user's share of it, had no room."""
    return isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}


def write_durably(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replaces `path` by `content`: temporary file, fsync, rename, fsync of the folder.

    Raises OSError, and then leaves `path` as it was and nothing beside it.
    """
    write_whole(path, content, mode)
    sync_folder(path.parent)


def write_whole(path: Path, content: bytes, mode: int = 0o600) -> None:
    """The same without the folder's fsync: whole or as before, and the new one for sure once the folder is synced."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            belong(descriptor, path.parent)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # what went wrong first is what is told
            temporary.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Makes the names in `folder` durable: a rename or a new file is lost in a power cut without it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_private_folder(folder: Path) -> None:
    """Creates `folder` (0700) with its parents, each durable in its own parent; an existing one is kept as it is."""
    if folder.is_dir():
        return
    make_private_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    sync_folder(folder.parent)


def belong(file: int | Path, folder: Path) -> None:
    """Gives a new file of root's to the owner of the folder it is in; for anybody else the file is his own already."""
    if os.geteuid() == 0:
        stat = folder.stat()
        os.chown(file, stat.st_uid, stat.st_gid)


def open_lock(path: Path) -> int:
    """A descriptor of the lock file, which is made where there is none, and never deleted. Raises OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    belong(descriptor, path.parent)
    return descriptor


def lock(descriptor: int, wait_s: float = 0.0) -> bool:
    """Takes the file's flock, for which somebody else may have to go first; whether it came within `wait_s`."""
    until = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(LOOK_AGAIN_S)
        else:
            return True


def sign_lock(descriptor: int) -> None:
    """Writes into a lock that was taken which process has it."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)


def signer_of(descriptor: int) -> str:
    """The pid that the lock's holder wrote into it; `PID` where he has not yet."""
    return os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "PID"
