"""Every store that there is, for the contract suite and the model tests, and short commits."""

import contextlib
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from actorstate.core.actor import Actor, Staged
from actorstate.store.contract import UNDATED, IndexRow, JobCommit, JobQuery, MemoryStore, Store, StoredChange
from actorstate.store.jsonfiles import JsonStore
from actorstate.store.sqlite import SqliteStore
from tests.support.core import Rehearsal

MakeStore = Callable[[Path], Store]

STORES: dict[str, MakeStore] = {
    "memory": lambda _folder: MemoryStore(),
    "sqlite": lambda folder: SqliteStore(folder / "jobs.sqlite"),
    "json": JsonStore,
}
DURABLE = {name: make for name, make in STORES.items() if name != "memory"}
"""Those that outlive the object."""

RUNNING = IndexRow("orders", "running", "healthy")
ENDED = IndexRow("orders", "completed", "")


@contextlib.contextmanager
def opened(store: Store, epoch: int = 1) -> Iterator[Store]:
    """The store as a writer of `epoch` has it."""
    store.open()
    try:
        if epoch:
            store.set_epoch(epoch)
        yield store
    finally:
        store.close()


def change(revision: int, body: bytes = b"") -> StoredChange:
    return StoredChange(revision, body or b"change %d" % revision)


def commit_of(
    job: str,
    *revisions: int,
    keyframe: bytes | None = None,
    index: IndexRow | None = RUNNING,
    deleted: bool = False,
) -> JobCommit:
    """One job's part of a commit, with a change for each of `revisions`."""
    changes = tuple(change(revision) for revision in revisions)
    return JobCommit(job, revisions[-1], changes, keyframe, None if deleted else index, deleted)


def every_job(store: Store, **query: object) -> list[str]:
    """All ids that match, page by page."""
    found: list[str] = []
    limit = 3
    while page := store.list_jobs(JobQuery(**query, after=found[-1] if found else "", limit=limit)):  # type: ignore[arg-type]
        assert len(page) <= limit
        found.extend(page)
    return found


def holdings(store: Store, *jobs: str) -> dict[str, object]:
    """All that a store shows of these jobs."""
    return {
        "listed": every_job(store),
        **{job: (store.load(job), store.changes(job, 0, 10_000)) for job in jobs},
    }


def part_of(actor: Actor, staged: Staged, at: datetime = UNDATED) -> JobCommit:
    """What the writer would commit of `staged`; the index row is always written anew."""
    document, first = staged.document, staged.revision - len(staged.changes) + 1
    return JobCommit(
        actor.job,
        staged.revision,
        tuple(StoredChange(first + place, body, at) for place, body in enumerate(staged.changes)),
        staged.keyframe,
        IndexRow(document.kind, document.status, document.health or "") if document else None,
        document is None,
    )


def stored(store: Store, rehearsal: Rehearsal, epoch: int = 1) -> None:
    """Commits what the rehearsal's actor has staged to a real store."""
    staged = rehearsal.actor.seal(rehearsal.now)
    if staged is not None:
        store.commit(epoch, [part_of(rehearsal.actor, staged, rehearsal.now.wall)])
    rehearsal.commit()


def loaded(store: Store, job: str) -> Actor:
    """The actor as the writer loads it."""
    held = store.load(job)
    actor = Actor(job)
    actor.restore(held.keyframe if held else None, held.changes if held else ())
    return actor
