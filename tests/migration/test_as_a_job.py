"""A run shown as a job: people follow, pause, resume and cancel it; without it nothing is different."""

import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from actorstate import telemetry
from actorstate.client.sync import Client, connect
from actorstate.migrate.jobview import JobView, job_of
from actorstate.migrate.layouts import SERVER
from actorstate.migrate.run import Report, Settings, run_all
from actorstate.migrate.runlock import only_one
from tests.support.migration import HASTY, OLD, Case, killed_at, make_user, migrated, says, typed
from tests.support.processes import LIVELY, Aside, until
from tests.support.writer import WriterProcess


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[WriterProcess]:
    one = WriterProcess(tmp_path / "jobs").start()
    yield one
    one.kill()


@pytest.fixture
def client(writer: WriterProcess) -> Iterator[Client]:
    with connect(writer.directory, settings=LIVELY) as one:
        yield one


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for user in ("alice", "bob", "carol"):
        make_user(tmp_path / "data", user, Case(images=True))
    (tmp_path / "data/backups").mkdir()
    return tmp_path / "data"


def run(client: Client, data: Path) -> Report:
    with JobView(client, data) as view:
        return run_all(data, SERVER, Settings(options=HASTY), view)


def test_a_job_does_not_tell_what_the_run_did(client: Client, data: Path) -> None:
    assert run(client, data).good
    state = client.get(job_of(data))
    assert state.status == "completed"
    assert (state.progress.total, state.progress.succeeded, state.progress.skipped) == (4, 3, 1)
    assert state.progress.bytes
    (data / "dave").mkdir()
    (data / "dave" / OLD).write_bytes(b"noise" * 2_000)
    assert not run(client, data).good
    state = client.get(job_of(data))
    assert state.status == "failed"
    assert (len(state.attempts), state.progress.failed, state.progress.skipped) == (1, 1, 4)


def test_a_run_goes_on_while_it_is_paused_or_after_it_was_cancelled(client: Client, data: Path) -> None:
    job = job_of(data)
    asked: list[str] = []
    paused = threading.Event()

    def ask(_name: str, fields: dict[str, object]) -> None:
        if fields["point"] == "verify.begun" and not asked:
            asked.append("pause")
            client.pause(job)
            paused.set()

    stop = telemetry.listen(ask, "migrate.reached")
    try:
        with connect(client.transport.location.directory, settings=LIVELY) as other:
            beside = Aside(lambda: run(other, data))
            assert paused.wait(30)
            assert until(client, job, lambda state: state.status == "paused").progress.processed < 4
            client.cancel(job)
            report = beside.result()
    finally:
        stop()
    assert isinstance(report, Report)
    assert report.stopped
    assert client.get(job).status == "cancelled"
    assert 1 <= report.counts["migrated"] < 3
    assert run(client, data).good
    assert client.get(job).status == "completed"


def test_a_killed_run_is_counted_twice(client: Client, writer: WriterProcess, data: Path) -> None:
    def work() -> None:
        with connect(writer.directory, settings=LIVELY) as own:
            run(own, data)

    killed_at(45, work)
    assert run(client, data).good
    state = client.get(job_of(data))
    assert state.status == "completed"
    assert state.progress.processed == 4


def test_recovery_needs_the_state_directory(writer: WriterProcess, data: Path) -> None:
    before = says(data / "carol")

    def work() -> None:
        with connect(writer.directory, settings=LIVELY) as own:
            run(own, data)

    killed_at(45, work)
    writer.kill()
    shutil.rmtree(writer.directory)
    assert migrated(data).good
    assert says(data / "carol") == before


def test_the_command_line_does_not_show_its_run_as_a_job(writer: WriterProcess, client: Client, data: Path) -> None:
    told = typed("migrate", "run", "profiles", data, "--state", writer.directory, "--workers", "2")
    assert told.returncode == 0, told.stderr
    assert f"actorstate get {writer.directory} {job_of(data)}" in told.stdout
    assert client.get(job_of(data)).status == "completed"
    assert "to undo it: actorstate migrate rollback profiles" in told.stdout
    assert "of 4 users" in told.stderr
    with only_one(data):
        told = typed("migrate", "status", "profiles", data, "--state", writer.directory)
    assert f"process {os.getpid()} is at work on them now" in told.stdout
    assert f"as a job: {job_of(data)}: completed, 4 of 4 users" in told.stdout
    assert typed("migrate", "rollback", "profiles", data, "--state", writer.directory).returncode == 0
    assert len(client.get(job_of(data)).attempts) == 1
    assert client.get(job_of(data)).progress.succeeded == 3
    nowhere = typed("migrate", "status", "profiles", data, "--state", data / "nowhere", "--json")
    assert nowhere.returncode == 0
    assert json.loads(nowhere.stdout)["job"]["status"] is None
    assert not (data / "nowhere").exists()
