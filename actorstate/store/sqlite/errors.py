"""What SQLite and the operating system say, as errors of our tree."""

import contextlib
import sqlite3
from collections.abc import Generator
from pathlib import Path

from actorstate.errors import CorruptJob, DiskFull, StoreError, StoreFailed
from actorstate.store.location import quoted

_FULL_EXTENDED = frozenset({sqlite3.SQLITE_IOERR_SHMSIZE})


@contextlib.contextmanager
def typed_errors(path: Path, job: str = "") -> Generator[None]:
    """Within the block every error of SQLite or the system leaves as a StoreError; with `job`, damage as CorruptJob."""
    try:
        yield
    except sqlite3.Error as error:
        if job and "decode to UTF-8" in str(error):
            raise CorruptJob(f"job {job!r}: a stored row is damaged ({error})", job=job) from error
        raise typed(error, path) from error
    except OSError as error:
        raise StoreFailed(f"{path}: {error}") from error
    except (TypeError, ValueError) as error:  # a stored value of another type than was written
        if job:
            raise CorruptJob(f"job {job!r}: a stored row is damaged ({error})", job=job) from error
        raise StoreFailed(f"{path} is damaged ({error}); it was left as it is") from error


def typed(error: sqlite3.Error, path: Path) -> StoreError:
    """DiskFull where nothing was written for want of space, else StoreFailed."""
    code = getattr(error, "sqlite_errorcode", 0)
    if code & 0xFF == sqlite3.SQLITE_FULL or code in _FULL_EXTENDED:
        return DiskFull(f"the disk under {path} is full; nothing was written")
    if code & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        hint = "keep a copy of the directory, then restore the newest backup of it"
        return StoreFailed(f"{path} is damaged ({error}); it was left as it is", hint=hint)
    if code & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        hint = f"see which, and end it if it is stopped: fuser -v {quoted(path)}"
        return StoreFailed(f"another process is in the middle of writing {path}", hint=hint)
    return StoreFailed(f"{path} cannot be written or read: {error}")
