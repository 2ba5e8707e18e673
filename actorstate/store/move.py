"""A job from one store to another: its state, exactly-once records, history and items, and the proof that all came.

Copied in pages, each a commit of the target with a keyframe, so that a copy that was killed goes on after
its last page. The newest keyframe is the source's own state; those before it are made by replay, which must
lead to that state. A job is moved when its `fingerprint` is the same on both sides.
"""

from collections.abc import Iterator
from hashlib import blake2b

from actorstate.core import codec
from actorstate.core.messages.replies import Keyframe
from actorstate.core.salvage import canonical, replayed, whole_state, without_receipts
from actorstate.errors import CorruptJob
from actorstate.store.contract import JobCommit, Store, StoredChange
from actorstate.store.index import index_of
from actorstate.store.view import Readable, View, items_of, state_of, stretches

PAGE = 1_000


def fingerprint(view: Readable, job: str) -> str:
    """BLAKE2b over all of a job: canonical state with its receipts, every change with its time, every item."""
    signed = blake2b(canonical(state_of(view, job)), digest_size=16)
    after = 0
    while page := view.changes(job, after, PAGE):
        for change in page:
            told = f"{change.revision} {change.at.isoformat()} {len(change.body)} "
            signed.update(told.encode() + change.body)
        after = page[-1].revision
    for items in items_of(view, job):
        for item in items:
            signed.update(repr((item.key, item.outcome, item.category, item.body)).encode())
    return signed.hexdigest()


def move_job(source: View, target: Store, epoch: int, job: str) -> bool:
    """Copies what the target lacks of a job and compares both; whether anything was lacking. Raises CorruptJob."""
    wanted = fingerprint(source, job)
    if target.load(job) is not None and fingerprint(target, job) == wanted:
        return False
    state = state_of(source, job)
    for part in _parts(source, job, state, _reached(target, job)):
        target.commit(epoch, [part])
    for items in items_of(source, job):
        target.commit(epoch, [JobCommit(job, state.revision, (), items=tuple(items))])
    if fingerprint(target, job) != wanted:
        raise CorruptJob(f"job {job!r}: what was copied is not what was read", job=job)
    return True


def _reached(target: Store, job: str) -> int:
    stored = target.load(job)
    return 0 if stored is None else whole_state(stored.keyframe, stored.changes).revision


def _parts(source: View, job: str, state: Keyframe, reached: int) -> Iterator[JobCommit]:
    """The commits that lead the target from `reached` to the source's state."""
    if reached >= state.revision:
        return
    if state.document is None:
        yield JobCommit(job, state.revision, (), codec.encode(state), deleted=True)
        return
    index, newest = index_of(state.document), tuple[StoredChange, ...]()
    for start, run, end in _pages(source, job):
        lacking = tuple(change for change in run if change.revision > reached)
        if end >= state.revision:
            newest = lacking
        elif end > reached:
            after = replayed(start, (codec.decode_change(each.body) for each in run if each.revision > start.revision))
            yield JobCommit(job, end, lacking, codec.encode(without_receipts(after)), index)
    yield JobCommit(job, state.revision, newest, codec.encode(state), index)


def _pages(source: View, job: str) -> Iterator[tuple[Keyframe, tuple[StoredChange, ...], int]]:
    """The history in pages: where each begins, its changes, the revision that it leads to.

    Where a keyframe stands that nothing before it leads to, it is a page with its own change, if that is kept.
    """
    end = 0
    for start, run in stretches(source, job):
        if start.revision > end:
            own = source.changes(job, start.revision - 1, 1)
            end = start.revision
            yield start, tuple(change for change in own if change.revision == end), end
        if run:
            end = run[-1].revision
            yield start, tuple(run), end
