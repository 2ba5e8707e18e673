"""The steps of one user, and the way back out of each of them.

    backup -> verify backup -> stage -> verify -> switch -> register -> verify -> remove -> done
    └──────── nothing has changed its place ───┘   └── both are there ──┘    └ only forward

The source is held from the first step to the last, so what was copied is what is removed. Whatever fails
before `remove` is undone at once; whatever is killed is finished or undone by the next run (`recovery.py`).
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from actorstate.errors import DiskFull, NeedsAttention, SourceUnreadable, UserRefused, VerificationFailed
from actorstate.migrate.backup import (
    backup_names,
    clear_unfinished,
    description_of_backup,
    made_backup,
    made_folder_backup,
    problem_of_backup,
)
from actorstate.migrate.clocks import present_moment
from actorstate.migrate.folders import (
    Manifest,
    copy_all,
    make_folder,
    manifest_of,
    merge,
    missing,
    read_manifest,
    remove_empty,
    remove_known,
    remove_tree,
    sha256_of,
    sync_up,
    write_manifest,
)
from actorstate.migrate.journal import State
from actorstate.migrate.plan import Part, Record, reverse
from actorstate.migrate.sqlitefiles.content import contents_of, looked_at, problems_of
from actorstate.migrate.sqlitefiles.hold import Held, held, like, remove_names, sync_file, was_removed
from actorstate.migrate.sqlitefiles.registry import erase
from actorstate.migrate.work import COMPARED, COPIED, READ, STEPS, Work, reached, set_aside, staged
from actorstate.store.files import is_full, sync_folder

Step = Callable[[Work, Held | None], None]


def carry_out(work: Work, source: Held | None, first: str = STEPS[0]) -> None:
    """Does the steps from `first` on. What fails before `remove` is undone; raises what failed."""
    try:
        for step in STEPS[STEPS.index(first) :]:
            work.enter(step)
            _DO[step](work, source)
            reached(f"{step}.ended")
    except Exception as error:
        if work.journal.step != "remove":
            undo_or_stop(work, f"{type(error).__name__}: {getattr(error, 'message', error)}")
        raise
    _finish(work)


def undo_or_stop(work: Work, reason: str) -> None:
    """Undoes what was done. Where that fails nothing more is touched, and the user needs attention."""
    try:
        undo(work, reason)
    except Exception as error:
        told = f"{reason}; going back failed: {getattr(error, 'message', error)}"
        need_attention(work, told)
        raise NeedsAttention(f"{work.user} needs attention: {told}", user=work.user) from error


def undo(work: Work, reason: str) -> None:
    """Brings all back to where it was; backups stay. Raises NeedsAttention when what is there is not what we made."""
    # First of all: it may be the new database under another name, which is overwritten when it goes.
    work.stage.unlink(missing_ok=True)
    if work.journal.step in STEPS[STEPS.index("switch") :]:
        _undo_switch(work)
    for _, _, new in work.folders():
        remove_tree(staged(new))
    reached("undo.stage_gone")
    clear_unfinished(work.backup_place)
    work.clear_unwritten()
    _remove_created(work, work.new.parent)
    sync_up(work.new.parent, work.folder)
    back = work.journal.state == "rolling_back"
    plan = reverse(work.journal.plan) if back else work.journal.plan
    main = work.journal.origin if back else work.journal.backup
    state: State = "done" if back else "undone"
    ours = tuple(dict.fromkeys((*work.journal.backups, *work.backups_there())))
    work.save(
        replace(work.journal, state=state, step="", plan=plan, backup=main, backups=ours, from_backup="", reason=reason)
    )
    reached("undone.written")


def need_attention(work: Work, reason: str) -> None:
    """Writes down where each copy lies, if the disk lets us; the present journal says enough if not."""
    copies = [(str(work.old), "the database at its old place"), (str(work.new), "the database at its new place")]
    copies += [(str(work.folder / name), "a backup") for name in work.journal.backups]
    for _, old, new in work.folders():
        copies += [(str(old), "files at the old place"), (str(new), "files at the new place")]
        copies += [(str(set_aside(old)), "files that are in the new place too"), (str(staged(new)), "copied files")]
    there = tuple((path, what) for path, what in copies if os.path.lexists(path))
    try:
        work.save(replace(work.journal, state="needs_attention", reason=reason, copies=there))
    except OSError as error:
        work.notes.append(f"the journal could not be written: {error}")


def _backup(work: Work, source: Held | None) -> None:
    if work.journal.from_backup:
        _backup_is_given(work, source)
        return
    held = _there(source)
    contents = held.contents()
    work.remember(replace(work.journal, contents=contents))
    work.tell(READ)
    made = made_backup(
        held, contents, work.backup_place, lambda done, total: work.tell(READ + (COPIED - READ) * done / max(total, 1))
    )
    work.tell(COMPARED)
    _keep(work, made, as_main=True)
    if work.options.backup_images:
        for _, old, _ in work.folders():
            _keep(work, made_folder_backup(old, work.folder_backup_place(old)), as_main=False)


def _backup_is_given(work: Work, source: Held | None) -> None:
    """What is brought back is an earlier backup; what is there now is kept, damaged or not."""
    given = work.folder / work.journal.from_backup
    told = description_of_backup(given)
    problem = problem_of_backup(given)
    if told is None or problem:
        raise UserRefused(f"{given} cannot be brought back: {problem}")
    if source is not None:
        if _is_damaged(source):
            kept = next(name for name in backup_names(work.backup_place) if not os.path.lexists(name))
            source.copy_to(kept, work.options.quiet)
            work.notes.append(f"what was there is damaged, and kept as it is: {kept}")
        else:
            kept = made_backup(source, source.contents(), work.backup_place, work.options.quiet)
        _keep(work, kept, as_main=False)
    work.remember(replace(work.journal, contents=told.contents, backup=work.journal.from_backup))


def _is_damaged(source: Held) -> bool:
    try:
        return bool(source.problems())
    except SourceUnreadable:  # so much that it cannot even be examined
        return True


def _keep(work: Work, made: Path, *, as_main: bool) -> None:
    name = str(made.relative_to(work.folder))
    backups = tuple(dict.fromkeys((*work.journal.backups, name)))
    work.remember(replace(work.journal, backups=backups, backup=name if as_main else work.journal.backup))


def _verify_backup(work: Work, _source: Held | None) -> None:
    told = description_of_backup(work.folder / work.journal.backup)
    if told is None or told.contents != work.contents:
        raise VerificationFailed(f"the backup {work.journal.backup} does not say what {work.old} says")
    work.remember(replace(work.journal, stage_sha256=told.sha256))
    sync_up(work.backup_place.parent, work.folder)


def _stage(work: Work, _source: Held | None) -> None:
    make_folder(work.new.parent, work.folder)
    backup = work.folder / work.journal.backup
    _copied(backup, work.stage, work.old if work.old.exists() else backup)
    reached("stage.database_copied")
    for part, old, new in work.folders():
        manifest = copy_all(old, staged(new)) if part.crosses else manifest_of(old)
        write_manifest(work.manifest(part), manifest)
        reached("stage.folder_copied")
    work.tell(COMPARED, 0.5)


def _copied(backup_file: Path, stage: Path, original: Path) -> None:
    try:
        shutil.copyfile(backup_file, stage)
    except OSError as error:
        if is_full(error):
            raise DiskFull(f"{stage} does not fit: {error}", hint="free some space and start again") from error
        raise
    like(stage, original)
    sync_file(stage)


def _verify_stage(work: Work, _source: Held | None) -> None:
    if sha256_of(work.stage) != work.journal.stage_sha256:
        raise VerificationFailed(f"{work.stage} is no faithful copy of {work.journal.backup}")
    for part, _, new in work.folders():
        if part.crosses and (told := missing(_manifest(work, part), manifest_of(staged(new)))):
            raise VerificationFailed(f"the copy for {new} is not complete: {told}")


def _switch(work: Work, _source: Held | None) -> None:
    if work.stage.exists():
        _placed(work.stage, work.new, work.options.lock_wait_s)
    reached("switch.database_placed")
    for part, old, new in work.folders():
        _switch_folder(work, part, old, new)
        reached("switch.folder_placed")


def _placed(stage: Path, new: Path, wait_s: float) -> None:
    """Gives the staged file its name; never in the place of another that has content, or that somebody has open."""
    if not (new.exists() and new.samefile(stage)):
        try:
            os.link(stage, new)
        except FileExistsError:
            if new.stat().st_size:
                raise VerificationFailed(f"{new} has appeared meanwhile; it was not touched") from None
            with held(new, wait_s):
                stage.replace(new)
        except OSError:  # a file system without hard links
            stage.rename(new)
    stage.unlink(missing_ok=True)


def _switch_folder(work: Work, part: Part, old: Path, new: Path) -> None:
    source = staged(new) if part.crosses else old
    if not source.is_dir():
        return
    if new.is_dir() and any(new.iterdir()):
        work.notes += [f"{source / name} stays: {new} has another file of this name" for name in merge(source, new)]
        return
    make_folder(new.parent, work.folder)
    source.rename(new)


def _register(work: Work, _source: Held | None) -> None:
    entry = work.journal.plan.record
    if entry is None:
        return
    database = work.data / entry.registry.database
    if work.journal.state == "rolling_back":
        if entry.new:
            erase(database, entry.registry.table, entry.id)
        return
    work.options.rows.record(database, entry.registry.table, row_of(work.user, entry))


def row_of(user: str, entry: Record) -> dict[str, str]:
    """A row of the registry, as of now."""
    at, to = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"), entry.registry
    return {"id": entry.id, "user_id": user, "slug": to.slug, "name": to.label, "created_at": at, "last_used_at": at}


def _verify(work: Work, _source: Held | None) -> None:
    if sha256_of(work.new) != work.journal.stage_sha256:
        _verify_used(work)
    told = description_of_backup(work.folder / work.journal.backup)
    if told is None or sha256_of(work.folder / work.journal.backup) != told.sha256:
        raise VerificationFailed(f"the backup {work.journal.backup} is not what was written")
    for part, _, new in work.folders():
        if problem := missing(_manifest(work, part), manifest_of(new)):
            if work.recovered:
                work.notes.append(f"{part.new} has changed since: {problem}")
            else:
                raise VerificationFailed(f"{new} is not complete: {problem}")
    _sync_places(work, work.new, *(new for _, _, new in work.folders()))
    _sync_places(work, work.old, *(old for _, old, _ in work.folders()))


def _sync_places(work: Work, *places: Path) -> None:
    """Makes the names at these places durable, and the folders above them; the user's own is the journal's to sync."""
    for folder in {place.parent for place in places}:
        sync_up(folder, work.folder)


def _verify_used(work: Work) -> None:
    """Somebody has opened the new database: it must be in order, and unless time has passed, say the same."""
    with looked_at(work.new) as connection:
        if problems := problems_of(connection):
            raise VerificationFailed(f"{work.new} is damaged: {'; '.join(problems)}")
        told = work.contents.differences(contents_of(connection))
    if told and not work.recovered:
        raise VerificationFailed(f"{work.new} does not say what {work.old} says: {told}")


def _remove(work: Work, source: Held | None) -> None:
    if source is not None:
        source.remove()
    elif work.old.exists() and was_removed(work.old):
        remove_names(work.old)
    reached("remove.database_gone")
    for part, old, new in work.folders():
        work.notes += [f"{name} stays: {new} has another file of this name" for name in _remove_folder(work, part, old)]
        reached("remove.folder_gone")
    _sync_places(work, work.old, *(old for _, old, _ in work.folders()))


def _remove_folder(work: Work, part: Part, old: Path) -> list[str]:
    new = work.folder / part.new
    aside = set_aside(old)
    if part.crosses and old.is_dir() and not aside.exists():
        old.rename(aside)  # who adds a file now is told that the folder is gone
        reached("remove.folder_aside")
    left = [f"{aside}/{name}" for name in remove_known(aside, _manifest(work, part), new)] if aside.is_dir() else []
    return left + [f"{old}/{name}" for name in merge(old, new)]


def _finish(work: Work) -> None:
    back = work.journal.state == "rolling_back"
    if back:
        _remove_created(work, work.old.parent)
        for part in work.journal.plan.folders:
            work.manifest(part).unlink(missing_ok=True)
    work.clear_unwritten()
    work.save(
        replace(
            work.journal, state="rolled_back" if back else "done", step="", ended=present_moment(), reason="", copies=()
        )
    )
    reached("done.written")


def _undo_switch(work: Work) -> None:
    if not work.old.exists():
        raise NeedsAttention(f"{work.old} is gone")
    if not (work.new.exists() and work.new.stat().st_size):
        _undo_beside(work)
        return
    with held(work.new, work.options.lock_wait_s) as new:  # an app may have it open already
        if told := work.contents.differences(new.contents()):
            raise NeedsAttention(f"{work.new} has been written to since: {told}")
        _undo_beside(work)
        new.remove()
    reached("undo.database_gone")


def _undo_beside(work: Work) -> None:
    for _, old, new in work.folders():
        _undo_folder(old, new)
        reached("undo.folder_back")
    entry = work.journal.plan.record
    if entry is not None and entry.new:
        _unregister(work)


def _undo_folder(old: Path, new: Path) -> None:
    if new.is_dir() and not old.exists() and old.parent.stat().st_dev == new.stat().st_dev:
        new.rename(old)
        sync_folder(new.parent)
        sync_folder(old.parent)
    elif conflicts := merge(new, old):
        raise NeedsAttention(f"{new} and {old} have different files of one name: {', '.join(conflicts[:5])}")


def _unregister(work: Work) -> None:
    entry = work.journal.plan.record
    if entry is None:
        return
    database = work.data / entry.registry.database
    if work.journal.state == "rolling_back":
        work.options.rows.record(database, entry.registry.table, row_of(work.user, entry))
    else:
        erase(database, entry.registry.table, entry.id)


def _remove_created(work: Work, place: Path) -> None:
    """Removes the folders towards `place` that nothing is left in; the user's own folder stays."""
    while place != work.folder and place.is_relative_to(work.folder):
        remove_empty(place)
        place = place.parent


def _manifest(work: Work, part: Part) -> Manifest:
    manifest = read_manifest(work.manifest(part))
    if manifest is None:
        raise NeedsAttention(f"{work.manifest(part)} is gone or damaged; it named the files of {part.old}")
    return manifest


def _there(source: Held | None) -> Held:
    if source is None:
        raise NeedsAttention("there is no source to copy from")
    return source


_DO: dict[str, Step] = {
    "backup": _backup,
    "verify_backup": _verify_backup,
    "stage": _stage,
    "verify_stage": _verify_stage,
    "switch": _switch,
    "register": _register,
    "verify": _verify,
    "remove": _remove,
}
