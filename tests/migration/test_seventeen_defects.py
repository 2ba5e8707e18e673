"""The seventeen defects of the older tool, (a) to (q), each as its user met it: none of them is here."""

import contextlib
import re
import signal
import sqlite3
from datetime import datetime
from pathlib import Path

import pytest

from actorstate.client.sync import Client, connect
from actorstate.errors import AlreadyAttached, Conflict, CorruptItem, CorruptJob, JobFinished, JobNotFound, TargetFailed
from actorstate.web.legacy import legacy_job
from tests.support.items import (
    BATCH,
    COUNTS,
    ROWS,
    Beside,
    Service,
    asked,
    counted,
    hasty,
    killed_in,
    ledger,
    members,
    migrate,
    people,
    service,
    written_twice,
)
from tests.support.migration import typed
from tests.support.processes import LIVELY, client, job, served, unchanged, until
from tests.support.writer import WriterProcess, Writers, writers

__all__ = ["client", "hasty", "job", "people", "served", "service", "writers"]

ALL = COUNTS | {"succeeded": ROWS, "failed": 0, "duplicates": 0}


def test_a_updates_that_meet_lose_each_other_and_a_late_word_revives_the_job(
    served: WriterProcess, client: Client, people: Path, job: str, service: Service
) -> None:
    """Somebody else changes the job at each item; then a worker who is late reports."""
    speeds = iter(range(1, 1_000))
    with connect(served.directory) as other:
        service.on_put = lambda _key: other.throttle(job, 1e6 + next(speeds))
        assert counted(migrate(client, people, job, url=service.url, workers=4)) == ALL
    assert next(speeds) > ROWS
    client.create(f"{job}-2")
    with client.attach(f"{job}-2") as late, contextlib.suppress(JobFinished):
        client.complete(f"{job}-2")
        with pytest.raises(JobFinished):
            late.checkpoint("late")
    assert client.get(f"{job}-2").status == "completed"


def test_b_a_second_job_gets_the_failures_and_a_retry_runs_everything(
    client: Client, people: Path, job: str, service: Service
) -> None:
    before = {one.id for one in client.jobs()}
    service.moods = {"4": [(422, {})], "9": [(403, {})]}
    migrate(client, people, job, url=service.url)
    assert {one.id for one in client.jobs()} - before == {job}
    assert set(ledger(client, job)) == {"4", "9"}
    service.tokens.clear()
    assert counted(migrate(client, people, job, url=service.url, retry="validation")) == ALL | {
        "succeeded": ROWS - 1,
        "failed": 1,
    }
    assert set(service.tokens) == {"4"}, "more was sent again than had failed"


def test_c_nothing_can_be_resumed_since_no_batch_was_saved(
    served: WriterProcess, client: Client, people: Path, job: str, service: Service
) -> None:
    with killed_in(served, people, job, point="counted", number=2, url=service.url) as child:
        assert child.wait() == -signal.SIGKILL
    assert client.get(job).tracks["items"].counted == 2 * BATCH
    service.requests = 0
    assert counted(migrate(client, people, job, url=service.url)) == ALL
    assert service.requests == 2 * (ROWS - 2 * BATCH), "a batch that was saved was done once more"


def test_d_pause_and_retry_are_known_to_one_process_alone(
    served: WriterProcess, client: Client, people: Path, job: str, service: Service
) -> None:
    service.on_put = lambda key: key == "3" and typed("pause", served.directory, job)
    service.moods = {"1": [(422, {})]}
    with killed_in(served, people, job, point="never", number=1, url=service.url) as child:
        while child.read() != "counted":
            pass
        state = until(client, job, lambda state: state.status == "paused")
        assert state.progress.processed == BATCH
        assert typed("resume", served.directory, job).returncode == 0
        assert child.wait() == 0, child.errors()
    assert typed("retry", served.directory, job, "--where", "validation").returncode == 0
    assert client.get(job).progress.retrying == 1
    assert counted(migrate(client, people, job, url=service.url)) == ALL


