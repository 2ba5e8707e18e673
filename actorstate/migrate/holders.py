"""Whether a file is open, and in which processes: an SQLite connection that is idle holds no lock, and writes later.

The kernel grants a write lease on a file that nobody else has open: one call, which sees other users' processes and
other containers too. Names come from /proc, which shows neither.
"""

import errno
import fcntl
import os
import signal
from pathlib import Path


def is_open(path: Path) -> bool:
    """Whether any process, this one too, has the file open. Raises OSError where it cannot be looked at."""
    # Closing another descriptor of the file would drop the locks that this process's SQLite holds on it.
    if has_open(os.getpid(), {identity(str(path))} - {(-1, -1)}):
        return True
    alone = _is_leased(path)
    return bool(holders(path)) if alone is None else not alone


def _is_leased(path: Path) -> bool | None:
    """Whether a lease was granted, and given back; None where this user or file system has none."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        # Who opens it in the meantime waits a moment, and we are told: by a signal that is ignored unless handled.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return False if error.errno == errno.EAGAIN else None
    finally:
        os.close(descriptor)
    return True


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
