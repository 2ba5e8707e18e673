"""Mending what an audit has found: each user's findings in one journaled migration of his own.

It ends like any other: with a verified backup, a journal that says `done` (or `rolled_back`), and a way back.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Literal

from actorstate.errors import ActorStateError
from actorstate.migrate.apply import carry_out
from actorstate.migrate.audit import Finding, Ground
from actorstate.migrate.backup import made_backup
from actorstate.migrate.folders import manifest_of, write_manifest
from actorstate.migrate.journal import Journal, read_journal
from actorstate.migrate.layouts import Layout
from actorstate.migrate.leftlog import bring_back, gained
from actorstate.migrate.plan import reverse, settle
from actorstate.migrate.runlock import forget_done, only_one
from actorstate.migrate.sqlitefiles.hold import held
from actorstate.migrate.survey import facts_of, registered
from actorstate.migrate.work import Options, Work

Keep = Literal["old", "new"]


def mended(data: Path, layout: Layout, found: Iterable[Finding], keep: Keep | None) -> Iterator[Finding]:
    """The findings, mended as far as that is safe. Raises MigrationRunning."""
    with only_one(data):
        forget_done(data)
        for user, group in groupby(found, lambda one: one.user):
            yield from _mended((data, layout), user, list(group), keep)


def _mended(where: tuple[Path, Layout], user: str, found: list[Finding], keep: Keep | None) -> Iterator[Finding]:
    data, layout = where
    kinds = {one.kind for one in found}
    if not any(one.can for one in found) and not (keep and "both_databases" in kinds):
        yield from found
        return
    try:
        ground = Ground(
            data, layout, facts_of(data, layout, user, user in registered(data, layout)), read_journal(data / user)
        )
        notes = _mend(ground, found, keep)
    except (ActorStateError, OSError) as error:
        yield from (replace(one, note=str(getattr(error, "message", error))) for one in found)
        return
    for one in found:
        can = bool(one.can) or one.kind == "both_databases"
        yield replace(one, mended=can, note="; ".join(notes) if can else "")


def _mend(ground: Ground, found: list[Finding], keep: Keep | None) -> list[str]:
    kinds = {one.kind for one in found if one.can}
    if "log_left_behind" in kinds:
        gain = gained(ground.old, ground.new)
        if gain is not None:
            bring_back(ground.old, gain.origin)
            return ["his rows are back in the old layout", *_settled(ground, "old")]
    return _settled(ground, keep or "new")


def _settled(ground: Ground, keep: Keep) -> list[str]:
    """One database stays; what the other says is kept as a backup. Files and the row follow."""
    plan = settle(ground.layout, ground.facts)
    kept = ground.kept
    fresh = Journal(ground.layout.name, "migrating", "backup", plan, backups=() if kept is None else kept.backups)
    if keep == "old":
        fresh = replace(fresh, state="rolling_back", plan=reverse(plan))
    work = Work(ground.data, fresh, Options())
    work.recovered = True
    goes = work.old if work.old.exists() else work.new
    with held(goes, work.options.lock_wait_s) as source:
        contents = source.contents()
        backup = made_backup(source, contents, work.backup_place, work.options.quiet)
        name = str(backup.relative_to(work.folder))
        names = tuple(dict.fromkeys((*fresh.backups, name)))
        work.save(replace(work.journal, contents=contents, backup=name, backups=names))
        for part, _, new in work.folders():
            write_manifest(work.manifest(part), manifest_of(new))
        if goes == work.old:
            carry_out(work, source, "register")
    if goes == work.new:
        carry_out(work, None, "register")
    return [f"a backup of what was there: {backup}", *work.notes]
