"""Users' data as an older app leaves it, what it says, and migrations that are killed at a named point."""

import contextlib
import io
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from actorstate import telemetry
from actorstate.cli.main import main
from actorstate.migrate.journal import read_journal
from actorstate.migrate.layouts import SERVER, Layout
from actorstate.migrate.run import Report, Round, Settings, Watcher, migrate_one, run_all
from actorstate.migrate.sqlitefiles.hold import was_removed
from actorstate.migrate.survey import registered, survey
from actorstate.migrate.work import Options
from tests.support.processes import forked, joined

ROWS = 300
HASTY = Options(lock_wait_s=0.2)
OLD, NEW = "peek.db", "profiles/default/datastore.sqlite"

_LEFT_BY_A_KILL = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA journal_mode=WAL")
connection.execute("PRAGMA wal_autocheckpoint=0")
connection.executescript(sys.argv[3])
connection.execute("BEGIN")
connection.executemany("INSERT INTO items(title, data) VALUES (?, ?)",
                       [(f"late {number}", b"x" * 40) for number in range(int(sys.argv[2]))])
connection.execute("COMMIT")
os.kill(os.getpid(), signal.SIGKILL)
"""
SCHEMA = """
CREATE TABLE IF NOT EXISTS items (id INTEGER PRIMARY KEY, title TEXT NOT NULL, data BLOB);
CREATE TABLE IF NOT EXISTS tags (name TEXT PRIMARY KEY, item REFERENCES items) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_title ON items (title);
"""


@dataclass(frozen=True)
class Case:
    """What a user has: rows in the database, rows only in the `-wal`, images, and a new place on another disk."""

    wal: bool = False
    images: bool = False
    other_disk: bool = False

    def __str__(self) -> str:
        parts = ["wal" if self.wal else "database", *(["images"] if self.images else [])]
        return "+".join(parts) + (", other disk" if self.other_disk else ", same disk")


CASES = [Case(wal, images, other) for other in (False, True) for wal, images in
         ((False, False), (True, False), (False, True), (True, True))]  # fmt: skip


class Disks:
    """Small file systems in memory."""

    def __init__(self) -> None:
        self._mounted: list[Path] = []

    def mount(self, place: Path, size: int = 16 * 1024 * 1024) -> None:
        place.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=True)
        self._mounted.append(place)

    def mount_read_only(self, original: Path, place: Path) -> None:
        place.mkdir()
        subprocess.run(["mount", "--bind", "-o", "ro", str(original), str(place)], check=True)
        self._mounted.append(place)

    def unmount_below(self, top: Path) -> None:
        for place in [place for place in reversed(self._mounted) if place.is_relative_to(top)]:
            subprocess.run(["umount", "--lazy", str(place)], check=True)
            self._mounted.remove(place)


def make_database(path: Path, rows: int = ROWS) -> None:
    """An app's database in WAL mode, closed well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.executescript(SCHEMA)
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT INTO items(title, data) VALUES (?, ?)", [(f"item {n}", bytes([n % 256]) * 20) for n in range(rows)]
        )
        connection.execute("INSERT OR IGNORE INTO tags VALUES ('first', 1)")
        connection.execute("COMMIT")


def leave_wal(path: Path, rows: int = 50) -> None:
    """Committed rows that only the `-wal` has: their writer was killed."""
    subprocess.run([sys.executable, "-c", _LEFT_BY_A_KILL, str(path), str(rows), SCHEMA], check=False)
    assert path.with_name(path.name + "-wal").stat().st_size


def make_user(data: Path, user: str, case: Case = Case(images=True)) -> Path:
    """A user's folder as the older app leaves it."""
    folder = data / user
    make_database(folder / OLD)
    if case.wal:
        leave_wal(folder / OLD)
    if case.images:
        make_images(folder / "images")
    return folder


def make_images(folder: Path, number: int = 3) -> None:
    (folder / "deep").mkdir(parents=True)
    for at in range(number):
        (folder / f"{at}.png").write_bytes(bytes([at]) * (1000 + at))
        (folder / "deep" / f"{at}.png").write_bytes(bytes([at + 100]) * 10)


