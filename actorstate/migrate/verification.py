"""Whether what was migrated is still whole: the database, its backup, the files, the row. Reads only."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from actorstate.errors import ActorStateError
from actorstate.migrate.backup import problem_of_backup
from actorstate.migrate.folders import manifest_of, missing, read_manifest
from actorstate.migrate.journal import Journal, read_journal
from actorstate.migrate.nextline import whole
from actorstate.migrate.plan import UserPlan
from actorstate.migrate.sqlitefiles.content import Contents, contents_of, looked_at, problems_of
from actorstate.migrate.sqlitefiles.registry import recorded_users
from actorstate.migrate.survey import users_in
from actorstate.migrate.work import Options, Work


@dataclass(frozen=True, slots=True)
class Checked:
    """One user: what is wrong, and what is merely not as it was at the migration."""

    user: str
    state: str
    wrong: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Whether nothing is wrong."""
        return not self.wrong


def verify_all(data: Path, user: str | None = None) -> Iterator[Checked]:
    """Every user with a journal, or one. Raises UserRefused for one who is not there."""
    for one in users_in(data, user):
        try:
            kept = read_journal(data / one)
            found = [] if kept is None else [verify_one(data, kept)]
        except (ActorStateError, OSError) as error:
            found = [Checked(one, "refused", (whole(data, error),))]
        yield from found


def verify_one(data: Path, kept: Journal) -> Checked:
    """One user's database, files, backups and row."""
    work = Work(data, kept, Options())
    if kept.state not in {"done", "rolled_back", "undone"}:
        return Checked(work.user, kept.state, (kept.reason or "it was interrupted; run it again",))
    wrong, changed = list[str](), list[str]()
    problem, told = judge(live_database(work), kept.contents)
    wrong += [problem] if problem else []
    changed += [told] if told and kept.state != "undone" else []
    for name in kept.backups:
        file = work.folder / name
        if file.is_file() and (problem := problem_of_backup(file)):
            wrong.append(f"{file}: {problem}")
        elif not file.exists():
            wrong.append(f"{file} is gone")
    if kept.state == "done":
        changed += list(_files(work))
        wrong += list(_row(data, kept.plan))
    return Checked(work.user, kept.state, tuple(wrong), tuple(changed))


def live_database(work: Work) -> Path:
    """The database that the app uses: where the last move has ended, or where one began that was undone."""
    return work.old if work.journal.state == "undone" else work.new


def judge(database: Path, before: Contents | None) -> tuple[str, str]:
    """What is wrong with the database, and how it differs from what it was, in words; empty when all is well."""
    if not database.is_file():
        return f"{database} is gone", ""
    try:
        with looked_at(database) as connection:
            if problems := problems_of(connection):
                return f"{database} is damaged: {'; '.join(problems)}", ""
            now = contents_of(connection)
    except (ActorStateError, OSError) as error:
        return str(error), ""
    if before is not None and before.tables and not now.tables:
        return f"{database} has no tables any more", ""
    if before is not None and now.orphans > before.orphans:
        return f"{database} has {now.orphans} rows against a foreign key, {before.orphans} before", ""
    told = "" if before is None else before.differences(now)
    return "", f"then and now: {told}" if told else ""


def _files(work: Work) -> Iterator[str]:
    for part, _, new in work.folders():
        manifest = read_manifest(work.manifest(part))
        if manifest is None:
            yield f"{work.manifest(part)} is gone or damaged; it named the files of {part.new}"
        elif told := missing(manifest, manifest_of(new)):
            yield f"{part.new}: {told}"


def _row(data: Path, plan: UserPlan) -> Iterator[str]:
    if plan.record is None:
        return
    registry = plan.record.registry
    if plan.user not in recorded_users(data / registry.database, registry.table, registry.slug):
        yield f"there is no row of {plan.user} in {data / registry.database}"
