"""A `-wal` whose database was moved away without it: what it would add, and how its rows come back.

SQLite takes a log for any database of its name. Where a copy of the database as it was then is still there
(the new one, or a plain copy that an older tool made), a private copy of both tells what the log holds.
"""

import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from actorstate.errors import ActorStateError
from actorstate.migrate.sqlitefiles.content import contents_of, looked_at, problems_of
from actorstate.migrate.sqlitefiles.hold import like, sync_file
from actorstate.migrate.sqlitefiles.whole import snapshot
from actorstate.store.files import sync_folder


@dataclass(frozen=True, slots=True)
class Gain:
    """What the log adds, in words; `untouched`: the new database says what it said when the log was left behind."""

    told: str
    untouched: bool
    origin: Path


def gained(old: Path, new: Path) -> Gain | None:
    """What the log of `old` would add; None where it fits nothing that is there. Changes nothing."""
    for origin in (old.with_name(f"{old.name}.pre-migration-backup"), new):
        try:
            found = _compared(old, origin, new) if origin.is_file() else None
        except ActorStateError:
            continue
        if found is not None:
            return found
    return None


def _compared(old: Path, origin: Path, new: Path) -> Gain | None:
    with _joined(old, origin) as joined, looked_at(joined) as both:
        with looked_at(new) as now, looked_at(origin) as before:
            said, present, then = contents_of(both), contents_of(now), contents_of(before)
        if problems_of(both) or said == then:
            return None
        # Compared with itself it tells nothing: there only its time says whether it was written to after the log.
        log = old.with_name(f"{old.name}-wal")
        earlier = origin != new or new.stat().st_mtime_ns <= log.stat().st_mtime_ns
        return Gain(present.differences(said), earlier and present == then, origin)


def bring_back(old: Path, origin: Path) -> None:
    """Makes `old` a database again, with the rows of its log; the log itself is kept under another name.

    Raises SourceUnreadable, DiskFull, OSError; what is there stands then.
    """
    recovered = old.with_name(f".{old.name}.actorstate-new")
    recovered.unlink(missing_ok=True)
    with _joined(old, origin) as joined:
        snapshot(joined, recovered)
    like(recovered, origin)
    sync_file(recovered)
    for suffix in ("-wal", "-shm"):
        log = old.with_name(old.name + suffix)
        if log.exists():
            log.rename(old.with_name(f"{log.name}.left-behind"))
    sync_folder(old.parent)
    recovered.rename(old)
    sync_folder(old.parent)


@contextmanager
def _joined(old: Path, origin: Path) -> Generator[Path]:
    with tempfile.TemporaryDirectory(prefix="actorstate-log-") as folder:
        joined = Path(folder) / "joined.sqlite"
        shutil.copyfile(origin, joined)
        shutil.copyfile(old.with_name(f"{old.name}-wal"), joined.with_name("joined.sqlite-wal"))
        yield joined
