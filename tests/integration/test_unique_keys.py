"""A unique key is held by one job at a time: in one batch, over processes and restarts, through ends and retries.

And jobs that expire: by their own time or the writer's, never while they are retried, never one that cannot be read.
"""

import queue
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import cast

import pytest

from actorstate.client.sync import Client, connect
from actorstate.config import WriterSettings
from actorstate.core.messages.replies import Applied, Refused
from actorstate.core.messages.requests import CreateJob, FinishJob, RetryJob
from actorstate.errors import Busy, Conflict, CorruptJob, DiskFull, JobNotFound
from actorstate.store.contract import JobCommit
from actorstate.writer import expiry, server
from tests.support.inprocess import BESIDE, WriterThread, failing, held
from tests.support.processes import LIVELY, WITHIN_S, Child, client, hear, job, served, tell, together
from tests.support.wire import Producer, Wire, applied_in, code_in, join
from tests.support.writer import Writers, listening, writers

__all__ = ["client", "job", "served", "writers"]

KEY = "orders of march"


def test_two_jobs_hold_a_key_or_one_for_ever(client: Client) -> None:
    first = client.create("first", unique_key=KEY)
    assert first.unique_key == KEY
    with pytest.raises(Conflict, match="'first' holds the unique key") as refused:
        client.create("second", unique_key=KEY)
    assert (refused.value.job, refused.value.hint[-6:]) == ("first", " first")
    with pytest.raises(JobNotFound):
        client.get("second")
    assert client.create("first", unique_key=KEY) == first
    client.create("other", unique_key="another key")
    client.complete("first")
    client.create("second", unique_key=KEY)
    with pytest.raises(Conflict, match="'second' holds"):
        client.retry("first")
    assert client.get("first").status == "completed"
    client.delete("second")
    client.retry("first")
    with pytest.raises(Conflict, match="'first' holds"):
        client.create("third", unique_key=KEY)


@pytest.mark.parametrize("gone", ["cancel", "fail", "delete"])
def test_a_key_stays_with_a_job_that_is_gone(client: Client, job: str, gone: str) -> None:
    client.create(job, unique_key=job)
    if gone == "fail":
        client.fail(job, "because")
    else:
        getattr(client, gone)(job)
    client.create(f"{job}-2", unique_key=job)


def test_a_key_is_forgotten_in_a_restart(writers: Writers) -> None:
    writer = writers().start()
    with connect(writer.directory) as client:
        client.create("first", unique_key=KEY)
        client.create("ended", unique_key="free")
        client.complete("ended")
        writer.restart()
        with pytest.raises(Conflict):
            client.create("second", unique_key=KEY)
        client.create("second", unique_key="free")


def test_two_jobs_in_one_batch_both_get_the_key(tmp_path: Path) -> None:
    with WriterThread(tmp_path, BESIDE) as writer, Wire(writer.endpoint) as wire:
        producer, report = Producer(), join(wire, "busy")
        creates = [producer.change(CreateJob(f"job-{number}", unique_key=KEY)) for number in range(5)]
        with held("commit.started") as gate:
            wire.send(Producer().change(report))
            gate.wait_reached()
            wire.send(*creates)
            wire.document("busy")
        answers = [wire.wait(request.id).answer for request in creates]
        assert [type(answer) for answer in answers] == [Applied, *[Refused] * 4]
        assert {code_in(answer) for answer in answers[1:]} == {"busy"}
        assert {code_in(wire.ask(request)) for request in creates[1:]} == {"conflict"}


def test_a_key_goes_to_nobody_when_the_commit_of_its_claimant_failed(tmp_path: Path) -> None:
    with WriterThread(tmp_path, BESIDE) as writer, Wire(writer.endpoint) as wire:
        producer = Producer()
        one, two = (producer.change(CreateJob(name, unique_key=KEY)) for name in ("one", "two"))
        with failing("commit.started", DiskFull("injected")):
            assert code_in(wire.ask(one)) == "disk_full"
        applied_in(wire.ask(two))
        assert code_in(wire.ask(one)) == "conflict"


def test_a_late_copy_of_a_refused_creation_takes_a_key_that_is_free_by_now(tmp_path: Path) -> None:
    with WriterThread(tmp_path) as writer, Wire(writer.endpoint) as wire:
        producer = Producer()
        applied_in(wire.ask(producer.change(CreateJob("first", unique_key=KEY))))
        late = producer.change(CreateJob("second", unique_key=KEY))
        assert code_in(wire.ask(late)) == "conflict"
        applied_in(wire.ask(producer.change(FinishJob("first", "completed"))))
        assert code_in(wire.ask(late)) == "conflict"
        applied_in(wire.ask(producer.change(CreateJob("third", unique_key=KEY))))
        assert code_in(wire.ask(producer.change(RetryJob("first")))) == "conflict"


def claims(directory: str, job: str) -> None:
    """Tells whether it got the key, once it is told to go."""
    with connect(directory, settings=LIVELY) as client:
        tell("ready")
        hear()
        try:
            client.create(job, unique_key=KEY)
        except Conflict:
            tell("refused")
        else:
            tell("created")


