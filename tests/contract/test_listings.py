"""Lists of jobs: by time, unique key and expiry in every store; in SQLite always by an index."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from actorstate.store.contract import IndexRow, ItemQuery, JobCommit, JobQuery, Store
from actorstate.store.sqlite import SqliteStore
from actorstate.store.sqlite.items import items_listing
from actorstate.store.sqlite.listing import listing
from tests.support.stores import STORES, change, commit_of, every_job, opened


@pytest.fixture(params=list(STORES.values()), ids=list(STORES))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with opened(request.param(tmp_path)) as store:
        yield store


STATUSES, KINDS, HEALTHS = ("running", "completed"), ("orders", "files"), ("", "dead")
ROWS = {
    f"{name}-job": IndexRow(kind, status, health, created_at=1e9 + place * 7 % 5)
    for place, (name, (kind, status, health)) in enumerate(
        zip("hgfedcba", product(KINDS, STATUSES, HEALTHS), strict=True)
    )
}
"""Some of one age: there the id decides."""


def listed(store: Store, rows: dict[str, IndexRow]) -> None:
    store.commit(1, [JobCommit(job, 1, (change(1),), index=row) for job, row in rows.items()])


@pytest.mark.parametrize("status", [None, *STATUSES])
@pytest.mark.parametrize("kind", [None, *KINDS])
@pytest.mark.parametrize("health", [None, "dead"])
@pytest.mark.parametrize("limit", [1, 3, 100])
def test_the_newest_are_not_first_or_one_is_missing(
    store: Store, status: str | None, kind: str | None, health: str | None, limit: int
) -> None:
    listed(store, ROWS)
    wanted = {"status": status, "kind": kind, "health": health}
    fits = [job for job, row in ROWS.items() if all(v in (None, getattr(row, n)) for n, v in wanted.items())]
    expected = sorted(fits, key=lambda job: (ROWS[job].created_at, job), reverse=True)
    found: list[str] = []
    query = JobQuery(**wanted, newest=True, limit=limit)
    while page := store.list_jobs(replace(query, after=found[-1] if found else "")):
        found += page
    assert found == expected


def test_a_reader_of_the_newest_loses_his_place_when_a_job_is_deleted(store: Store) -> None:
    listed(store, {name: IndexRow("k", "s", "", 1e9 + place) for place, name in enumerate("abcde")})
    store.commit(1, [commit_of("d", 2, keyframe=b"t", deleted=True)])
    assert store.list_jobs(JobQuery(newest=True, after="d")) == ["c", "b", "a"]
    assert store.list_jobs(JobQuery(newest=True, after="none-such")) == []


def test_a_unique_key_finds_nobody_or_one_that_has_let_go(store: Store) -> None:
    listed(store, {"a": IndexRow("k", "running", "", unique_key="x"), "b": IndexRow("k", "running", "")})
    assert every_job(store, unique_key="x") == ["a"]
    assert every_job(store, unique_key="y") == []
    store.commit(1, [commit_of("a", 2, index=IndexRow("k", "completed", ""))])
    assert every_job(store, unique_key="x") == []
    store.commit(1, [commit_of("b", 2, index=IndexRow("k", "running", "", unique_key="x"))])
    assert every_job(store, unique_key="x") == ["b"]
    store.commit(1, [commit_of("b", 3, keyframe=b"t", deleted=True)])
    assert every_job(store, unique_key="x") == []


def test_a_job_expires_early_or_never(store: Store) -> None:
    at = {"a": 50.0, "b": None, "c": 20.0, "d": 90.0}
    listed(store, {job: IndexRow("k", "completed", "", expires_at=when) for job, when in at.items()})
    assert every_job(store, expired_at=19.9) == []
    assert every_job(store, expired_at=50.0) == ["a", "c"]
    assert every_job(store, expired_at=99.0) == ["a", "c", "d"]


JOB_QUERIES = [
    JobQuery(status=status, kind=kind, health=health, attached=attached, newest=newest, after=after)
    for status, kind, health, attached, newest, after in product(
        [None, "failed"], [None, "orders"], [None, "dead"], [False, True], [False, True], ["", "job-1"]
    )
] + [JobQuery(unique_key="x"), JobQuery(unique_key="x", after="a"), JobQuery(expired_at=1e9, after="a")]
ITEM_QUERIES = [ItemQuery(outcome, category) for outcome, category in product([None, "failed"], [None, "network"])]


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteStore]:
    with opened(SqliteStore(tmp_path_factory.mktemp("plans") / "jobs.sqlite")) as store:
        assert isinstance(store, SqliteStore)
        yield store


def plan(store: SqliteStore, sql: str, values: dict[str, object]) -> list[str]:
    return [detail for *_, detail in store._reading.execute(f"EXPLAIN QUERY PLAN {sql}", values)]


@pytest.mark.parametrize("query", JOB_QUERIES, ids=str)
def test_a_list_of_jobs_reads_the_whole_table(sqlite: SqliteStore, query: JobQuery) -> None:
    steps = plan(sqlite, *listing(query))
    assert not [step for step in steps if step.startswith("SCAN") and "USING" not in step], steps
    if query.health is None and not query.attached and query.expired_at is None:
        assert not [step for step in steps if "TEMP B-TREE" in step], steps
        unbounded = query.newest and not query.after and query.status is None and query.kind is None
        assert unbounded or any(step.startswith("SEARCH") for step in steps), steps


@pytest.mark.parametrize("query", ITEM_QUERIES, ids=str)
def test_a_page_of_items_reads_the_whole_ledger(sqlite: SqliteStore, query: ItemQuery) -> None:
    steps = plan(sqlite, *items_listing("job", query))
    reading = [step for step in steps if " items" in step]
    assert reading
    assert all(step.startswith("SEARCH items USING") for step in reading), steps
    assert all("key>?" in step for step in reading), steps
