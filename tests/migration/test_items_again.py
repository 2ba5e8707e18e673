"""What is asked of a job of items after its end: rows that were mended since, and a deletion that comes late."""

import copy
from pathlib import Path

import pytest

from actorstate.cli.views import watch_line
from actorstate.client.sync import Client
from actorstate.errors import AlreadyAttached, TargetFailed
from actorstate.migrate.items import batch
from tests.support.items import (
    EXPECTED,
    ROWS,
    Beside,
    Service,
    asked,
    counted,
    hasty,
    ledger,
    members,
    migrate,
    people,
    service,
)
from tests.support.processes import client, job, served, until

__all__ = ["client", "hasty", "job", "people", "served", "service"]

BROKEN = ['{"id": 21, "name": "cut\n', "[1]\n", '{"name": "no key", "age": 3}\n', "{}\n"]
MENDED = ['{"id": 21, "name": "person 21", "age": 41}\n', "[1]\n", '{"id": 21, "name": "another", "age": 1}\n', ""]


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


@pytest.mark.usefixtures("hasty")
def test_three_items_that_a_service_cannot_take_end_the_run(
    client: Client, people: Path, job: str, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = {str(n): [(500, {})] * 3 for n in (4, 5, 6)}
    service.moods = copy.deepcopy(broken)
    state = migrate(client, people, job, url=service.url, max_items=9)
    assert (state.status, state.progress.by_category) == ("completed", {"network": 3})
    service.moods = copy.deepcopy(broken)
    monkeypatch.setattr(batch, "MAX_BROKEN", 3)
    with pytest.raises(TargetFailed, match="answered none of 3 items in a row without an error: 500"):
        migrate(client, people, job, url=service.url, max_items=9, retry="network")
    service.moods = {key: [(503, {})] * 3 for key in broken}
    with pytest.raises(TargetFailed, match="did not answer 3 items in a row: 503"):
        migrate(client, people, f"{job}-2", url=service.url, max_items=9)


def test_a_pause_that_the_target_asked_for_is_silent(client: Client, people: Path, job: str, service: Service) -> None:
    service.moods = {"12": [(429, {"Retry-After": "900"})]}
    beside = Beside(lambda: migrate(client, people, job, url=service.url))
    beside.reached("written")
    state = until(client, job, lambda state: state.rate.throttles == 1 and "waiting" in str(state.phase))
    assert str(state.phase).endswith("Z: the target asked for a pause of 900 s")
    assert state.phase in watch_line(state)
    assert (state.rate.eta, state.status) == (None, "running")
    with pytest.raises(AlreadyAttached) as second:
        migrate(client, people, job, url=service.url)
    assert second.value.hint.endswith(f"actorstate watch DIR {job}")
    client.cancel(job)
    beside.result()
    assert client.get(job).status == "cancelled"
