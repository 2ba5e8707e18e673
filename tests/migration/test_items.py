"""Items from a source into a target: what becomes of each of them, and what the job says about it."""

from pathlib import Path

import pytest

from actorstate.client.sync import Client
from actorstate.errors import BadRequest, Conflict, ItemRefused, SourceUnreadable, TargetFailed
from actorstate.migrate.items.comparison import compared, previewed
from actorstate.migrate.items.mapping import FieldMapping
from tests.support.items import (
    BATCH,
    COUNTS,
    EXPECTED,
    MAPPING,
    NAMELESS,
    ROWS,
    THERE,
    Service,
    asked,
    counted,
    hasty,
    ledger,
    members,
    migrate,
    migrating,
    people,
    service,
    written_twice,
)
from tests.support.processes import client, job, served

__all__ = ["client", "hasty", "job", "people", "served", "service"]


@pytest.mark.parametrize("source", ["table", "jsonl", "csv"])
def test_an_item_is_lost_changed_or_counted_as_something_else(
    client: Client, people: Path, job: str, source: str
) -> None:
    state = migrate(client, people, job, source)
    if source == "csv":  # a CSV file has no NULL: the nameless one has the name None
        assert counted(state) == COUNTS | {"succeeded": ROWS - 1, "failed": 0}
        assert [row for row in members(people) if row[0] != NAMELESS] == EXPECTED
        return
    assert (state.status, state.progress.total, counted(state)) == ("completed", ROWS, COUNTS)
    assert members(people) == EXPECTED
    assert ledger(client, job) == {str(THERE): ("duplicate", "", 1), str(NAMELESS): ("failed", "validation", 1)}
    assert asked(people, f"SELECT origin FROM members WHERE id={THERE}") == [("here before",)]
    assert migrate(client, people, job, source).revision == state.revision, "it was done once more"


MODES = {
    "create, skip": ({}, {"succeeded": 18, "duplicates": 1}, ROWS),
    "create, error": ({"duplicates": "error"}, {"succeeded": 18, "failed": 2}, ROWS),
    "create, update": ({"duplicates": "update"}, {"succeeded": 19}, ROWS),
    "update": ({"mode": "update"}, {"succeeded": 1, "failed": 19}, 1),
    "upsert": ({"mode": "upsert"}, {"succeeded": 19}, ROWS),
}


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_does_something_else_than_its_preview_told(client: Client, people: Path, job: str, mode: str) -> None:
    rules, counts, rows = MODES[mode]
    before = asked(people, "SELECT * FROM members")
    with migrating(people, job, **rules) as migration:
        preview = previewed(migration)
    assert asked(people, "SELECT * FROM members") == before
    assert list(client.jobs(kind="migrate-items")) == [] or all(one.id != job for one in client.jobs())
    state = migrate(client, people, job, **rules)
    assert counted(state) == {"processed": ROWS, "succeeded": 0, "failed": 1, "skipped": 0, "duplicates": 0} | counts
    assert len(asked(people, "SELECT 1 FROM members")) == rows - (rows == ROWS)
    told = preview.counts
    # what a constraint of the target refuses, only writing it tells
    assert told["create"] + told["update"] - (mode != "update") == state.progress.succeeded
    assert (told["duplicate"], told["fail"] + (mode != "update")) == (state.progress.duplicates, state.progress.failed)
    assert written_twice(people) == {}


def test_items_that_are_there_as_they_should_be_count_as_nothing(client: Client, people: Path, job: str) -> None:
    migrate(client, people, job)
    state = migrate(client, people, job, mode="upsert", again=True)
    assert counted(state) == COUNTS | {"succeeded": 1, "skipped": ROWS - 2, "duplicates": 0}
    assert written_twice(people) == {}, "what was the same was written again"


def test_an_update_that_failed_is_created_when_it_is_retried(client: Client, people: Path, job: str) -> None:
    text = (people / "people.jsonl").read_text()
    (people / "people.jsonl").write_text(text.replace('"person 3"', "null"))
    state = migrate(client, people, job, "jsonl", mode="upsert")
    assert state.progress.by_category == {"validation": 2}
    (people / "people.jsonl").write_text(text)
    state = migrate(client, people, job, "jsonl", mode="upsert", retry="validation")
    assert counted(state) == COUNTS | {"succeeded": ROWS - 1, "duplicates": 0}
    assert asked(people, f"SELECT full_name FROM members WHERE id={THERE}") == [("person 3",)]


