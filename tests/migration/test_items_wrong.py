"""What is typed wrong, and values that a source may have and no target could keep."""

import json
import shlex
from pathlib import Path

import pytest

from actorstate.client.sync import Client
from actorstate.errors import BadRequest, JobNotFound, SourceUnreadable
from actorstate.migrate.items.comparison import compared, previewed
from actorstate.migrate.items.overhttp import HttpTarget
from actorstate.migrate.items.shape import Item
from tests.support.items import EXPECTED, NAMELESS, ROWS, THERE, members, migrate, migrating, people
from tests.support.migration import typed
from tests.support.processes import client, job, served

__all__ = ["client", "job", "people", "served"]

NAN = float("nan")
WRONG = {
    "plan items people.csv new.sqlite:members --key idd": "the source has no field 'idd'; the source has id, name, age",
    "plan items people.csv new.sqlite:members --key id --rename id=nr": "no column 'nr'; it has id, full_name, age",
    "plan items people.csv 'http://127.0.0.1:99999/{key}' --key id": "is no address of the form",
    "run items people.csv new.sqlite:members --key id --state jobs --retry network": "there is no directory",
}


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_word_makes_a_job_a_traceback_or_a_hint_that_ruins_the_target(
    people: Path, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(people)
    told = typed("migrate", *shlex.split(line))
    assert (told.returncode in {3, 4}, WRONG[line] in told.stderr) == (True, True), told.stderr
    assert "CREATE UNIQUE INDEX" not in told.stderr
    assert not (people / "jobs").exists()


@pytest.mark.parametrize(
    "url", ["http://[::1/{key}", "http://a b/{key}", "http://h/a b/{key}", "http://h:0/\n", "http:"]
)
def test_an_address_that_is_none_fails_every_item_as_network(url: str) -> None:
    with pytest.raises(BadRequest, match="is no address"):
        HttpTarget(url)


def test_a_retry_of_no_job_makes_one(client: Client, people: Path, job: str) -> None:
    with pytest.raises(JobNotFound):
        migrate(client, people, job, retry="network")
    assert all(one.id != job for one in client.jobs())


ODD = {
    '{"id": 31, "name": "a", "age": NaN}': "it is no JSON: NaN is no JSON number",
    '{"id": 32, "name": "a", "age": -1e400}': "it is no JSON: -1e400 is no JSON number",
    '{"id": 33, "name": "a", "age": [Infinity]}': "it is no JSON: Infinity is no JSON number",
    '{"id": 34, "id": 35, "name": "a", "age": 1}': "it is no JSON: 'id' is there twice",
    '{"id": "sur\\ud800", "name": "a", "age": 1}': "'id' is no valid UTF-8",
}


def test_a_value_that_no_target_can_keep_is_counted_as_the_same(client: Client, people: Path, job: str) -> None:
    with (people / "people.jsonl").open("a") as file:
        file.write("\n".join(ODD) + "\n")
    with migrating(people, job, "jsonl") as migration:
        assert [one.reason for one in previewed(migration).examples if one.would == "fail"] == list(ODD.values())
    state = migrate(client, people, job, "jsonl")
    assert (state.progress.by_category, members(people)) == ({"validation": 1 + len(ODD)}, EXPECTED)
    with migrating(people, job, "jsonl") as migration:
        found = compared(migration)
    assert (found.good, found.surplus, found.counts) == (
        False,
        None,
        {"items": ROWS + len(ODD), "same": ROWS - 2, "missing": 1, "different": 1, "unreadable": len(ODD)},
    )
    assert {NAMELESS, THERE} == {int(one.key) for one in found.examples if one.would != "fail"}
    (people / "people.jsonl").write_text([*ODD][-1] + "\n")
    with pytest.raises(SourceUnreadable, match="no key that can be read"):
        migrate(client, people, job, "jsonl", delete_missing=True)


def test_a_number_that_is_none_becomes_null(people: Path, job: str) -> None:
    numbers = [Item(str(n), {"id": n, "full_name": "a", "age": age}, "") for n, age in ((31, NAN), (32, [NAN]))]
    with migrating(people, job) as migration:
        assert {key: refusal.message for key, refusal in migration.target.write(numbers, ()).items()} == {
            "31": "NaN would be NULL in an SQLite database",
            "32": "it cannot be JSON: Out of range float values are not JSON compliant",
        }
    assert members(people) == []
    told = typed("migrate", "plan", "items", people / "people.csv", f"{people}/new.sqlite:members", "--key", "id",
                 "--drop", "age", "--rename", "name=full_name", "--set", "origin=NaN", "--json")  # fmt: skip
    assert json.loads(told.stdout)["preview"]["counts"] == {"create": 19, "duplicate": 1}, told.stderr


def test_one_broken_row_hides_what_can_be_compared(people: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(people)
    with (people / "people.jsonl").open("a") as file:
        file.write("{\n")
    told = typed("migrate", "verify", "items", "people.jsonl", "new.sqlite:members", "--key", "id", "--drop", "name")
    assert (told.returncode, "1 unreadable" in told.stdout) == (1, True), told.stderr
    assert "can be told when all of them can be read" in told.stdout
    assert "--delete-missing" not in told.stdout + told.stderr
