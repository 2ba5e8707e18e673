"""Which processes have a file open: an SQLite connection that is idle holds no lock, and still writes later."""

import os
from pathlib import Path


def holders(*paths: Path) -> tuple[int, ...]:
    """Pids of the processes, this one too, that have one of the files open; of other users' only for root."""
    wanted = {identity(str(path)) for path in paths} - {(-1, -1)}
    return tuple(pid for pid in _processes() if wanted and has_open(pid, wanted))


def command_of(pid: int) -> str:
    """What the process calls itself, empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except OSError:
        return ""


def _processes() -> list[int]:
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208 - as in `identity`


def has_open(pid: int, wanted: set[tuple[int, int]]) -> bool:
    """Whether the process has one of these open; False where it may not be asked."""
    try:
        names = os.listdir(f"/proc/{pid}/fd")  # noqa: PTH208 - as in `identity`
    except OSError:
        return False
    return any(identity(f"/proc/{pid}/fd/{name}") in wanted for name in names)


def identity(path: str) -> tuple[int, int]:
    """Device and inode; (-1, -1) for what is not there."""
    try:
        stat = os.stat(path)  # noqa: PTH116 - hundreds of descriptors for each user: a Path costs more than the call
    except OSError:
        return (-1, -1)
    return (stat.st_dev, stat.st_ino)