def test_what_failed_once_is_failed_for_ever(client: Client, people: Path, job: str) -> None:
    """All anew after the source was mended: what the ledger has as failed is told by the last attempt."""
    migrate(client, people, job, "jsonl")
    text = (people / "people.jsonl").read_text()
    (people / "people.jsonl").write_text(text.replace("null", '"person 7"'))
    state = migrate(client, people, job, "jsonl", again=True)
    assert counted(state) == COUNTS | {"succeeded": 1, "failed": 0, "duplicates": ROWS - 1}
    assert ledger(client, job)[str(NAMELESS)] == ("succeeded", "validation", 2)
    with pytest.raises(BadRequest, match="no failed item"):
        migrate(client, people, job, "jsonl", retry="validation")
    migrate(client, people, job, "jsonl", again=True, duplicates="update")
    assert ledger(client, job)[str(THERE)] == ("succeeded", "", 3)


@pytest.mark.usefixtures("hasty")
def test_a_preview_of_a_service_that_is_gone_takes_for_ever(people: Path, service: Service) -> None:
    gone = service.url.replace("127.0.0.1", "127.0.0.2")
    with migrating(people, "none", url=gone) as migration, pytest.raises(TargetFailed, match="did not answer 3 items"):
        previewed(migration)


def test_a_preview_hides_what_would_change(people: Path) -> None:
    with migrating(people, "none", mode="upsert") as migration:
        [example] = [one for one in previewed(migration).examples if one.would == "update"]
    told = {change.field: (change.old, change.new) for change in example.changes}
    assert example.key == str(THERE)
    assert told == {
        "full_name": ("somebody else", "person 3"),
        "age": ("1.0", "23.0"),
        "origin": ("here before", "old app"),
    }


BAD_MAPPINGS = {
    "source": FieldMapping({"surname": "full_name", "name": "full_name"}),
    "target": FieldMapping({"name": "fullname"}),
    "two": FieldMapping({"name": "age"}),
    "key": FieldMapping({"name": "full_name"}, dropped={"id"}),
    "constant": FieldMapping({"name": "full_name"}, {"colour": "red"}),
}


@pytest.mark.parametrize("mapping", BAD_MAPPINGS)
def test_a_mapping_that_does_not_fit_is_found_at_the_first_item(
    client: Client, people: Path, job: str, mapping: str
) -> None:
    with pytest.raises(BadRequest, match="the mapping does not fit"):
        migrate(client, people, job, mapping=BAD_MAPPINGS[mapping])
    assert all(one.id != job for one in client.jobs()), "a job was made for nothing"


def test_one_job_migrates_its_items_by_two_rules(client: Client, people: Path, job: str) -> None:
    with pytest.raises(ItemRefused, match="stopped at the first error"):
        migrate(client, people, job, stop_on_error=True)
    for other in ({"mode": "upsert"}, {"key": "age"}, {"mapping": FieldMapping({"name": "full_name"})}):
        with pytest.raises(Conflict, match="began with"):
            migrate(client, people, job, **other)


def test_a_run_goes_on_after_the_first_error(client: Client, people: Path, job: str) -> None:
    with pytest.raises(ItemRefused, match=r"NOT NULL.*done and counted"):
        migrate(client, people, job, stop_on_error=True)
    state = client.get(job)
    assert (state.status, state.progress.processed, state.progress.failed) == ("failed", NAMELESS, 1)
    state = migrate(client, people, job)
    assert (state.status, state.attempt, counted(state)) == ("completed", 2, COUNTS)
    assert (members(people), written_twice(people)) == (EXPECTED, {})


def test_more_items_than_were_asked_for_are_migrated(client: Client, people: Path, job: str) -> None:
    state = migrate(client, people, job, max_items=2 * BATCH + 1)
    assert (state.status, state.progress.total, state.progress.processed) == ("completed", 11, 11)
    assert [row[0] for row in members(people)] == [n for n in range(1, 12) if n not in {THERE, NAMELESS}]


