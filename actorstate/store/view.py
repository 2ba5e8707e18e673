"""A store as an examination or a copy sees it: everything readable, nothing changed, beside a writer or without one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from actorstate.core import codec
from actorstate.core.messages.replies import Keyframe
from actorstate.core.salvage import replayed, whole_state
from actorstate.errors import ActorStateError, CorruptJob
from actorstate.store.contract import IndexRow, ItemQuery, StoredChange, StoredItem, StoredJob

PAGE = 1_000
BROKEN = (ActorStateError, KeyError, ValueError, TypeError, AttributeError)
"""What a replay of changes raises that do not belong together."""


@dataclass(frozen=True, slots=True)
class Row:
    """How a job is listed; a deleted one is not."""

    index: IndexRow
    deleted: bool


class Readable(Protocol):
    """What each store and each view of one can be asked."""

    def load(self, job: str) -> StoredJob | None:
        """See Store."""
        ...

    def changes(self, job: str, after_revision: int, limit: int) -> list[StoredChange]:
        """See Store."""
        ...

    def keyframe_at(self, job: str, revision: int) -> StoredChange | None:
        """See Store."""
        ...

    def list_items(self, job: str, query: ItemQuery) -> list[StoredItem]:
        """See Store."""
        ...


class View(Readable, Protocol):
    """Reads what a store holds. `load` gives the best that can be had where the newest copy is damaged."""

    def open(self) -> None:
        """Raises StoreError where nothing can be read."""
        ...

    def known_jobs(self) -> list[str]:
        """Ids of all jobs of which anything is left, deleted ones included, in order."""
        ...

    def row(self, job: str) -> Row | None:
        """How the job is listed; None when it is not in the list of jobs at all."""
        ...

    def faults(self, job: str) -> Iterator[str]:
        """Damage of this job that `load` and the history do not meet: second copies, older keyframes."""
        ...

    def general_faults(self) -> Iterator[str]:
        """Damage of the store as a whole."""
        ...

    def forget(self) -> None:
        """What was read may have been changed since by a writer: it is read anew."""
        ...

    def close(self) -> None:
        """Releases files."""
        ...


class Mender(Protocol):
    """Mends one job at a time where no writer runs; what cannot be read is kept aside, never deleted."""

    def mend(self, job: str, *, adopt: bool) -> str:
        """What was done, and what is lost. Raises ForeignEdit, unless the edit is to be adopted."""
        ...


def state_of(view: Readable, job: str) -> Keyframe:
    """All that is held of a job. Raises CorruptJob."""
    stored = view.load(job)
    if stored is None:
        raise CorruptJob(f"job {job!r} is listed and not stored", job=job)
    try:
        return whole_state(stored.keyframe, stored.changes)
    except BROKEN as error:
        raise CorruptJob(f"job {job!r}: its changes do not fit its keyframe ({error!r})", job=job) from error


def stretches(view: Readable, job: str) -> Iterator[tuple[Keyframe, Sequence[StoredChange]]]:
    """The history as pages of changes, each with the state that it begins at, in order.

    The state after a page is replayed only for the next one. Raises CorruptJob where a change follows nothing.
    """
    reached: Keyframe | None = None
    for run in _runs(view, job):
        first = run[0].revision
        if reached is None or first != reached.revision + 1:
            reached = _beginning(view, job, first)
        run = [change for change in run if change.revision > reached.revision]  # noqa: PLW2901 - a pruned history begins with the change that its keyframe holds
        yield reached, run
        try:
            reached = replayed(reached, (codec.decode_change(change.body) for change in run))
        except BROKEN as error:
            raise CorruptJob(f"job {job!r}: its history does not fit together ({error!r})", job=job) from error


def items_of(view: Readable, job: str) -> Iterator[list[StoredItem]]:
    """The job's ledger, page by page."""
    after = ""
    while page := view.list_items(job, ItemQuery(after=after, limit=PAGE)):
        yield page
        after = page[-1].key


def _runs(view: Readable, job: str) -> Iterator[list[StoredChange]]:
    """Pages of history without a gap in them."""
    after = 0
    while page := view.changes(job, after, PAGE):
        run: list[StoredChange] = []
        for change in page:
            if run and change.revision != run[-1].revision + 1:
                yield run
                run = []
            run.append(change)
        yield run
        after = page[-1].revision


def _beginning(view: Readable, job: str, revision: int) -> Keyframe:
    """What the change of this revision applies to, or what it made."""
    if revision == 1:
        return Keyframe(0, None)
    frame = view.keyframe_at(job, revision)
    if frame is None or frame.revision < revision - 1:
        raise CorruptJob(f"job {job!r}: nothing leads to revision {revision} of its history", job=job)
    return codec.decode_keyframe(frame.body)
