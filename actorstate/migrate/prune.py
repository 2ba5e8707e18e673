"""Removing backups whose grace is over, and only where they are needed no more.

The grace counts from the end of the migration as its journal tells it, never from a file's time. Nothing is
removed where the migrated database does not verify now, where a user was rolled back and has not what it
holds, where the backup is not ours or not whole, or where the clocks cannot be believed (`clocks.py`), unless
somebody has looked at the date and says so.
"""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from actorstate.errors import ActorStateError
from actorstate.migrate.backup import BACKUP_MANIFEST, description_of_backup, problem_of_backup, remove_backup
from actorstate.migrate.clocks import Moment, clock_problem, doubt, present_moment
from actorstate.migrate.folders import manifest_of, missing, read_manifest
from actorstate.migrate.journal import Journal, read_journal
from actorstate.migrate.nextline import command_line, whole
from actorstate.migrate.runlock import only_one
from actorstate.migrate.survey import users_in
from actorstate.migrate.verification import judge, live_database
from actorstate.migrate.work import Options, Work, reached

GRACE_S = 30 * 86_400.0


@dataclass(frozen=True, slots=True)
class Pruned:
    """One backup, and why it stays (empty: it was removed)."""

    user: str
    backup: str
    bytes: int = 0
    stays: str = ""
    wrong: bool = False
    """It stays although its time is over: somebody should look."""


def prune_all(
    data: Path, grace_s: float = GRACE_S, user: str | None = None, *, trust_clock: bool = False
) -> Iterator[Pruned]:
    """Removes what is due, user by user. Raises MigrationRunning, UserRefused for one who is not there.

    `trust_clock`: the date is right, and was so when the migration ended; somebody has looked.
    """
    with only_one(data):
        for one in users_in(data, user):
            try:
                kept = read_journal(data / one)
                found = (
                    []
                    if kept is None
                    else list(prune_one(Work(data, kept, Options()), grace_s, trust_clock=trust_clock))
                )
            except (ActorStateError, OSError) as error:
                found = [Pruned(one, "", stays=whole(data, error), wrong=True)]
            yield from found


def prune_one(work: Work, grace_s: float, *, trust_clock: bool = False) -> Iterator[Pruned]:
    """The same for one user."""
    kept = work.journal
    if not kept.backups:
        return
    reason, wrong = _why_not(work, grace_s, present_moment(), trust_clock=trust_clock)
    for name in kept.backups:
        file = work.folder / name
        problem = reason or ("" if not file.exists() else _problem(file) or _only_there(work, file))
        if problem:
            yield Pruned(kept.plan.user, str(file), _size(file), problem, wrong or not reason)
            continue
        size = _size(file)
        remove_backup(file)
        reached("prune.removed")
        work.save(replace(work.journal, backups=tuple(left for left in work.journal.backups if left != name)))
        yield Pruned(kept.plan.user, str(file), size)


def due(kept: Journal, grace_s: float, now: Moment) -> bool:
    """Whether the grace of its backups is over, by the recorded end."""
    finished = kept.state in {"done", "rolled_back"}
    return bool(kept.backups) and finished and kept.ended is not None and now.wall - kept.ended.wall >= grace_s


def _why_not(work: Work, grace_s: float, now: Moment, *, trust_clock: bool) -> tuple[str, bool]:
    kept = work.journal
    if kept.state not in {"done", "rolled_back"} or kept.ended is None:
        return f"the migration is not over: {kept.state}", False
    if not trust_clock and (told := clock_problem(kept.ended, now)):
        return told, True
    if not due(kept, grace_s, now):
        return f"its grace ends in {(kept.ended.wall + grace_s - now.wall) / 86_400:.1f} days", False
    if not trust_clock and (told := doubt(kept.ended, now, grace_s)):
        return told, True
    problem, _ = judge(live_database(work), kept.contents)
    return (f"it may be the only good copy: {problem}", True) if problem else ("", False)


def _problem(file: Path) -> str:
    if file.is_dir():
        manifest = read_manifest(file.with_name(file.name + BACKUP_MANIFEST))
        return "it has no manifest of ours" if manifest is None else missing(manifest, manifest_of(file))
    return problem_of_backup(file)


def _only_there(work: Work, file: Path) -> str:
    """Why a backup of one who was rolled back may be the only copy of what it holds."""
    if work.journal.state != "rolled_back":
        return ""
    if file.is_dir():
        manifest = read_manifest(file.with_name(file.name + BACKUP_MANIFEST)) or {}
        place = next((new for _, _, new in work.folders() if file.name.startswith(f"{new.name}.pre-")), file)
        told = missing(manifest, manifest_of(place))
    else:
        described = description_of_backup(file)
        told = "".join(judge(live_database(work), None if described is None else described.contents))
    if not told:
        return ""
    where = shlex.quote(str(file))
    out = f"if nobody needs it: rm -r {where} {where}{BACKUP_MANIFEST}"
    if str(file.relative_to(work.folder)) == work.journal.origin:
        out = f"to have it back: {command_line('rollback', work.data, work.user, '--from-backup')}; {out}"
    return f"he was rolled back, and has not what it holds ({told}); {out}"


def _size(file: Path) -> int:
    if file.is_dir():
        return sum(path.lstat().st_size for path in file.rglob("*"))
    return file.stat().st_size if file.exists() else 0
