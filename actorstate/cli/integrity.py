"""Whether every stored job can be read: `doctor`'s last examination, when no writer runs.

It reads a copy in a temporary folder. Opening the database itself would move its log into it, and with
that destroy what a damaged log may still tell; a lock on it would keep a writer from starting again.
"""

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from actorstate.cli.examine import Finding, note, ok, size, wrong
from actorstate.cli.verify import verified
from actorstate.core import codec
from actorstate.endpoint import lock_holder, private_folder
from actorstate.errors import CorruptJob, StoreError
from actorstate.store.choice import kind_of
from actorstate.store.contract import JobQuery, Store
from actorstate.store.location import Location, quoted
from actorstate.store.sqlite import SqliteStore

FILES = ("jobs.sqlite", "jobs.sqlite-wal", ".actorstate/head")
"""What is copied: the database, its log, and how far its commits had come."""
PAGE = 1000
DAMAGED_NAMED = 10
"""More damaged jobs are counted only."""
SPARE = 1.5
"""The temporary folder must have this many times the room of the copy: the log is moved into it there."""


def examine_database(directory: Path) -> Iterator[Finding]:
    """Reads every job as the writer would at its start, where no writer runs. Raises OSError."""
    path = directory / "jobs.sqlite"
    if lock_holder(directory) is not None:
        return
    if kind_of(directory) == "json":
        yield from _examined_files(Location("json", directory))
        return
    if not path.exists():
        yield note("database", f"there is none yet: {path}")
        return
    with tempfile.TemporaryDirectory(prefix="actorstate-doctor-") as folder:
        needed = sum((directory / name).stat().st_size for name in FILES if (directory / name).exists())
        if shutil.disk_usage(folder).free < SPARE * needed:
            yield note("database", f"not examined: no room for {size(needed)} in {folder} (TMPDIR names another)")
            return
        _copy(directory, Path(folder))
        if lock_holder(directory) is not None:
            yield note("database", "not examined: a writer has started meanwhile")
            return
        yield from _examined(Path(folder), directory)


def _examined_files(location: Location) -> Iterator[Finding]:
    verdict = verified(location, quiet=True)
    damaged = [f"{found.job}: {found.faults[0]}" for found in verdict.damaged]
    if verdict.ok:
        yield ok("files", f"{verdict.jobs:,} jobs read, every digest matches")
        return
    named = "; ".join(damaged[:DAMAGED_NAMED]) + ("; ..." if len(damaged) > DAMAGED_NAMED else "")
    step = f"{_copy_step(location.directory)}; then: actorstate repair {quoted(location)}"
    yield wrong("files", f"{len(damaged):,} damaged: {named}", step)


def _copy(directory: Path, folder: Path) -> None:
    private_folder(folder).mkdir()
    for name in FILES:
        if (directory / name).exists():
            shutil.copy(directory / name, folder / name)


def _examined(folder: Path, directory: Path) -> Iterator[Finding]:
    started = time.monotonic()
    try:
        jobs, damaged = _read_all(SqliteStore(folder / "jobs.sqlite", private_folder(folder) / "head"))
    except StoreError as error:
        told, hint = (text.replace(str(folder), str(directory)) for text in (error.message, error.hint))
        yield wrong("database", told, f"{_copy_step(directory)}; then: {hint}")
        return
    took = f"{jobs:,} jobs read in {time.monotonic() - started:.1f} s"
    if not damaged:
        yield ok("database", f"{took}, every digest matches")
        return
    step = f"{_copy_step(directory)}; then: actorstate repair {quoted(directory)}"
    named = "; ".join(damaged[:DAMAGED_NAMED]) + ("; ..." if len(damaged) > DAMAGED_NAMED else "")
    yield wrong("database", f"{took}, {len(damaged):,} damaged: {named}", step)


def _copy_step(directory: Path) -> str:
    return f"cp -a {quoted(directory)} {quoted(directory)}.damaged   # before anything else"


def _read_all(store: Store) -> tuple[int, list[str]]:
    """How many jobs there are, and what is wrong with those that cannot be read. Raises StoreError."""
    store.open()
    try:
        return _read_jobs(store)
    finally:
        store.close()


def _read_jobs(store: Store) -> tuple[int, list[str]]:
    jobs, damaged, after = 0, list[str](), ""
    while page := store.list_jobs(JobQuery(after=after, limit=PAGE)):
        for job in page:
            try:
                _read(store, job)
            except CorruptJob as error:
                damaged.append(error.message)
        jobs, after = jobs + len(page), page[-1]
    return jobs, damaged


def _read(store: Store, job: str) -> None:
    stored = store.load(job)
    if stored is None:
        raise CorruptJob(f"job {job!r} is listed and not stored", job=job)
    if stored.keyframe is not None:
        codec.decode_keyframe(stored.keyframe)
    for change in stored.changes:
        codec.decode_change(change)
