"""Carries a migration of items out under its job, or goes on with it: the same call does both."""

from collections.abc import Generator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import Unpack, cast

from actorstate.client.options import JobOptions
from actorstate.client.run import Run
from actorstate.client.sync import Client
from actorstate.core.messages.document import JobState
from actorstate.core.plain import time_text
from actorstate.errors import AlreadyAttached, Conflict
from actorstate.migrate.items.course import Course
from actorstate.migrate.items.deletion import delete_missing, deleted_in
from actorstate.migrate.items.mapping import remembered
from actorstate.migrate.items.rules import Migration

KIND = "migrate-items"
UNIT = "items"
FIXED = ("mode", "duplicateBehavior", "sourceMatchField", "fieldMapping")
"""What cannot change while a part of the items is done; the mapping may, for items that are done once more."""


def migrate_items(
    client: Client,
    migration: Migration,
    *,
    retry: str | None = None,
    again: bool = False,
    by: str = "",
    **options: Unpack[JobOptions],
) -> JobState:
    """Migrates the items, and returns the job when it has ended or was cancelled; called again it goes on.

    A job that has failed or was cancelled gets a new attempt from where it was; of one that is completed there is
    nothing left to do, unless it is to be done `again` from the first item, or its failed items of the category
    `retry` once more. One process at a time (AlreadyAttached). SIGTERM ends it after its batch, to be resumed.
    Raises BadRequest for fields that do not fit, Conflict for other rules than it began with, JobNotFound where there
    is none to `retry`, SourceUnreadable, TargetFailed, and ItemRefused where it is to stop at the first error.
    """
    migration.check()
    if retry is not None:
        client.get(migration.job)
    meta = _told(migration)
    state = client.create(migration.job, kind=KIND, total=migration.total(), unit=UNIT, meta=meta, **options)
    if not again:
        _check_same(state, migration, retry)
    deletes = migration.rules.delete_missing and deleted_in(state) is None
    if not _reopened(client, state, retry, again=again, deletes=deletes, by=by):
        return state
    with _attached(client, migration.job) as run, closing(Course(client, run, migration)) as course:
        _carry_out(client, migration, run, course)
    return client.get(migration.job)


@contextmanager
def _attached(client: Client, job: str) -> Generator[Run]:
    try:
        with client.run(job, kind=KIND) as run:
            yield run
    except AlreadyAttached as error:
        hint = f"wait for it, or end it and type the same line again; how far it is: actorstate watch DIR {job}"
        raise AlreadyAttached(error.message, hint=hint, **error.details) from None


def _carry_out(client: Client, migration: Migration, run: Run, course: Course) -> None:
    state = client.get(migration.job)
    _note_rules(state, migration, run)
    done = {step.name for step in state.steps if step.status == "done"}
    if "copy" not in done:
        run.progress(total=migration.total())
        run.step("copy")
        course.copy(_told_before(client, state))
        run.step("copy", "done")
    run.flush()
    if client.get(migration.job).progress.retrying:
        course.retry()
    if migration.rules.delete_missing and "delete" not in done:
        delete_missing(migration, run)


def _told_before(client: Client, state: JobState) -> frozenset[str]:
    """What the ledger has from former attempts, but for what has succeeded."""
    if not state.attempts:
        return frozenset()
    return frozenset(item.key for item in client.items(state.id) if item.outcome != "succeeded")


def _reopened(client: Client, state: JobState, retry: str | None, *, again: bool, deletes: bool, by: str) -> bool:
    """Whether there is something to do; opens a new attempt where the former has ended."""
    if again:
        client.retry(state.id, from_start=True, by=by)
    elif retry is not None:
        client.retry(state.id, where=retry, by=by)
    elif state.finished:
        if state.status == "completed" and not state.progress.retrying and not deletes:
            return False
        client.retry(state.id, by=by)
    return True


def _told(migration: Migration) -> dict[str, object]:
    names = {"source": migration.source_name, "target": migration.target_name}
    told = {name: value for name, value in {**migration.rules.told(), **names}.items() if value not in ("", None)}
    note = "as it began"
    return {**told, "fieldMappingHistory": remembered((), migration.rules.mapping, _now(), note)}


def _check_same(state: JobState, migration: Migration, retry: str | None) -> None:
    """Raises Conflict where one part of the items would be migrated otherwise than the rest."""
    began, now = state.meta, migration.rules.told()
    fixed = FIXED if retry is None else FIXED[:-1]
    if other := [name for name in fixed if began.get(name) != now[name]]:
        told = ", ".join(f"{name} {began.get(name)!r} (now {now[name]!r})" for name in other)
        raise Conflict(
            f"job {state.id!r} began with {told}",
            hint="give the same, or another --job; when it has ended: --again does all items anew",
            job=state.id,
        )


def _note_rules(state: JobState, migration: Migration, run: Run) -> None:
    """What has changed since; a mapping that was changed for a retry goes into the job's history of mappings."""
    began, mapping = state.meta, migration.rules.mapping
    changed = {name: value for name, value in migration.rules.told().items() if began.get(name) != value}
    if "fieldMapping" in changed:
        history = cast("list[object]", began.get("fieldMappingHistory") or [])
        changed["fieldMappingHistory"] = remembered(history, mapping, _now(), f"from attempt {state.attempt} on")
    if changed:
        run.meta(**changed)


def _now() -> str:
    return time_text(datetime.now(UTC))
