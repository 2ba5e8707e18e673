"""The contract of `store/contract.py`, held against every store."""

from collections.abc import Container, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path

import pytest

from actorstate.core.messages.requests import Body, CreateJob, DeleteJob
from actorstate.errors import EpochFenced
from actorstate.store.contract import IndexRow, JobCommit, JobQuery, Store, StoredChange, StoredJob
from tests.support.core import JOB, START, Rehearsal, attach, counted
from tests.support.stores import (
    DURABLE,
    ENDED,
    RUNNING,
    STORES,
    MakeStore,
    change,
    commit_of,
    every_job,
    holdings,
    loaded,
    opened,
    stored,
)


@pytest.fixture(params=list(STORES.values()), ids=list(STORES))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with opened(request.param(tmp_path)) as store:
        yield store


@pytest.fixture(params=list(DURABLE.values()), ids=list(DURABLE))
def make_store(request: pytest.FixtureRequest) -> MakeStore:
    """A store that outlives the object: made twice in the same folder, it is the same store."""
    make: MakeStore = request.param
    return make


def test_an_empty_store_has_something(store: Store) -> None:
    assert store.load("a") is None
    assert store.changes("a", 0, 10) == []
    assert every_job(store) == []


def test_a_commit_is_not_there_afterwards(store: Store) -> None:
    store.commit(1, [commit_of("a", 1, 2), commit_of("b", 1)])
    assert store.load("a") == StoredJob(None, (b"change 1", b"change 2"))
    assert store.load("b") == StoredJob(None, (b"change 1",))
    assert store.load("c") is None


def test_changes_before_the_keyframe_are_loaded_again(store: Store) -> None:
    store.commit(1, [commit_of("a", 1)])
    store.commit(1, [commit_of("a", 2, 3, keyframe=b"frame 3")])
    assert store.load("a") == StoredJob(b"frame 3", ())
    store.commit(1, [commit_of("a", 4)])
    assert store.load("a") == StoredJob(b"frame 3", (b"change 4",))
    store.commit(1, [commit_of("a", 5, keyframe=b"frame 5")])
    assert store.load("a") == StoredJob(b"frame 5", ())


def test_a_keyframe_erases_the_history(store: Store) -> None:
    for revision in range(1, 8):
        store.commit(1, [commit_of("a", revision, keyframe=b"frame" if revision % 3 == 0 else None)])
    assert store.changes("a", 0, 100) == [change(revision) for revision in range(1, 8)]


@pytest.mark.parametrize(("after", "limit"), list(product([0, 1, 4, 9, 10, 99], [1, 3, 100])))
def test_a_page_of_history_begins_or_ends_elsewhere(store: Store, after: int, limit: int) -> None:
    store.commit(1, [commit_of("a", *range(1, 11)), commit_of("b", *range(1, 11))])
    expected = [change(revision) for revision in range(1, 11) if revision > after][:limit]
    assert store.changes("a", after, limit) == expected


def test_history_is_sorted_like_text(store: Store) -> None:
    store.commit(1, [commit_of("a", *range(1, 301))])
    assert [found.revision for found in store.changes("a", 0, 1_000)] == list(range(1, 301))
    assert store.load("a") == StoredJob(None, tuple(b"change %d" % revision for revision in range(1, 301)))


@pytest.mark.parametrize("body", [b"", b"\0", bytes(range(256)), b"x" * 10**6], ids=["empty", "nul", "all", "large"])
def test_bytes_change_on_the_disk(store: Store, body: bytes) -> None:
    store.commit(1, [JobCommit("a", 1, (StoredChange(1, body),), index=RUNNING)])
    store.commit(1, [JobCommit("b", 1, (StoredChange(1, b"x"),), keyframe=body, index=RUNNING)])
    assert store.load("a") == StoredJob(None, (body,))
    assert store.load("b") == StoredJob(body, ())


def test_one_job_reads_another_ones_changes(store: Store) -> None:
    names = ["a", "A", "a.", "a:b", "a-b", "a_b", "aa", "1", "01"]
    for place, name in enumerate(names):
        store.commit(1, [JobCommit(name, 1, (StoredChange(1, b"%d" % place),), index=RUNNING)])
    for place, name in enumerate(names):
        assert store.load(name) == StoredJob(None, (b"%d" % place,))
    assert every_job(store) == sorted(names)