def rows_of(database: Path) -> list[tuple[object, ...]]:
    """All rows of a database, read from a copy of it and its log, so that looking changes nothing."""
    with contextlib.closing(sqlite3.connect(":memory:")) as copy:
        with contextlib.closing(_opened(database)) as connection:
            connection.backup(copy)
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        tables = [row[0] for row in copy.execute("SELECT name FROM sqlite_master WHERE type='table' ORDER BY name")]
        return [(table, *row) for table in tables for row in copy.execute(f"SELECT * FROM {table} ORDER BY 1")]


def _opened(database: Path) -> sqlite3.Connection:
    logs = any(database.with_name(database.name + suffix).exists() for suffix in ("-wal", "-journal"))
    options = "mode=rw" if logs else "mode=ro&immutable=1"
    return sqlite3.connect(f"{database.as_uri()}?{options}", uri=True)


def files_of(folder: Path) -> dict[str, bytes]:
    """All files below a folder, with their content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@dataclass(frozen=True)
class Says:
    """Everything that a user has."""

    rows: list[tuple[object, ...]]
    images: dict[str, bytes]


def says(folder: Path) -> Says:
    """What the one state of this user says; fails when there are two, or a half of one."""
    old, new = folder / OLD, folder / NEW
    assert old.exists() != new.exists(), f"{old} and {new}: there must be exactly one"
    images = [folder / "images", folder / "profiles/default/images"]
    there = [place for place in images if place.exists()]
    assert len(there) < 2, f"two folders of images: {there}"
    assert not list(folder.rglob("*actorstate-stage*")) + list(folder.rglob("*actorstate-old*"))
    assert not list(folder.rglob("*actorstate-new*")) + list(folder.rglob("*.tmp"))
    place = images[old.exists() is False]
    assert there in ([], [place]), "the images are not where the database is"
    assert not old.with_name(old.name + "-wal").exists() or old.exists()
    return Says(rows_of(new if new.exists() else old), files_of(place) if place.exists() else {})


def tree(data: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """All names below DATA with inode, size, time and content, to see whether anything changes; locks left out."""
    return {
        str(path.relative_to(data)): (stat.st_ino, stat.st_size, stat.st_mtime_ns, path.read_bytes())
        for path in sorted(data.rglob("*"))
        if path.is_file() and not path.name.startswith(".actorstate-migration.lock")
        and not path.name.endswith(".done") and (stat := path.lstat())
    }  # fmt: skip


def registered_rows(data: Path, database: str = "system.db") -> list[tuple[object, ...]]:
    """The rows of the registry."""
    if not (data / database).exists():
        return []
    with contextlib.closing(sqlite3.connect(data / database)) as connection:
        return connection.execute("SELECT user_id, slug, name FROM profiles ORDER BY user_id").fetchall()


def migrated(data: Path, layout: Layout = SERVER, **settings: object) -> Report:
    """A run in this process."""
    return run_all(data, layout, replace(Settings(options=HASTY), **settings), Watcher())  # type: ignore[arg-type]


def points_of(work: Callable[[], object]) -> list[str]:
    """The named points that `work` comes by, in order."""
    points: list[str] = []
    stop = telemetry.listen(lambda _, fields: points.append(str(fields["point"])), "migrate.reached")
    try:
        work()
    finally:
        stop()
    return points


def killed_at(number: int, work: Callable[[], object]) -> None:
    """Does `work` in a forked process that is killed when it comes by its n-th named point (from 0)."""
    seen = [0]

    def listener(_name: str, _fields: dict[str, object]) -> None:
        if seen[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)
        seen[0] += 1

    def child() -> None:
        telemetry.listen(listener, "migrate.reached")
        work()

    assert joined(forked(child)) == -signal.SIGKILL


@contextlib.contextmanager
def failing_at(number: int, error: BaseException) -> Iterator[None]:
    """The n-th named point (from 0) raises `error`, once."""
    seen = [0]

    def listener(_name: str, _fields: dict[str, object]) -> None:
        seen[0] += 1
        if seen[0] == number + 1:
            raise error

    stop = telemetry.listen(listener, "migrate.reached")
    try:
        yield
    finally:
        stop()


def command(*arguments: object) -> list[str]:
    """The command line of ours."""
    return [sys.executable, "-m", "actorstate", *map(str, arguments)]


@dataclass(frozen=True)
class Answer:
    """What a command line has answered."""

    returncode: int
    stdout: str
    stderr: str


def typed(*words: object, **environment: str) -> Answer:
    """What a command answers, as in a pipe; in this process, since starting Python takes longer than most of them."""
    out, err = io.StringIO(), io.StringIO()
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([str(word) for word in words])
    except SystemExit as ended:
        code = int(str(ended.code))
    finally:
        os.environ.clear()
        os.environ.update(before)
    return Answer(code, out.getvalue(), err.getvalue())


def add_row(database: Path, title: str) -> None:
    """A row that the app writes."""
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("INSERT INTO items(title) VALUES (?)", (title,))


class Stage:
    """DATA with one user, made anew for each round."""

    def __init__(self, data: Path, case: Case, disks: Disks) -> None:
        self.data, self.case, self.disks = data, case, disks
        self.folder = data / "alice"

    def prepare(self) -> None:
        """The user as the older app left him, to be copied; what he has is in `before`."""
        self.disks.mount(self.data.parent)  # a disk in memory: its sync takes no time
        self.original = make_user(self.data.with_name("original"), "alice", self.case)
        copy = shutil.copytree(self.original, self.data.with_name("copy"))
        self.before = says(copy)
        self.set_up()

    def set_up(self) -> None:
        """As if nothing had happened yet."""
        self.disks.unmount_below(self.data)
        shutil.rmtree(self.data, ignore_errors=True)
        shutil.copytree(self.original, self.folder)
        if self.case.other_disk:
            self.disks.mount(self.folder / "profiles")

    def run(self) -> None:
        """As an app or the command line does it."""
        migrated(self.data)

    def run_here(self) -> None:
        """The same user without threads: strace follows the main thread alone."""
        migrate_one(survey(self.data, SERVER).users[0], Round(self.data, SERVER, Settings(options=HASTY)))

    def left(self) -> tuple[object, ...]:
        """What a kill has left, as the next run finds it: the journal's word, and what lies where."""
        kept = read_journal(self.folder)
        new = (self.folder / NEW).parent
        old = self.folder / OLD
        places = (old, self.folder / NEW, *(new / f".{name}.actorstate-stage" for name in (Path(NEW).name, "images")),
                  self.folder / "images", new / "images", self.folder / ".images.actorstate-old",
                  self.folder / f"{OLD}.pre-migration-backup")  # fmt: skip
        there = tuple(len(files_of(place)) if place.is_dir() else place.exists() for place in places)
        said = ("", "") if kept is None else (kept.state, kept.step)
        return (*said, *there, old.exists() and was_removed(old), *registered(self.data, SERVER))

    def ended(self) -> str:
        """The state that the next run has come to; times, history and the numbers of mounted disks left out."""
        kept = read_journal(self.folder)
        assert kept is not None
        assert kept.ended is not None
        journal = replace(kept, plan=replace(kept.plan, needs=()), history=(), ended=None)
        return repr((journal, sorted(tree(self.data)), says(self.folder), registered_rows(self.data)))

    def check_migrated(self) -> None:
        """The next run has finished it: nothing is lost, and one more run changes nothing."""
        report = migrated(self.data)
        assert report.good, report
        assert (self.folder / NEW).exists()
        assert says(self.folder) == self.before
        assert registered_rows(self.data) == [("alice", "default", "Default")]
        there = tree(self.data)
        assert migrated(self.data).counts == {"skipped": 1}
        assert tree(self.data) == there
