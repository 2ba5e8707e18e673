"""What an interrupted migration is taken to: finished, or undone, by its journal and by what lies on the disk.

| step begun | old database | new database | then |
| --- | --- | --- | --- |
| before switch | | | undo: the old one is as it was |
| switch or later | as copied | as copied, or used since | finish |
| switch or later | gone, or overwritten for removal | there | finish |
| switch or later | written to since | as copied, or absent | undo: the old one knows more |
| switch or later | written to since | written to since | needs attention: neither knows all |
| switch or later | gone | gone | needs attention |
"""

from pathlib import Path

from actorstate.errors import NeedsAttention
from actorstate.migrate.apply import carry_out, need_attention, undo_or_stop
from actorstate.migrate.sqlitefiles.content import Contents, contents_of, looked_at
from actorstate.migrate.sqlitefiles.hold import Held, held, was_removed
from actorstate.migrate.work import STEPS, Work

INTERRUPTED = "an earlier run was interrupted"


def recover(work: Work) -> bool:
    """Finishes the migration (True), or undoes it (False). Raises NeedsAttention, DatabaseInUse."""
    work.recovered = True
    if work.journal.step not in STEPS[STEPS.index("switch") :]:
        undo_or_stop(work, INTERRUPTED)
        return False
    if not work.old.exists() or was_removed(work.old):
        if not work.new.exists():
            _stop(work, "neither the old nor the new database is there")
        carry_out(work, None, _next(work))
        return True
    with held(work.old, work.options.lock_wait_s) as source:
        return _judged(work, source)


def _judged(work: Work, source: Held) -> bool:
    if work.journal.from_backup:
        undo_or_stop(work, f"{INTERRUPTED} while it brought a backup back")
        return False
    same_old = source.contents() == work.contents
    new = _contents(work.new)
    if new is None or (new == work.contents and not same_old):
        if new is None and work.stage.exists() and same_old:
            carry_out(work, source, "switch")
            return True
        undo_or_stop(work, f"{INTERRUPTED}, and the old database was used since")
        return False
    if not same_old:
        _stop(work, "both the old and the new database were written to since an earlier run was interrupted")
    carry_out(work, source, _next(work))
    return True


def _next(work: Work) -> str:
    """What was done is done and verified again; only the removal, which nothing undoes, goes straight on."""
    return "remove" if work.journal.step == "remove" else "switch"


def _contents(database: Path) -> Contents | None:
    if not (database.exists() and database.stat().st_size):
        return None
    with looked_at(database) as connection:
        return contents_of(connection)


def _stop(work: Work, reason: str) -> None:
    need_attention(work, reason)
    raise NeedsAttention(f"{work.user} needs attention: {reason}", user=work.user)