KINDS = ("orders", "files")
STATUSES = ("running", "completed", "paused")
HEALTHS = ("", "healthy", "dead")
INDEX = {f"{n:02}-job": IndexRow(*row) for n, row in enumerate(product(KINDS, STATUSES, HEALTHS))}


@pytest.mark.parametrize("kind", [None, *KINDS, "none-such"])
@pytest.mark.parametrize("status", [None, *STATUSES])
@pytest.mark.parametrize("health", [None, "healthy", "dead"])
def test_a_list_misses_a_job_or_shows_another(
    store: Store, kind: str | None, status: str | None, health: str | None
) -> None:
    store.commit(1, [commit_of(job, 1, index=row) for job, row in INDEX.items()])
    wanted = (kind, status, health)

    def matches(row: IndexRow) -> bool:
        return all(want in (None, have) for want, have in zip(wanted, (row.kind, row.status, row.health), strict=True))

    expected = [job for job, row in INDEX.items() if matches(row)]
    assert every_job(store, kind=kind, status=status, health=health) == expected
    attached = [job for job in expected if INDEX[job].health]
    assert every_job(store, kind=kind, status=status, health=health, attached=True) == attached


@pytest.mark.parametrize("field", ["kind", "status", "health"])
def test_two_stores_understand_an_empty_filter_differently(tmp_path: Path, field: str) -> None:
    lists: list[list[str]] = []
    for make in STORES.values():
        with opened(make(tmp_path)) as store:
            store.commit(1, [commit_of(job, 1, index=row) for job, row in INDEX.items()])
            lists.append(every_job(store, **{field: ""}))
    assert lists[1:] == lists[:-1]


def test_a_job_is_listed_as_it_was(store: Store) -> None:
    store.commit(1, [commit_of("a", 1)])
    store.commit(1, [commit_of("a", 2, index=ENDED)])
    store.commit(1, [commit_of("a", 3, index=None)])
    assert every_job(store, status="running") == []
    assert every_job(store, status="completed") == ["a"]
    assert every_job(store, attached=True) == []


def test_a_page_begins_at_a_job_that_is_gone(store: Store) -> None:
    store.commit(1, [commit_of(name, 1) for name in "abcdef"])
    store.commit(1, [commit_of("c", 2, keyframe=b"t", deleted=True)])
    assert store.list_jobs(JobQuery(after="c", limit=2)) == ["d", "e"]
    assert store.list_jobs(JobQuery(after="bb", limit=2)) == ["d", "e"]
    assert store.list_jobs(JobQuery(after="f")) == []
    assert store.list_jobs(JobQuery(limit=1)) == ["a"]


def test_a_deleted_job_is_still_there(store: Store) -> None:
    store.commit(1, [commit_of("a", 1, 2, keyframe=b"frame 2"), commit_of("b", 1)])
    store.commit(1, [commit_of("a", 3, keyframe=b"tombstone", deleted=True)])
    assert every_job(store) == ["b"]
    assert store.changes("a", 0, 100) == []
    assert store.load("a") == StoredJob(b"tombstone", ())


def test_a_new_job_inherits_from_the_dead_one(store: Store) -> None:
    store.commit(1, [commit_of("a", 1, 2, keyframe=b"frame 2", index=ENDED)])
    store.commit(1, [commit_of("a", 3, keyframe=b"tombstone", deleted=True)])
    store.commit(1, [commit_of("a", 4, 5, index=RUNNING)])
    assert store.load("a") == StoredJob(b"tombstone", (b"change 4", b"change 5"))
    assert store.changes("a", 0, 100) == [change(4), change(5)]
    assert every_job(store, status="running") == ["a"]
    store.commit(1, [commit_of("a", 6, keyframe=b"tombstone 6", deleted=True)])
    assert store.load("a") == StoredJob(b"tombstone 6", ())
    assert every_job(store) == []


def test_a_job_created_and_deleted_in_one_commit_loses_its_tombstone(store: Store) -> None:
    store.commit(1, [commit_of("a", 1, 2, keyframe=b"tombstone", deleted=True)])
    assert store.load("a") == StoredJob(b"tombstone", ())


