"""Migrations that are killed at each point of a batch: nothing lost, nothing written or counted twice."""

import random
import signal
from pathlib import Path

import pytest

from actorstate.client.sync import Client
from actorstate.core.messages.document import JobState
from actorstate.migrate.items.course import PLAN
from tests.support.items import (
    BATCH,
    COUNTS,
    EXPECTED,
    ROWS,
    Service,
    counted,
    killed_in,
    ledger,
    make_source,
    make_target,
    members,
    migrate,
    people,
    service,
    written_twice,
)
from tests.support.processes import client, job, served
from tests.support.writer import WriterProcess

__all__ = ["client", "job", "people", "served", "service"]

POINTS = ("looked", "planned", "written", "counted")
"""`written` lies between the commit of the target and the moment at which the job knows of it."""


def kill(served: WriterProcess, folder: Path, job: str, **how: object) -> None:
    with killed_in(served, folder, job, **how) as child:
        assert child.wait() == -signal.SIGKILL, child.errors()


def check_plan(state: JobState, planned: int = BATCH) -> None:
    plan = state.checkpoints[PLAN].data
    assert isinstance(plan, dict)
    assert len(plan["create"] + plan["update"]) <= 8 * planned, "what was planned grows"


def check(client: Client, folder: Path, job: str, planned: int = BATCH) -> None:
    state = client.get(job)
    check_plan(state, planned)
    assert (state.status, counted(state)) == ("completed", COUNTS)
    assert (members(folder), written_twice(folder)) == (EXPECTED, {})
    assert ledger(client, job) == {"3": ("duplicate", "", 1), "7": ("failed", "validation", 1)}
    assert [one.id for one in client.jobs(kind="migrate-items")].count(job) == 1


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_loses_an_item_or_makes_it_a_duplicate(
    served: WriterProcess, client: Client, people: Path, job: str, point: str
) -> None:
    kill(served, people, job, point=point, number=2)
    there, counted_so_far = len(members(people)), client.get(job).progress.succeeded
    assert there - counted_so_far == (4 if point == "written" else 0), "the trap is not there: nothing was uncounted"
    migrate(client, people, job)
    check(client, people, job)


def test_a_plan_that_a_kill_has_left_hides_a_duplicate(
    served: WriterProcess, client: Client, people: Path, job: str
) -> None:
    """Item 20 comes once more, behind the batch that had it: it is another item, though the job knows it as planned."""
    with (people / "people.jsonl").open("a") as file:
        file.write('{"id": 20, "name": "person 20", "age": 40}\n')
    kill(served, people, job, point="counted", number=4, source="jsonl")
    state = migrate(client, people, job, "jsonl")
    assert counted(state) == COUNTS | {"processed": ROWS + 1, "duplicates": 2}


def test_a_kill_between_the_service_and_the_count_makes_duplicates(
    served: WriterProcess, client: Client, people: Path, job: str, service: Service
) -> None:
    kill(served, people, job, point="written", number=2, url=service.url, duplicates="error", workers=2)
    assert (len(service.items), client.get(job).progress.processed) == (2 * BATCH, BATCH)
    state = migrate(client, people, job, url=service.url, duplicates="error", workers=2)
    assert counted(state) == COUNTS | {"succeeded": ROWS, "failed": 0, "duplicates": 0}
    assert set(service.puts.values()) == {1}


def test_a_kill_in_a_retry_counts_an_item_twice_or_as_a_duplicate(
    served: WriterProcess, client: Client, people: Path, job: str, service: Service
) -> None:
    service.moods = {str(n): [(422, {})] for n in range(2, 14)}
    assert migrate(client, people, job, url=service.url).progress.failed == 12
    client.retry(job, where="validation")
    for number in (1, 2):
        kill(served, people, job, point="written", number=number, url=service.url)
    state = migrate(client, people, job, url=service.url)
    assert counted(state) == COUNTS | {"succeeded": ROWS, "failed": 0, "duplicates": 0}
    assert set(service.puts.values()) == {1}
    assert set(ledger(client, job).values()) == {("succeeded", "validation", 2)}
    check_plan(state)


def test_a_second_sigterm_waits_for_the_batch_too(
    served: WriterProcess, client: Client, people: Path, job: str, service: Service
) -> None:
    with killed_in(served, people, job, point="never", number=1, url=service.url) as child:
        service.on_put = lambda key: key in {"7", "8"} and child.send(signal.SIGTERM)
        assert child.wait() == 143, child.errors()
    assert (client.get(job).progress.processed, len(service.items)) in {(BATCH, 7), (BATCH, 8)}
    assert counted(migrate(client, people, job, url=service.url))["succeeded"] == ROWS
    assert set(service.puts.values()) == {1}


@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.parametrize("source", ["table", "jsonl"])
@pytest.mark.parametrize("mode", ["create", "update"])
def test_a_kill_at_any_point_of_any_batch_loses_something(
    served: WriterProcess, client: Client, tmp_path: Path, job: str, mode: str, source: str
) -> None:
    for point in POINTS:
        for number in range(1, ROWS // BATCH + 1):
            folder, one = tmp_path / f"{point}-{number}", f"{job}-{point}-{number}"
            folder.mkdir()
            make_source(folder)
            make_target(folder)
            kill(
                served,
                folder,
                one,
                point=point,
                number=number,
                source=source,
                duplicates="skip" if mode == "create" else mode,
            )
            if mode == "create":
                migrate(client, folder, one, source)
                check(client, folder, one)
            else:
                state = migrate(client, folder, one, source, duplicates="update")
                assert counted(state) == COUNTS | {"succeeded": ROWS - 1, "duplicates": 0}
                assert written_twice(folder) == {}


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_many_kills_of_one_migration_and_its_writer_lose_something(
    served: WriterProcess, client: Client, tmp_path: Path, job: str
) -> None:
    chance = random.Random(7)
    make_source(tmp_path)
    make_target(tmp_path)
    for _ in range(40):
        how = {"point": chance.choice(POINTS), "number": 1 + chance.randrange(3), "batch_size": 1 + chance.randrange(4)}
        with killed_in(served, tmp_path, job, **how) as child:
            ended = child.wait()
        if chance.random() < 0.3:
            served.restart()
        if ended == 0:
            break
        assert ended == -signal.SIGKILL, child.errors()
    migrate(client, tmp_path, job)
    check(client, tmp_path, job, planned=2 * BATCH)
