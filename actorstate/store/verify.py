"""Whether all that a store holds is as it was written, and fits together. Nothing is changed.

Of each job: its state is loaded, its whole history replayed to that state, its row in the list compared
with its document; second copies, older keyframes and items are held against their digests.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from actorstate.core import codec
from actorstate.core.messages.replies import Keyframe
from actorstate.core.salvage import replayed
from actorstate.errors import CorruptJob
from actorstate.store.contract import StoredChange
from actorstate.store.index import index_of
from actorstate.store.view import BROKEN, View, items_of, state_of, stretches


@dataclass(frozen=True, slots=True)
class Examined:
    """One job: how much was read, and what is wrong with it."""

    job: str
    revision: int
    changes: int
    items: int
    deleted: bool
    faults: tuple[str, ...]


def examined(view: View, job: str) -> Examined:
    """One job looked at from all sides. Raises StoreFailed where the disk does not answer."""
    faults = list(view.faults(job))
    state, changes, items = Keyframe(0, None), 0, 0
    try:
        state = state_of(view, job)
        faults += _list_faults(view, job, state)
    except CorruptJob as error:
        faults.append(error.message)
    try:
        changes = _replayed_changes(view, job, state, faults)
    except CorruptJob as error:
        faults.append(error.message)
    for page in items_of(view, job):
        items += len(page)
        faults += [f"item {item.key!r} is damaged" for item in page if not item.body]
    return Examined(job, state.revision, changes, items, state.document is None, tuple(dict.fromkeys(faults)))


def _list_faults(view: View, job: str, state: Keyframe) -> Iterator[str]:
    row = view.row(job)
    if row is None:
        yield "it is not in the list of jobs"
    elif row.deleted != (state.document is None):
        yield f"the list says {'deleted' if row.deleted else 'there'}, its newest keyframe the opposite"
    elif state.document is not None and row.index != index_of(state.document):
        yield f"the list says {row.index.status!r} (kind {row.index.kind!r}), its document {state.document.status!r}"


def _replayed_changes(view: View, job: str, state: Keyframe, faults: list[str]) -> int:
    """How many changes there are; what they lead to must be the state."""
    count, reached = 0, Keyframe(0, None)
    for start, run in stretches(view, job):
        count += len(run)
        reached = _after(start, run) if not run or run[-1].revision >= state.revision else start
    if reached.revision == state.revision and reached.document != state.document:
        faults.append(f"its history leads to another state of revision {state.revision} than the stored one")
    return count


def _after(start: Keyframe, run: Sequence[StoredChange]) -> Keyframe:
    try:
        return replayed(start, (codec.decode_change(change.body) for change in run))
    except BROKEN as error:
        raise CorruptJob(f"its history does not fit together ({error!r})") from error