def test_a_job_is_lost_whose_forerunner_was_created_and_deleted_in_one_commit(store: Store) -> None:
    """Its revisions begin again, below the tombstone: what is acknowledged is not there at the next load."""
    rehearsal = Rehearsal()
    for body in (CreateJob(JOB), DeleteJob(JOB)):
        rehearsal.propose(rehearsal.request(body))
    stored(store, rehearsal)
    rehearsal.actor = loaded(store, JOB)
    rehearsal.propose(rehearsal.request(CreateJob(JOB, total=7)))
    stored(store, rehearsal)
    assert loaded(store, JOB).document == rehearsal.document


def test_a_commit_of_another_epoch_is_written(store: Store) -> None:
    store.commit(1, [commit_of("a", 1)])
    store.set_epoch(5)
    before = holdings(store, "a", "b")
    for epoch in (0, 1, 4, 6):
        with pytest.raises(EpochFenced):
            store.commit(epoch, [commit_of("a", 2), commit_of("b", 1)])
    assert holdings(store, "a", "b") == before
    assert store.epoch() == 5
    store.commit(5, [commit_of("a", 2)])
    assert store.load("a") == StoredJob(None, (b"change 1", b"change 2"))


def test_an_empty_commit_is_refused_or_not_fenced(store: Store) -> None:
    store.commit(1, [])
    with pytest.raises(EpochFenced):
        store.commit(2, [])


def test_a_hundred_jobs_in_one_commit_lose_one(store: Store) -> None:
    jobs = [f"job-{n:03}" for n in range(100)]
    store.commit(1, [commit_of(job, *range(1, 1 + n % 7 + 1)) for n, job in enumerate(jobs)])
    assert every_job(store) == jobs
    for n, job in enumerate(jobs):
        assert len(store.changes(job, 0, 100)) == n % 7 + 1


def test_a_real_job_comes_back_as_another(store: Store) -> None:
    rehearsal = Rehearsal()
    bodies: list[Body] = [CreateJob(JOB, total=500), attach("w"), *(counted(1) for _ in range(300))]
    for body in bodies:
        rehearsal.seconds += 1
        rehearsal.propose(rehearsal.request(body))
        if rehearsal.seconds % 7 == 0:
            stored(store, rehearsal)
    stored(store, rehearsal)
    assert store.load(JOB) == StoredJob(rehearsal.shelf.keyframe, tuple(rehearsal.shelf.changes))
    assert loaded(store, JOB).encoded() == rehearsal.actor.encoded()
    assert [found.revision for found in store.changes(JOB, 0, 1_000)] == list(range(1, 303))


def test_a_store_forgets_when_it_is_opened_again(make_store: MakeStore, tmp_path: Path) -> None:
    with opened(make_store(tmp_path), epoch=3) as store:
        store.commit(3, [commit_of("a", 1, 2, keyframe=b"frame"), commit_of("b", 1), commit_of("c", 1)])
        store.commit(3, [commit_of("a", 3), commit_of("c", 2, keyframe=b"tombstone", deleted=True)])
        before = holdings(store, "a", "b", "c", "d")
    for _ in range(2):
        with opened(make_store(tmp_path), epoch=0) as store:
            assert holdings(store, "a", "b", "c", "d") == before
            assert store.epoch() == 3


def test_an_older_writer_goes_on_beside_its_successor(make_store: MakeStore, tmp_path: Path) -> None:
    with opened(make_store(tmp_path), epoch=1) as old, opened(make_store(tmp_path), epoch=2) as new:
        new.commit(2, [commit_of("a", 1)])
        with pytest.raises(EpochFenced):
            old.commit(1, [commit_of("b", 1)])
        assert every_job(new) == ["a"]
        new.commit(2, [commit_of("a", 2)])


def test_a_store_that_was_never_closed_loses_what_it_promised(make_store: MakeStore, tmp_path: Path) -> None:
    abandoned = make_store(tmp_path)
    abandoned.open()
    abandoned.set_epoch(1)
    abandoned.commit(1, [commit_of("a", 1)])
    with opened(make_store(tmp_path), epoch=2) as store:
        assert store.load("a") == StoredJob(None, (b"change 1",))
    abandoned.close()


def test_the_commit_does_not_say_how_long_the_disk_took(store: Store) -> None:
    store.commit(1, [commit_of("a", 1)])
    assert 0 <= store.sync_s < 60


