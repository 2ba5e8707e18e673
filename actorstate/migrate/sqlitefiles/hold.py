"""A user's database that nobody else can read or write, from its backup to its removal.

`locking_mode=EXCLUSIVE` keeps the file locked when the transaction of `BEGIN EXCLUSIVE` has ended (SQLite's
backup refuses a source with a writing transaction). While it is held, nothing else in this process may open
and close the file: that would drop the POSIX locks.

Somebody who waits for the lock all the while would get it on the removed file, and be told that rows are
committed which nobody will ever see. So the first bytes are overwritten before the names go: he gets "file is
not a database" instead.
"""

import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from pathlib import Path

from actorstate import telemetry
from actorstate.errors import DatabaseInUse
from actorstate.migrate.holders import command_of, holders, is_open
from actorstate.migrate.sqlitefiles.content import Contents, contents_of, problems_of
from actorstate.migrate.sqlitefiles.tables import connect, reading, writing
from actorstate.store.files import sync_folder

RETRY_S = 0.05
PAGES = 2_000
"""Copied between two calls of `tell`."""
REMOVED = b"moved by actorstate: see .actorstate-migration.json\n".ljust(100, b"\0")
"""What stands at the beginning of a database that is being removed."""
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


class Held:
    """The database at `path`, locked for everybody else."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path, self._connection = path, connection
        self._overwritten = -1

    def contents(self) -> Contents:
        """Raises SourceUnreadable."""
        with reading(self.path):
            return contents_of(self._connection)

    def problems(self) -> tuple[str, ...]:
        """Raises SourceUnreadable."""
        with reading(self.path):
            return problems_of(self._connection)

    def copy_to(self, copy: Path, tell: Callable[[int, int], None]) -> None:
        """Makes the file `copy`, synced; `tell` hears (bytes copied, bytes in all). Raises TargetFailed, DiskFull."""
        copy.unlink(missing_ok=True)
        with writing(copy):
            page = int(self._connection.execute("PRAGMA page_size").fetchone()[0])
            with closing(connect(copy, "rwc")) as target:
                target.execute("PRAGMA synchronous=OFF")
                target.execute("PRAGMA journal_mode=OFF")
                self._connection.backup(
                    target, pages=PAGES, progress=lambda _, left, total: tell((total - left) * page, total * page)
                )
        like(copy, self.path)
        sync_file(copy)

    def remove(self) -> None:
        """Takes the file away with its logs; whoever waits for it is told that it is no database any more.

        That is for those who live: nothing here is synced. After a power cut the file is as it was, or marked, or gone.
        A file with another name (hard link) is not marked: what is written to it is not lost with this one.
        """
        self._overwritten = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        if os.fstat(self._overwritten).st_nlink == 1:
            os.pwrite(self._overwritten, REMOVED, 0)
        telemetry.event("migrate.reached", point="remove.overwritten")
        remove_names(self.path)

    def close(self) -> None:
        """Lets others have it again, if it is still there."""
        self._connection.close()
        if self._overwritten >= 0:
            os.close(self._overwritten)


@contextmanager
def held(path: Path, wait_s: float) -> Generator[Held]:
    """Holds the database. Raises DatabaseInUse, with the pids that have it open, when it is so for `wait_s`."""
    one = Held(path, _locked(path, wait_s))
    try:
        yield one
    finally:
        one.close()


def was_removed(path: Path) -> bool:
    """Whether this is what `remove` leaves when it is interrupted."""
    with path.open("rb") as file:
        return file.read(len(REMOVED)) == REMOVED


def remove_names(path: Path) -> None:
    """The logs first: one with rows, without its database, would be taken for rows that were left behind."""
    logs = [log for suffix in ("-wal", "-journal", "-shm") if (log := path.with_name(path.name + suffix)).exists()]
    had_rows = any(log.stat().st_size for log in logs)
    for log in logs:
        log.unlink(missing_ok=True)
    if had_rows:
        sync_folder(path.parent)
    telemetry.event("migrate.reached", point="remove.logs_gone")
    path.unlink(missing_ok=True)


def like(copy: Path, original: Path) -> None:
    """Gives the copy the mode, the times and, where this process may, the owner of the original."""
    shutil.copystat(original, copy)
    stat = original.stat()
    if os.geteuid() == 0:
        os.chown(copy, stat.st_uid, stat.st_gid)


def sync_file(path: Path) -> None:
    """Makes the file's content durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _locked(path: Path, wait_s: float) -> sqlite3.Connection:
    until = time.monotonic() + wait_s
    while True:
        if not is_open(path) and (connection := _tried(path)) is not None:
            return connection
        if time.monotonic() >= until:
            raise _in_use(path, holders(path))
        time.sleep(RETRY_S)


def _tried(path: Path) -> sqlite3.Connection | None:
    with reading(path):
        connection = connect(path, "rw")
        try:
            connection.execute("PRAGMA busy_timeout=0")
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            connection.execute("COMMIT")
        except BaseException as error:
            connection.close()  # else it would keep the half of the lock that it got
            if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & 0xFF in _BUSY:
                return None
            raise
        return connection


def _in_use(path: Path, pids: tuple[int, ...]) -> DatabaseInUse:
    named = ", ".join(f"{pid} ({command_of(pid) or 'gone'})" for pid in pids)
    unseen = "another process has it that is not to be seen from here (another container?), or went before it was named"
    who = f"it is open in process {named}" if pids else unseen
    return DatabaseInUse(f"{path} is in use: {who}", path=str(path), pids=" ".join(map(str, pids)))
