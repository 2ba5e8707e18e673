"""What is asked of a job of items after its end: rows that were mended since, and a deletion that comes late."""

from pathlib import Path

from actorstate.client.sync import Client
from tests.support.items import (
    EXPECTED,
    ROWS,
    Beside,
    asked,
    counted,
    ledger,
    members,
    migrate,
    people,
)
from tests.support.processes import client, job, served, until

__all__ = ["client", "job", "people", "served"]

BROKEN = ['{"id": 21, "name": "cut\n', "[1]\n", '{"name": "no key", "age": 3}\n', "{}\n"]
MENDED = ['{"id": 21, "name": "person 21", "age": 41}\n', "[1]\n", '{"id": 1, "name": "person 1", "age": 21}\n', ""]


def test_a_row_that_had_no_key_is_never_migrated_once_it_is_mended(client: Client, people: Path, job: str) -> None:
    whole = (people / "people.jsonl").read_text()
    (people / "people.jsonl").write_text(whole + "".join(BROKEN))
    assert migrate(client, people, job, "jsonl").progress.by_category == {"validation": 5}
    (people / "people.jsonl").write_text(whole.replace("null", '"person 7"') + "".join(MENDED))
    state = migrate(client, people, job, "jsonl", retry="validation")
    assert members(people) == sorted([*EXPECTED, (7, "person 7", 27.0, "old app"), (21, "person 21", 41.0, "old app")])
    assert (state.progress.succeeded, state.progress.duplicates, state.progress.failed) == (ROWS, 2, 2)
    errors = [item.error for item in client.items(job, outcome="failed")]
    gone = "it is not in the source any more; it had failed with: it has no 'id', by which it would be known"
    assert errors == ["it is no JSON object", gone]
    migrate(client, people, job, "jsonl", retry="validation")
    assert [item.error for item in client.items(job, outcome="failed")] == errors, "the first reason was lost"


def test_a_deletion_that_is_asked_for_after_the_end_is_left_out_in_silence(
    client: Client, people: Path, job: str
) -> None:
    asked(people, "INSERT INTO members VALUES (101, 'gone', 1, NULL)")
    first = migrate(client, people, job)
    beside = Beside(lambda: migrate(client, people, job, delete_missing=True))
    until(client, job, lambda state: state.status == "waiting")
    client.approve(job)
    beside.result()
    state = client.get(job)
    assert (members(people), state.status, state.attempt) == (EXPECTED, "completed", 2)
    assert (counted(state), ledger(client, job)["3"]) == (counted(first), ("duplicate", "", 1))
    assert migrate(client, people, job, delete_missing=True).revision == state.revision, "it was asked again"
