"""The item ledger's part of `store/contract.py`, held against every store."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from actorstate.errors import EpochFenced
from actorstate.store.contract import ItemQuery, JobCommit, Store, StoredItem
from tests.support.stores import DURABLE, STORES, MakeStore, commit_of, opened

OUTCOMES = ("failed", "skipped", "duplicate", "succeeded", "retrying")
CATEGORIES = ("", "network", "validation")


@pytest.fixture(params=list(STORES.values()), ids=list(STORES))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with opened(request.param(tmp_path)) as store:
        yield store


def an_item(key: str, outcome: str = "failed", category: str = "network", body: bytes = b"") -> StoredItem:
    return StoredItem(key, outcome, category, body or f"{key} {outcome} {category}".encode())


def keep(store: Store, job: str, revision: int, *items: StoredItem) -> None:
    """A commit of one job with these items."""
    part = commit_of(job, revision)
    store.commit(1, [JobCommit(job, revision, part.changes, index=part.index, items=items)])


def every_item(store: Store, job: str, *, limit: int = 3, **query: str | None) -> list[StoredItem]:
    """All that match, page by page."""
    found: list[StoredItem] = []
    while page := store.list_items(job, ItemQuery(**query, after=found[-1].key if found else "", limit=limit)):
        assert len(page) <= limit
        found += page
    return found


def test_a_job_without_items_has_some(store: Store) -> None:
    store.commit(1, [commit_of("a", 1)])
    for job in ("a", "none-such"):
        assert store.list_items(job, ItemQuery()) == []
        assert store.find_items(job, ["k"]) == {}


def test_an_item_is_not_there_after_its_commit(store: Store) -> None:
    keep(store, "a", 1, an_item("k-1"), an_item("k-2", "skipped", ""))
    assert every_item(store, "a") == [an_item("k-1"), an_item("k-2", "skipped", "")]
    assert store.find_items("a", ["k-2", "k-3"]) == {"k-2": b"k-2 skipped "}


def test_an_item_stands_twice_or_where_it_was(store: Store) -> None:
    keep(store, "a", 1, an_item("k"), an_item("l"))
    keep(store, "a", 2, an_item("k", "retrying"))
    keep(store, "a", 3, an_item("k", "succeeded", "validation", b"new"))
    assert every_item(store, "a") == [an_item("k", "succeeded", "validation", b"new"), an_item("l")]
    assert every_item(store, "a", outcome="failed") == [an_item("l")]
    assert every_item(store, "a", category="network") == [an_item("l")]
    assert store.find_items("a", ["k"]) == {"k": b"new"}


ITEMS = [
    an_item(f"{n:02}", outcome, category)
    for n, (outcome, category) in enumerate(list(product(OUTCOMES, CATEGORIES)) * 2)
]


@pytest.mark.parametrize("outcome", [None, *OUTCOMES, "none-such"])
@pytest.mark.parametrize("category", [None, *CATEGORIES, "none-such"])
@pytest.mark.parametrize("limit", [1, 4, 1_000])
def test_a_page_of_items_misses_one_or_shows_another(
    store: Store, outcome: str | None, category: str | None, limit: int
) -> None:
    keep(store, "a", 1, *reversed(ITEMS))
    keep(store, "b", 1, an_item("00", body=b"another job's"))
    expected = [item for item in ITEMS if outcome in {None, item.outcome} and category in {None, item.category}]
    assert every_item(store, "a", outcome=outcome, category=category, limit=limit) == expected


def test_keys_are_sorted_differently_from_one_store_to_the_next(store: Store) -> None:
    keys = ["", "0", "10", "9", "A", "a", "a b", "a\0b", "aé", "é", "~", "ﷺ", "𝄞", "x" * 256]
    keep(store, "a", 1, *(an_item(key) for key in keys))
    expected = sorted(keys, key=str.encode)
    assert [""] + [item.key for item in every_item(store, "a")] == expected
    assert store.find_items("a", keys) == {key: an_item(key).body for key in keys}


def test_a_thousand_items_in_one_commit_lose_one(store: Store) -> None:
    items = [an_item(f"{number:05}", body=b"x" * 100) for number in range(3_500)]
    keep(store, "a", 1, *items)
    assert every_item(store, "a", limit=1_000) == items
    assert len(store.find_items("a", [item.key for item in items])) == 3_500


def test_a_deleted_job_leaves_its_items_to_the_next_one(store: Store) -> None:
    keep(store, "a", 1, an_item("k"))
    keep(store, "b", 1, an_item("k"))
    store.commit(1, [commit_of("a", 2, keyframe=b"tombstone", deleted=True)])
    assert every_item(store, "a") == []
    keep(store, "a", 3, an_item("l"))
    assert every_item(store, "a") == [an_item("l")]
    assert every_item(store, "b") == [an_item("k")]


def test_items_of_a_job_that_is_deleted_in_the_same_commit_stay(store: Store) -> None:
    part = commit_of("a", 1, 2, keyframe=b"tombstone", deleted=True)
    store.commit(1, [JobCommit("a", 2, part.changes, part.keyframe, deleted=True, items=(an_item("k"),))])
    assert every_item(store, "a") == []


def test_items_of_a_refused_commit_are_written(store: Store) -> None:
    part = commit_of("a", 1)
    with pytest.raises(EpochFenced):
        store.commit(9, [JobCommit("a", 1, part.changes, items=(an_item("k"),))])
    assert every_item(store, "a") == []


@pytest.mark.parametrize("make", list(DURABLE.values()), ids=list(DURABLE))
def test_the_ledger_is_forgotten_when_the_store_is_opened_again(make: MakeStore, tmp_path: Path) -> None:
    with opened(make(tmp_path)) as store:
        keep(store, "a", 1, *ITEMS)
    with opened(make(tmp_path), epoch=0) as store:
        assert every_item(store, "a") == ITEMS