def test_a_job_that_is_loaded_while_it_is_committed_is_torn(make_store: MakeStore, tmp_path: Path) -> None:
    """`commit` may run in another thread: what is loaded meanwhile is some committed state, and looks whole."""
    with opened(make_store(tmp_path)) as store, ThreadPoolExecutor(1) as beside:
        store.commit(1, [commit_of("a", 1)])
        committing = beside.submit(commit_on, store, 400)
        seen = [last_revision(store)]
        while not committing.done():
            seen.append(last_revision(store))
        committing.result()
        assert seen == sorted(seen)
        assert last_revision(store) == 400
    assert len(set(seen)) > 3, "nothing was loaded while something was committed"


def commit_on(store: Store, last: int) -> None:
    for revision in range(2, last + 1):
        frame = b"frame %d" % revision if revision % 5 == 0 else None
        store.commit(1, [commit_of("a", revision, keyframe=frame)])


def last_revision(store: Store) -> int:
    """The revision up to which a job is loaded; its changes must follow its keyframe."""
    held = store.load("a")
    assert held is not None
    since = int(held.keyframe.split()[1]) if held.keyframe else 0
    revisions = [int(body.split()[1]) for body in held.changes]
    assert revisions == list(range(since + 1, since + 1 + len(revisions)))
    return since + len(revisions)


# History


def minutes(number: float) -> datetime:
    return START + timedelta(minutes=number)


def dated(store: Store, job: str, frames: Container[int], times: Sequence[float], first: int = 1) -> None:
    """A change at each of these minutes, and a keyframe at each revision of `frames`."""
    for revision, minute in enumerate(times, first):
        made = StoredChange(revision, b"change %d" % revision, minutes(minute))
        frame = b"frame %d" % revision if revision in frames else None
        store.commit(1, [JobCommit(job, revision, (made,), frame, RUNNING)])


def beginnings(store: Store, job: str, last: int) -> list[int]:
    """Where the replay of each revision begins."""
    found = [store.keyframe_at(job, revision) for revision in range(1, last + 1)]
    assert all(frame is None or frame.body == b"frame %d" % frame.revision for frame in found)
    return [frame.revision if frame else 0 for frame in found]


def test_a_replay_begins_at_a_later_keyframe(store: Store) -> None:
    dated(store, "a", {3, 5, 6}, range(8))
    dated(store, "b", {1, 2}, range(8))
    assert beginnings(store, "a", 8) == [0, 0, 3, 3, 5, 6, 6, 6]
    assert store.oldest("a") == 1
    assert (store.oldest("none"), store.keyframe_at("none", 9), store.revision_at("none", START)) == (0, None, 0)


def test_a_change_comes_back_with_another_time(store: Store) -> None:
    at = datetime(2038, 1, 19, 3, 14, 8, 999_999, tzinfo=UTC)
    store.commit(1, [JobCommit("a", 1, (StoredChange(1, b"x", at),), index=RUNNING)])
    assert store.changes("a", 0, 1) == [StoredChange(1, b"x", at)]


CLOCKS = {
    "steady": [*range(12)],
    "standing still": [5] * 12,
    "an hour back in between": [100, 101, 102, 103, 41, 42, 43, 44, 45, 104, 105, 106],
    "an hour ahead in between": [0, 1, 62, 63, 2, 3, 4, 65, 5, 6, 7, 8],
    "running backwards": [*range(12, 0, -1)],
}


@pytest.mark.parametrize("frames", [set(), {1}, {4, 8}, {12}, set(range(1, 13))], ids=str)
@pytest.mark.parametrize("clock", CLOCKS)
def test_a_moment_leads_to_another_revision_than_the_last_before_it(store: Store, clock: str, frames: set[int]) -> None:
    times = CLOCKS[clock]
    dated(store, "a", frames, times)
    dated(store, "b", {2, 3}, [0, 1, 2, 3])
    for minute in (-1, *times, *(time + 0.5 for time in times)):
        expected = max((revision for revision, time in enumerate(times, 1) if time <= minute), default=0)
        assert store.revision_at("a", minutes(minute)) == expected


def forgotten(store: Store, job: str, *, keep: int = 99, before: float = -99) -> int:
    """How many stretches can be forgotten."""
    stretches = 0
    while store.prune(1, job, keep, minutes(before)):
        stretches += 1
        assert stretches < 99
    return stretches