@pytest.mark.parametrize("status", ["running", "paused"])
def test_e_sigterm_ends_as_cancelled_and_cannot_be_resumed(
    served: WriterProcess, client: Client, people: Path, job: str, service: Service, status: str
) -> None:
    service.on_put = lambda key: key == "2" and status == "paused" and client.pause(job)
    number = 2 if status == "running" else 100
    how = {"point": "planned", "number": number, "signal": signal.SIGTERM, "url": service.url}
    with killed_in(served, people, job, **how) as child:
        if status == "paused":
            while child.read() != "looked":
                pass
            until(client, job, lambda state: state.status == "paused")
            child.send(signal.SIGTERM)
        assert child.wait() == 143, child.errors()
    state = client.get(job)
    assert (state.status, state.workers) == (status, {})
    client.resume(job)
    state = migrate(client, people, job, url=service.url)
    assert (state.status, state.attempt, counted(state)) == ("completed", 1, ALL)
    assert set(service.puts.values()) == {1}


def test_f_cancel_says_cancelled_and_goes_on(client: Client, people: Path, job: str) -> None:
    beside = Beside(lambda: migrate(client, people, job), "counted")
    beside.reached("counted")
    client.cancel(job)
    for _ in range(4):
        beside.go_on()
    beside.result()
    state = client.get(job)
    assert (state.status, state.progress.succeeded) == ("cancelled", len(members(people)))
    assert state.progress.processed <= 2 * BATCH, "it heard of it with the answer to the second batch"
    assert counted(migrate(client, people, job)) == COUNTS


def test_g_the_process_ends_before_its_batch_does(
    served: WriterProcess, client: Client, people: Path, job: str, service: Service
) -> None:
    """SIGTERM comes while the target has taken one item of the second batch."""
    children = []
    service.on_put = lambda key: key == "7" and children[0].send(signal.SIGTERM)
    with killed_in(served, people, job, point="never", number=1, url=service.url) as child:
        children.append(child)
        assert child.wait() == 143, child.errors()
    assert client.get(job).progress.processed == len(service.items) == 2 * BATCH


def test_h_nobody_looks_after_what_a_crash_has_left(writers: Writers, people: Path, job: str) -> None:
    writer = writers().start()
    with killed_in(writer, people, job, point="written", number=2) as child:
        assert child.wait() == -signal.SIGKILL
    writer.restart()
    with connect(writer.directory, settings=LIVELY) as client:
        state = until(client, job, lambda state: state.health == "dead")
        assert (state.status, state.progress.processed) == ("running", BATCH)
        assert (
            typed("migrate", "status", "items", "a:b", "c:d", "--state", writer.directory, "--job", job).returncode == 0
        )
        assert counted(migrate(client, people, job)) == COUNTS
    assert written_twice(people) == {}


def test_i_two_starts_at_once_both_run_where_ids_are_numbers(
    served: WriterProcess, client: Client, people: Path, service: Service
) -> None:
    number = "1234567"
    beside = Beside(lambda: migrate(client, people, number, url=service.url, unique_key="77"), "planned")
    beside.reached("planned")
    with connect(served.directory) as other:
        with pytest.raises(AlreadyAttached):
            migrate(other, people, number, url=service.url)
        with pytest.raises(Conflict):
            migrate(other, people, "7654321", url=service.url, unique_key="77")
    for _ in range(4):
        beside.go_on()
    beside.result()
    assert (counted(client.get(number)), set(service.puts.values())) == (ALL, {1})


@pytest.mark.slow
def test_j_no_beat_is_heard_while_it_detects_and_deletes(client: Client, people: Path, job: str) -> None:
    """The job is watched for longer than the silence after which a worker would be late, and dead."""
    asked(people, "INSERT INTO members VALUES (101, 'gone', 1, NULL)")
    rules = {"delete_missing": True, "late_after_s": 1.5, "dead_after_s": 1.6}
    beside = Beside(lambda: migrate(client, people, job, **rules), "frozen", "deleted")
    for point, phase in (("frozen", "detecting"), ("deleted", "deleting")):
        if point == "deleted":
            beside.go_on()
            until(client, job, lambda state: state.status == "waiting")
            client.approve(job)
        beside.reached(point)
        until(client, job, lambda state: state.phase == phase)  # noqa: B023 - called in this turn
        state = unchanged(client, job, 1.8)
        assert (state.phase, state.health, [worker.health for worker in state.workers.values()]) == (
            phase,
            "healthy",
            ["healthy"],
        )
    beside.go_on()
    beside.result()
    assert client.get(job).status == "completed"


