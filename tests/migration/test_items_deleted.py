"""Deleting in the target what the source does not have: only what was shown and approved goes."""

from pathlib import Path

import pytest

from actorstate.client.sync import Client
from actorstate.errors import BadRequest, SourceUnreadable
from actorstate.migrate.items import deletion
from actorstate.migrate.items.comparison import previewed
from actorstate.migrate.items.deletion import frozen
from tests.support.items import (
    EXPECTED,
    Beside,
    Service,
    asked,
    killed_in,
    members,
    migrate,
    migrating,
    people,
    service,
)
from tests.support.migration import typed
from tests.support.processes import client, job, served, until
from tests.support.writer import WriterProcess

__all__ = ["client", "job", "people", "served", "service"]

GONE = [(n, f"gone {n}", 1.0, None) for n in range(101, 113)]


def add_gone(folder: Path) -> None:
    asked(folder, "INSERT INTO members " + " UNION ALL ".join(f"SELECT {n}, '{name}', 1, NULL" for n, name, *_ in GONE))


def waiting(client: Client, job: str, beside: Beside | None = None) -> str:
    if beside is not None:
        beside.reached("frozen")
    state = until(client, job, lambda state: state.status == "waiting")
    assert state.approval is not None
    return state.approval.question


def test_something_is_deleted_that_nobody_has_approved(
    served: WriterProcess, client: Client, people: Path, job: str
) -> None:
    add_gone(people)
    with migrating(people, job, delete_missing=True) as migration:
        assert previewed(migration).surplus == 12
    beside = Beside(lambda: migrate(client, people, job, delete_missing=True))
    question = waiting(client, job, beside)
    assert question.startswith("delete 12 items of members that people does not have (set ")
    assert "101, 102" in question
    assert frozen(client.get(job)) == ([str(row[0]) for row in GONE], 0)
    assert members(people) == EXPECTED + GONE, "deleted before it was approved"
    asked(people, "INSERT INTO members VALUES (200, 'came later', 1, NULL)")
    told = typed("approve", served.directory, job, "--by", "ann", "--yes")
    assert told.returncode == 0, told.stderr
    beside.result()
    assert members(people) == [*EXPECTED, (200, "came later", 1.0, None)]
    state = client.get(job)
    assert (state.status, state.steps[1].name, state.steps[1].data) == (
        "completed",
        "delete",
        {"approved": 12, "deleted": 12, "left": 0},
    )
    assert state.progress.processed == 20


def test_an_item_that_came_back_is_deleted(client: Client, people: Path, job: str) -> None:
    add_gone(people)
    beside = Beside(lambda: migrate(client, people, job, "jsonl", delete_missing=True))
    waiting(client, job, beside)
    with (people / "people.jsonl").open("a") as file:
        file.write('{"id": 105, "name": "back", "age": 1}\n')
    client.approve(job)
    beside.result()
    assert [row[0] for row in members(people) if row[0] > 100] == [105]
    assert client.get(job).steps[1].data == {"approved": 12, "deleted": 11, "left": 0}


def test_more_than_a_job_remembers_is_forgotten_in_silence(
    client: Client, people: Path, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletion, "PIECE_BYTES", 20)
    add_gone(people)
    beside = Beside(lambda: migrate(client, people, job, delete_missing=True))
    question = waiting(client, job, beside)
    assert question.startswith("delete 8 items")
    assert "; 4 more are left for another time)" in question
    client.approve(job)
    beside.result()
    assert client.get(job).steps[1].data == {"approved": 8, "deleted": 8, "left": 4}
    assert members(people) == EXPECTED + GONE[8:]


def test_a_cancelled_deletion_deletes(client: Client, people: Path, job: str) -> None:
    add_gone(people)
    beside = Beside(lambda: migrate(client, people, job, delete_missing=True))
    waiting(client, job, beside)
    client.cancel(job)
    beside.result()
    assert client.get(job).status == "cancelled"
    assert members(people) == EXPECTED + GONE


@pytest.mark.parametrize("point", ["frozen", "deleted"])
def test_a_kill_forgets_what_was_approved(
    served: WriterProcess, client: Client, people: Path, job: str, point: str
) -> None:
    add_gone(people)
    with killed_in(
        served, people, job, point=point, number=2 if point == "deleted" else 1, delete_missing=True
    ) as child:
        if point == "deleted":
            while child.read() != "frozen":
                pass
            waiting(client, job)
            client.approve(job, by="ann")
        assert child.wait() < 0, child.errors()
    found = frozen(client.get(job))
    asked(people, "INSERT INTO members VALUES (200, 'came later', 1, NULL)")
    beside = Beside(lambda: migrate(client, people, job, delete_missing=True))
    if point == "frozen":
        waiting(client, job, beside)
        client.approve(job)
    beside.result()
    assert found == ([str(row[0]) for row in GONE], 0)
    assert members(people) == [*EXPECTED, (200, "came later", 1.0, None)]
    assert client.get(job).steps[1].data == {"approved": 12, "deleted": 12, "left": 0}
    assert len(client.get(job).approvals) == 1, "it was asked twice"


def test_a_source_that_cannot_be_read_whole_deletes_the_rest(client: Client, people: Path, job: str) -> None:
    add_gone(people)
    with (people / "people.jsonl").open("a") as file:
        file.write('{"id": 101, "na\n')
    with pytest.raises(SourceUnreadable, match="no key that can be read"):
        migrate(client, people, job, "jsonl", delete_missing=True)
    assert members(people) == EXPECTED + GONE


def test_a_target_that_lists_nothing_is_asked_to_delete(
    client: Client, people: Path, job: str, service: Service
) -> None:
    with pytest.raises(BadRequest, match="does not list what it has"):
        migrate(client, people, job, url=service.url, delete_missing=True)
    with pytest.raises(BadRequest, match="a part of the source is not seen"):
        migrate(client, people, job, max_items=5, delete_missing=True)
