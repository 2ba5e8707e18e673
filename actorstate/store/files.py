"""Small files that must survive power loss: whole or not at all, and on the disk when the call returns."""

import os
from pathlib import Path


def write_durably(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replaces `path` by `content`: temporary file, fsync, rename, fsync of the folder. Raises OSError."""
    write_whole(path, content, mode)
    sync_folder(path.parent)


def write_whole(path: Path, content: bytes, mode: int = 0o600) -> None:
    """The same without the folder's fsync: whole or as before, and the new one for sure once the folder is synced."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    temporary.replace(path)


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