def test_two_items_of_one_key_are_both_created(client: Client, people: Path, job: str) -> None:
    with (people / "people.jsonl").open("a") as file:
        file.write('{"id": 1, "name": "person 1", "age": 21}\n\n' + 2 * '{"id": 20, "name": "another", "age": 1}\n')
    state = migrate(client, people, job, "jsonl")
    assert counted(state) == COUNTS | {"processed": ROWS + 3, "duplicates": 4}
    assert (members(people), written_twice(people)) == (EXPECTED, {})


def test_a_broken_line_is_lost_or_stops_the_others(client: Client, people: Path, job: str) -> None:
    with (people / "people.jsonl").open("ab") as file:
        file.write(b'{"id": 21, "name": "cut\n[1]\n{"name": "no key"}\n{"id": 22, "name": "\xff", "age": 1}\n')
        file.write(b'{"id": 23, "name": "x", "age": 1, "shoe": 44}\n{"id": 24, "name": "person 24", "age": 44}')
    state = migrate(client, people, job, "jsonl", mapping=FieldMapping({"name": "full_name"}, dropped={"shoe"}))
    assert state.progress.by_category == {"validation": 5}
    assert state.progress.succeeded == ROWS - 2 + 2
    errors = {item.key[:4]: item.error for item in client.items(job, outcome="failed")}
    assert {key: error.partition(":")[0] for key, error in errors.items()} == {
        "7": "NOT NULL constraint failed",
        "@000": "it has no 'id', by which it would be known",
        "22": "'full_name' is no valid UTF-8",
    }


def test_a_file_that_was_changed_meanwhile_shifts_its_items(client: Client, people: Path, job: str) -> None:
    with pytest.raises(ItemRefused):
        migrate(client, people, job, "jsonl", stop_on_error=True)
    lines = (people / "people.jsonl").read_text().splitlines(keepends=True)
    (people / "people.jsonl").write_text("".join(lines[1:]))
    with pytest.raises(SourceUnreadable, match="was changed within its first 7 lines"):
        migrate(client, people, job, "jsonl")
    (people / "people.jsonl").write_text("".join([*lines, '{"id": 99, "name": "late", "age": 9}\n']))
    assert counted(migrate(client, people, job, "jsonl")) == COUNTS | {"processed": 21, "succeeded": 19}


def test_a_deferred_constraint_takes_its_whole_batch_down(client: Client, people: Path, job: str) -> None:
    asked(people, "DROP TABLE members")
    asked(people, "CREATE TABLE groups (name TEXT PRIMARY KEY)")
    asked(people, "INSERT INTO groups VALUES ('person 1'), ('person 2'), ('person 9')")
    asked(
        people,
        "CREATE TABLE members (id INTEGER PRIMARY KEY, age, origin,"
        " full_name TEXT REFERENCES groups DEFERRABLE INITIALLY DEFERRED)",
    )
    state = migrate(client, people, job)
    assert (state.progress.succeeded, state.progress.failed) == (4, 16)  # NULL refers to nothing
    assert [row[0] for row in asked(people, "SELECT id FROM members")] == [1, 2, 7, 9]


def test_what_a_service_was_sent_is_not_what_it_has(client: Client, people: Path, job: str, service: Service) -> None:
    service.items["3"] = {"id": 3, "full_name": "somebody else"}
    state = migrate(client, people, job, url=service.url, workers=4)
    assert counted(state) == COUNTS | {"succeeded": ROWS - 1, "failed": 0}
    assert service.items["5"] == {"id": 5, "full_name": "person 5", "age": 25, "origin": "old app"}
    assert set(service.puts.values()) == {1}
    with migrating(people, job, url=service.url) as migration:
        found = compared(migration)
    assert (found.counts["same"], found.counts["different"], found.surplus) == (ROWS - 1, 1, None)


CATEGORIES = {
    "4": ([(403, {})], "permission"),
    "5": ([(422, {})], "validation"),
    "6": ([(0, {})] * 6, "network"),
    "9": ([(429, {"Retry-After": "0"})] * 20, "rate_limit"),
    "10": ([(409, {})] * 2, "duplicate"),
    "11": ([(302, {})], "unknown"),
}