def test_k_a_rate_limit_ends_the_run_or_counts_as_work(
    client: Client, people: Path, job: str, service: Service
) -> None:
    service.moods = {"8": [(429, {"Retry-After": "1"})], "9": [(503, {"Retry-After": "0"})]}
    state = migrate(client, people, job, url=service.url)
    assert (state.status, counted(state)) == ("completed", ALL)
    assert state.started_at is not None
    assert state.finished_at is not None
    whole_s = (state.finished_at - state.started_at).total_seconds()
    assert state.rate.throttled_s >= 0.99
    assert state.rate.throttles >= 1
    assert state.rate.active_s <= whole_s - 0.9, "the clock of the ETA went on in the pause"
    assert set(service.puts.values()) == {1}


@pytest.mark.usefixtures("hasty")
def test_l_the_time_of_completion_is_a_message(client: Client, people: Path, job: str, service: Service) -> None:
    service.moods = {str(n): [(0, {})] * 6 for n in (1, 2, 3)}
    with pytest.raises(TargetFailed):
        migrate(client, people, job, url=service.url)
    state = client.get(job)
    told = legacy_job(state, list(client.items(job)))
    assert (told["status"], told["mode"], told["fieldMapping"]) == ("failed", "create", state.meta["fieldMapping"])
    assert isinstance(told["completedAt"], datetime)
    assert state.reason is not None
    assert "did not answer" in state.reason


def test_m_failures_are_set_and_added_to(client: Client, people: Path, job: str, service: Service) -> None:
    service.moods = {str(n): [(422, {})] for n in range(2, 20, 3)}
    state = migrate(client, people, job, url=service.url)
    failed = [entry.progress.failed for entry in client.history(job, states=True) if entry.progress is not None]
    assert failed == sorted(failed)
    assert failed[-1] == state.progress.failed == len(ledger(client, job)) == 6
    assert sum(state.progress.by_category.values()) == 6
    state = migrate(client, people, job, url=service.url, retry="validation")
    assert (counted(state), state.progress.by_category.get("validation", 0)) == (ALL, 0)


def damaged(writer: WriterProcess, *statements: str) -> None:
    writer.terminate()
    with contextlib.closing(sqlite3.connect(writer.directory / "jobs.sqlite")) as database, database:
        for sql in statements:
            assert database.execute(sql).rowcount > 0, "nothing was damaged"
    writer.start()


def test_n_a_damaged_job_is_not_found_and_begun_anew(writers: Writers, people: Path, job: str) -> None:
    writer = writers().start()
    with connect(writer.directory) as client:
        migrate(client, people, job, max_items=5)
        rotten = "SET body = x'c1' || substr(body, 2)"
        damaged(writer, f"UPDATE changes {rotten}", f"UPDATE keyframes {rotten}")  # both copies of the job's state
        for _ in range(2):
            with pytest.raises(CorruptJob):
                client.get(job)
            with pytest.raises(CorruptJob):
                migrate(client, people, job)
    assert len(members(people)) == 4, "it was begun anew"


def test_o_a_kill_leaves_temporary_files(served: WriterProcess, client: Client, people: Path, job: str) -> None:
    before = {path.name for path in people.iterdir()}
    with killed_in(served, people, job, point="planned", number=2) as child:
        assert child.wait() == -signal.SIGKILL
    served.restart()
    migrate(client, people, job)
    assert {path.name for path in people.iterdir()} == before
    left = [path.name for path in served.directory.rglob("*") if re.search(r"tmp|temp|staged|corrupt", path.name)]
    assert left == []


def test_p_jobs_and_their_items_stay_for_ever(client: Client, people: Path, job: str) -> None:
    state = migrate(client, people, job, expire_after_s=0.3)
    assert state.expires_at is not None
    with pytest.raises(JobNotFound):
        until(client, job, lambda _: False)
    with pytest.raises(JobNotFound):
        list(client.items(job))
    assert counted(migrate(client, people, job)) == COUNTS | {"succeeded": 0, "duplicates": ROWS - 1}


def test_q_damage_is_looked_for_where_there_is_none(writers: Writers, people: Path, job: str, service: Service) -> None:
    """One of two failed items is damaged on the disk: told by name, the other one is retried."""
    service.moods = {"4": [(422, {})], "9": [(422, {})]}
    writer = writers().start()
    with connect(writer.directory) as client:
        migrate(client, people, job, url=service.url)
        client.retry(job, where="validation")
        damaged(writer, "UPDATE items SET body = body || X'00' WHERE key = '4'")
        assert typed("verify", writer.directory).returncode == 1
        with pytest.raises(CorruptItem, match="'4'"):
            migrate(client, people, job, url=service.url)
        assert counted(client.get(job))["succeeded"] == ROWS - 1
        assert service.puts["9"] == 1