@pytest.mark.parametrize(
    ("keep", "before", "stretches", "oldest"),
    [
        (99, -99, 0, 1),
        (10, -99, 0, 1),
        (9, -99, 1, 4),
        (6, -99, 1, 4),
        (5, -99, 2, 8),
        (0, -99, 2, 8),
        (99, 2, 0, 1),
        (99, 2.5, 1, 4),
        (99, 3, 1, 4),
        (99, 99, 2, 8),
        (8, 7, 2, 8),
    ],
)
def test_more_is_forgotten_than_may_be_or_less(
    store: Store, keep: int, before: float, stretches: int, oldest: int
) -> None:
    dated(store, "a", {4, 8, 10}, range(12))
    dated(store, "b", {4, 8, 10}, range(12))
    others, present = holdings(store, "b"), store.load("a")
    assert forgotten(store, "a", keep=keep, before=before) == stretches
    assert store.oldest("a") == oldest
    assert [change.revision for change in store.changes("a", 0, 99)] == list(range(oldest, 13))
    assert beginnings(store, "a", 12)[oldest - 1 :] == [0, 0, 0, 4, 4, 4, 4, 8, 8, 10, 10, 10][oldest - 1 :]
    assert store.load("a") == present
    assert {name: held for name, held in holdings(store, "b").items() if name != "listed"} == {"b": others["b"]}


def test_the_only_copy_is_forgotten(store: Store) -> None:
    """Up to the newest keyframe the changes are its second copy."""
    dated(store, "a", {3}, range(5))
    dated(store, "b", {1, 5}, range(5))
    dated(store, "c", set(), range(5))
    assert [forgotten(store, job, keep=0, before=99) for job in ("a", "b", "c", "none")] == [0, 0, 0, 0]


def test_what_a_fast_clock_has_dated_is_forgotten_too_early(store: Store) -> None:
    dated(store, "a", {4, 8, 10}, [0, 1, 90, 2, 3, 4, 5, 6, 7, 8, 9])
    assert forgotten(store, "a", before=50) == 0
    assert forgotten(store, "a", before=91) == 2


@pytest.mark.parametrize("clock", CLOCKS)
def test_after_forgetting_a_moment_leads_elsewhere(store: Store, clock: str) -> None:
    times = CLOCKS[clock]
    dated(store, "a", {4, 8, 10}, times)
    assert forgotten(store, "a", keep=len(times) - 4 + 1) == 1
    for minute in (-1, *times):
        kept = [revision for revision, time in enumerate(times, 1) if time <= minute and revision >= 4]
        assert store.revision_at("a", minutes(minute)) == max(kept, default=0)
    dated(store, "a", {13}, [200, 201], first=13)
    assert store.revision_at("a", minutes(200.5)) == 13


def test_a_deleted_jobs_past_is_read_for_its_successors(store: Store) -> None:
    dated(store, "a", {2}, range(4))
    store.commit(1, [commit_of("a", 5, keyframe=b"frame 5", deleted=True)])
    assert (store.oldest("a"), store.revision_at("a", minutes(99))) == (0, 0)
    dated(store, "a", {7, 9}, range(10, 15), first=6)
    assert store.oldest("a") == 6
    assert beginnings(store, "a", 10)[4:] == [5, 5, 7, 7, 9, 9]
    assert store.revision_at("a", minutes(5)) == 0
    assert forgotten(store, "a", keep=0) == 1
    assert (store.oldest("a"), store.revision_at("a", minutes(99))) == (7, 10)


def test_an_older_writer_forgets_what_its_successor_keeps(store: Store) -> None:
    dated(store, "a", {4, 8, 10}, range(12))
    store.set_epoch(2)
    with pytest.raises(EpochFenced):
        store.prune(1, "a", 0, minutes(99))
    assert store.oldest("a") == 1


def test_what_is_committed_after_forgetting_is_lost(make_store: MakeStore, tmp_path: Path) -> None:
    with opened(make_store(tmp_path)) as store:
        dated(store, "a", {4, 8, 10}, range(12))
        assert forgotten(store, "a", keep=0) == 2
        dated(store, "a", {13}, [20, 21], first=13)
        before = holdings(store, "a"), store.oldest("a")
    with opened(make_store(tmp_path), epoch=0) as store:
        assert (holdings(store, "a"), store.oldest("a")) == before