@pytest.mark.usefixtures("hasty")
def test_a_failure_is_of_the_wrong_category_or_cannot_be_retried(
    client: Client, people: Path, job: str, service: Service
) -> None:
    service.moods = {key: list(moods) for key, (moods, _) in CATEGORIES.items()}
    state = migrate(client, people, job, url=service.url, duplicates="error")
    assert {key: category for key, (_, category, _) in ledger(client, job).items()} == {
        key: category for key, (_, category) in CATEGORIES.items()
    }
    assert counted(state) == COUNTS | {"succeeded": ROWS - 6, "failed": 6, "duplicates": 0}
    state = migrate(client, people, job, url=service.url, duplicates="error", retry="network")
    assert (state.progress.succeeded, state.progress.failed, state.attempt) == (ROWS - 5, 5, 2)
    assert state.progress.by_category.get("network", 0) == 0
    for category in ("permission", "validation", "rate_limit", "duplicate", "unknown"):
        state = migrate(client, people, job, url=service.url, duplicates="error", retry=category)
    assert (counted(state)["succeeded"], len(state.attempts)) == (ROWS, 6)
    assert set(service.puts.values()) == {1}


@pytest.mark.usefixtures("hasty")
def test_an_answer_that_was_lost_makes_a_duplicate(client: Client, people: Path, job: str, service: Service) -> None:
    service.lost_answers = {"4", "12"}
    state = migrate(client, people, job, url=service.url, duplicates="error")
    assert counted(state) == COUNTS | {"succeeded": ROWS, "failed": 0, "duplicates": 0}
    assert set(service.puts.values()) == {1}
    assert all(len(tokens) == 1 for tokens in service.tokens.values())


@pytest.mark.usefixtures("hasty")
def test_a_service_that_is_gone_fails_every_item_one_by_one(
    client: Client, people: Path, job: str, service: Service
) -> None:
    service.moods = {str(n): [(0, {})] * 6 for n in (4, 5, 6)}  # a kept connection is tried anew
    with pytest.raises(TargetFailed, match="did not answer 3 items in a row"):
        migrate(client, people, job, url=service.url)
    state = client.get(job)
    assert (state.status, state.progress.processed, state.progress.by_category) == ("failed", 6, {"network": 3})
    assert counted(migrate(client, people, job, url=service.url))["succeeded"] == ROWS - 3
    assert counted(migrate(client, people, job, url=service.url, retry="network"))["succeeded"] == ROWS


@pytest.mark.parametrize("status", [401, 404, 405])
def test_a_wrong_address_or_password_fails_every_item_one_by_one(
    client: Client, people: Path, job: str, service: Service, status: int
) -> None:
    service.moods = {"8": [(status, {})]}
    with pytest.raises(TargetFailed, match=f"PUT with {status}"):
        migrate(client, people, job, url=service.url)
    assert (client.get(job).progress.processed, client.get(job).progress.failed) == (BATCH, 0)
    state = migrate(client, people, job, url=service.url)
    assert counted(state) == COUNTS | {"succeeded": ROWS, "failed": 0, "duplicates": 0}
    assert set(service.puts.values()) == {1}


def test_a_changed_mapping_leaves_no_trace(client: Client, people: Path, job: str, service: Service) -> None:
    service.moods = {"5": [(422, {})]}
    migrate(client, people, job, url=service.url)
    mapping = FieldMapping({"name": "label"})
    for number in range(11):
        service.moods = {"5": [(422, {})]}
        migrate(client, people, job, url=service.url, retry="validation", mapping=(MAPPING, mapping)[number % 2])
    state = migrate(client, people, job, url=service.url, retry="validation", mapping=mapping)
    assert service.items["5"] == {"id": 5, "label": "person 5", "age": 25}
    history = state.meta["fieldMappingHistory"]
    assert isinstance(history, list)
    assert (len(history), history[0]["source"], history[-1]["mapping"]) == (10, "original", {"name": "label"})
    assert state.meta["fieldMapping"] == {"name": "label"}