def test_the_check_for_a_duplicate_job_is_a_race_between_processes(writers: Writers) -> None:
    """The older tool checked, then acted, and compared a number with a text: the check never fired (defect i)."""
    writer = writers().start()
    children = [Child(claims, writer.directory, f"{number}") for number in range(4)]
    try:
        for child in children:
            child.expect("ready")
        for child in children:
            child.say()
        assert sorted(str(child.read()) for child in children) == ["created", "refused", "refused", "refused"]
    finally:
        for child in children:
            child.__exit__()


def test_threads_of_one_client_share_a_key(client: Client) -> None:
    refused: list[int] = []

    def claim(number: int) -> None:
        try:
            client.create(f"thread-{number}", unique_key="threads")
        except Conflict:
            refused.append(number)

    together(8, claim)
    assert len(refused) == 7
    assert len([state for state in client.jobs() if state.unique_key == "threads"]) == 1


def test_a_client_gives_up_on_a_key_that_is_being_decided(tmp_path: Path) -> None:
    """`Busy` is asked again, and then becomes a definite answer."""
    with WriterThread(tmp_path, BESIDE), connect(tmp_path) as client:
        outcomes: list[str] = []

        def claim(number: int) -> None:
            try:
                client.create(f"job-{number}", unique_key=KEY)
                outcomes.append("created")
            except Conflict:
                outcomes.append("conflict")
            except Busy:
                outcomes.append("busy")

        together(6, claim)
        assert sorted(outcomes) == ["conflict"] * 5 + ["created"]


# --- expiry -----------------------------------------------------------------------------------------------------

BRIEF = WriterSettings(expire_after_s=0.05)


class Departures:
    """Jobs that were deleted, as they are committed."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[str] = queue.SimpleQueue()

    def __call__(self, _name: str, fields: dict[str, object]) -> None:
        for part in cast("tuple[JobCommit, ...]", fields["parts"]):
            if part.deleted:
                self._jobs.put(part.job)

    def wait(self, *jobs: str) -> None:
        """Returns once all of these have left, and fails where another does."""
        missing = set(jobs)
        while missing:
            missing.remove(self._jobs.get(timeout=WITHIN_S))


@pytest.fixture
def departures(monkeypatch: pytest.MonkeyPatch) -> Iterator[Departures]:
    monkeypatch.setattr(server, "TICK_S", 0.1)
    heard = Departures()
    with listening(heard, "commit.synced"):
        yield heard


def test_a_job_stays_for_ever_or_leaves_before_its_time(tmp_path: Path, departures: Departures) -> None:
    """The older tool never deleted a job or a log (defect p)."""
    with WriterThread(tmp_path), connect(tmp_path) as client:
        for name, after_s in (("soon", 0.05), ("later", 3_600.0), ("never", None)):
            client.create(name, expire_after_s=after_s)
        client.create("open", expire_after_s=0.05)
        for name in ("soon", "later", "never"):
            client.complete(name)
        departures.wait("soon")
        assert [state.id for state in client.jobs()] == ["later", "never", "open"]
        assert client.get("never").expires_at is None
        again = client.create("soon")
        assert (again.status, again.revision > 3) == ("pending", True)


def test_the_default_of_the_writer_is_not_heeded_or_lost_with_it(departures: Departures, tmp_path: Path) -> None:
    directory = tmp_path / "brief"
    with WriterThread(directory, WriterSettings(expire_after_s=0.2)), connect(directory) as client:
        assert client.create("mine").expire_after_s == 0.2
        assert client.create("own", expire_after_s=3_600.0).expire_after_s == 3_600.0
        client.complete("mine")
        client.complete("own")
    with WriterThread(directory), connect(directory) as client:
        departures.wait("mine")
        assert client.get("own").status == "completed"
        assert client.create("new").expire_after_s is None


def test_a_job_that_was_retried_is_deleted_by_its_last_end(tmp_path: Path, departures: Departures) -> None:
    with WriterThread(tmp_path), connect(tmp_path) as client:
        client.create("job", expire_after_s=0.5)
        client.complete("job")
        client.retry("job")
        client.create("witness", expire_after_s=0.5)
        client.complete("witness")
        departures.wait("witness")
        assert client.get("job").status == "pending"


def test_a_slice_is_all_that_ever_leaves(
    tmp_path: Path, departures: Departures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "SLICE", 3)
    with WriterThread(tmp_path, BRIEF), connect(tmp_path) as client:
        for number in range(10):
            client.create(f"job-{number}")
            client.complete(f"job-{number}")
        departures.wait(*(f"job-{number}" for number in range(10)))
        assert list(client.jobs()) == []


def test_a_damaged_job_keeps_the_others_from_leaving(
    tmp_path: Path, departures: Departures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "SLICE", 1)
    with WriterThread(tmp_path), connect(tmp_path) as client:
        for name in ("a-damaged", "b-fine"):
            client.create(name, expire_after_s=1.0)
            client.complete(name)
    with closing(sqlite3.connect(tmp_path / "jobs.sqlite")) as database, database:
        for table in ("changes", "keyframes"):
            database.execute(f"UPDATE {table} SET body = x'00' WHERE job = 'a-damaged'")
    reported: list[object] = []
    listener = listening(lambda _name, fields: reported.append(fields["job"]), "expiry.failed")
    with listener, WriterThread(tmp_path), connect(tmp_path) as client:
        departures.wait("b-fine")
        with pytest.raises(CorruptJob):
            client.get("a-damaged")
    assert set(reported) == {"a-damaged"}
