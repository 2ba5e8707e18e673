"""A directory of JSON files behind a real writer: the older tool's jobs go on, and it can read what we write."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

import actorstate
from actorstate.client.sync import Client
from actorstate.core.messages.document import JobState
from actorstate.errors import CorruptJob, ForeignEdit, HistoryPruned
from tests.conftest import StartWriter
from tests.support.legacy import CUT_OFF, DATA, a_job, complaints, written

KEY = "actorstate"


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`actorstate ARGUMENTS`, with what it printed."""
    return subprocess.run(
        [sys.executable, "-m", "actorstate", *arguments], env=os.environ | environment,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def listed(client: Client) -> dict[str, JobState]:
    """The jobs that can be read; that others cannot is told after them."""
    found: dict[str, JobState] = {}
    with contextlib.suppress(CorruptJob):
        for state in client.jobs():
            found[state.id] = state
    return found


@pytest.fixture
def old_jobs(tmp_path: Path) -> Path:
    """A directory as the older tool leaves it: two jobs whole, one cut off with a backup, one without any."""
    directory = tmp_path / "old"
    (directory / ".backups").mkdir(parents=True)
    (directory / "whole.json").write_bytes(written(a_job("whole")))
    (directory / "done.json").write_bytes(
        written(a_job("done", status="completed", completedAt="2026-11-22T20:00:00.000Z"))
    )
    (directory / "cut-off.json").write_bytes(written(a_job("cut-off"))[:300])
    (directory / ".backups" / "cut-off.backup.json").write_bytes(written(a_job("cut-off")))
    (directory / "lost.json").write_bytes(b"\0" * 300)
    return directory


def check_readable(directory: Path) -> None:
    """The older tool finds each job where it looks, in a shape that it knows."""
    for path in directory.glob("*.json"):
        assert complaints(path) == [], path
        second = directory / ".backups" / f"{path.stem}.backup.json"
        assert second.read_bytes() == path.read_bytes()


@pytest.mark.skipif(not DATA.exists() and not os.environ.get("CI"), reason="../shared/data/legacy-jobs is not here")
def test_real_jobs_of_the_older_tool_are_not_listed_or_lose_a_field(tmp_path: Path, start_writer: StartWriter) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(DATA, copy)
    for path in (copy, *copy.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    writer = start_writer(at=f"json://{copy}")
    with actorstate.connect(f"json://{copy}") as client:
        jobs = listed(client)
    assert sorted(jobs) == sorted(path.stem for path in DATA.glob("*.json"))
    for job, state in jobs.items():
        found = json.loads((DATA / f"{job}.json").read_bytes()) if job != CUT_OFF else {}
        assert state.created_at.utcoffset() is not None
        assert not found or state.created_at == datetime.fromisoformat(found["startedAt"])
        out = json.loads((copy / f"{job}.json").read_bytes())
        assert not found or out[KEY]["original"] == found
        assert all(out[name] == value for name, value in found.items() if name != "progress")
    assert jobs[CUT_OFF].status == "paused"
    assert jobs[CUT_OFF].progress.processed == 40
    assert jobs[CUT_OFF].recovered is not None
    [kept] = copy.glob(f"{CUT_OFF}.json.corrupted.*")
    assert kept.read_bytes() == (DATA / f"{CUT_OFF}.json").read_bytes()
    log = writer.log.read_text()
    assert "Recovered job from backup" in log
    assert "JSON parse error - file may be corrupted" in log
    assert all(f"attempt={n} wait_ms={wait}" in log for n, wait in enumerate((50, 100, 200, 400, 800), 1))
    for path in copy.glob("*.json"):
        assert complaints(path) == []


def test_jobs_of_the_older_tool_cannot_go_on_here(old_jobs: Path, start_writer: StartWriter) -> None:
    start_writer(at=f"json://{old_jobs}")
    with actorstate.connect(f"json://{old_jobs}") as client:
        assert sorted(listed(client)) == ["cut-off", "done", "whole"]
        with client.attach("whole") as job:
            job.progress(succeeded=100)
            job.checkpoint({"after": 4711, "at": datetime.now(UTC)})
            job.step("s-1", "done")
        client.complete("whole")
        client.create("new", kind="orders", total=5, meta={"raw": b"\0"})
        with pytest.raises(CorruptJob, match="neither its second copy nor its past helps"):
            client.get("lost")
    out = json.loads((old_jobs / "whole.json").read_bytes())
    assert out["progress"]["successful"] == 1591
    assert (out["status"], out["aLaterField"]) == ("completed", [{"kept": True}])
    check_readable_but(old_jobs, "lost")


def check_readable_but(directory: Path, damaged: str) -> None:
    kept = directory / f"{damaged}.json"
    content = kept.read_bytes()
    kept.unlink()
    check_readable(directory)
    kept.write_bytes(content)


def test_a_restart_changes_what_is_told(old_jobs: Path, start_writer: StartWriter) -> None:
    location = f"json://{old_jobs}"
    writer = start_writer(at=location)
    with actorstate.connect(location) as client:
        with client.attach("whole") as job:
            job.progress(succeeded=7)
        before = listed(client)
        writer.kill()
        start_writer(at=location)
        after = listed(client)
        assert {job: (s.revision, s.progress, s.meta) for job, s in before.items()} == {
            job: (s.revision, s.progress, s.meta) for job, s in after.items()
        }
        with pytest.raises(CorruptJob):
            client.get("lost")


def test_an_edit_by_hand_is_overwritten_or_taken_in_silence(old_jobs: Path, start_writer: StartWriter) -> None:
    location = f"json://{old_jobs}"
    writer = start_writer(at=location)
    assert writer.terminate() == 0
    path = old_jobs / "whole.json"
    edited = json.loads(path.read_bytes()) | {"status": "failed"}
    path.write_bytes(written(edited))
    second = start_writer(at=location)
    with actorstate.connect(location) as client:
        with pytest.raises(ForeignEdit) as caught:
            client.get("whole")
        with pytest.raises(ForeignEdit):
            client.attach("whole").__enter__()
        assert "repair" in caught.value.hint
        assert "whole" not in listed(client)
    assert path.read_bytes() == written(edited)
    assert "store.foreign_edit" in second.log.read_text()


def test_a_file_replaced_under_a_running_writer_is_gone(old_jobs: Path, start_writer: StartWriter) -> None:
    location = f"json://{old_jobs}"
    writer = start_writer(at=location)
    with actorstate.connect(location) as client:
        client.get("whole")
        foreign = written(a_job("whole", status="failed"))
        (old_jobs / "whole.json").write_bytes(foreign)
        with client.attach("whole") as job:
            job.progress(succeeded=1)
    [kept] = old_jobs.glob("whole.json.foreign.*")
    assert kept.read_bytes() == foreign
    assert "store.foreign_edit" in writer.log.read_text()


def test_the_other_kind_of_store_is_begun_beside_the_jobs(
    old_jobs: Path, tmp_path: Path, start_writer: StartWriter
) -> None:
    """A tired person leaves the json:// away, or writes it where it does not belong."""
    refused = command("serve", str(old_jobs))
    assert refused.returncode == 4
    assert f"json://{old_jobs}" in refused.stderr
    assert not (old_jobs / "jobs.sqlite").exists()
    assert not (old_jobs / ".actorstate").exists()
    start_writer(at=f"json://{old_jobs}")
    named = command("jobs", str(old_jobs))
    assert (named.returncode, named.stderr.splitlines()[-1]) == (4, f"  name it as it is: json://{old_jobs}")
    directory = tmp_path / "jobs"
    start_writer(at=directory).terminate()
    refused = command("serve", f"json://{directory}")
    assert refused.returncode == 4
    assert "SQLite" in refused.stderr
    assert f"name it as it is: {directory}" in refused.stderr


def test_the_first_look_at_the_older_tools_directory_needs_a_server(old_jobs: Path) -> None:
    location = f"json://{old_jobs}"
    told = command("jobs", location, "--json", ACTORSTATE_AUTOSTART="1")
    try:
        *jobs, damage = json.loads(told.stdout)
        assert [job["id"] for job in jobs] == ["cut-off", "done", "whole"]
        assert (told.returncode, damage["error"]["code"]) == (4, "corrupt_job")
        assert "Recovered job from backup" in (old_jobs / ".actorstate" / "writer.log").read_text()
    finally:
        os.kill(int((old_jobs / ".actorstate" / "lock").read_text()), 15)


def test_doctor_names_a_command_that_is_refused(old_jobs: Path) -> None:
    found = command("doctor", f"json://{old_jobs}")
    assert found.returncode == 1
    assert f"actorstate serve json://{old_jobs}" in found.stdout
    assert "lost" in found.stdout


STRANGERS = {
    "package.json": b'{"name":"shop","version":"1.0.0"}\n',
    "tsconfig.json": b'{\n  // as people write it\n  "compilerOptions": {},\n}\n',
    "rows.json": b'[{"id": 1}]',
    "stray.json": b'{"a":1}',
    "copy-of-whole.json": written(a_job("whole")),
    "order.json": written({"id": "order", "jobType": "item_migration", "status": "shipped", "startedAt": "2026"}),
}


@pytest.mark.parametrize("beside_jobs", [False, True])
def test_files_of_others_are_taken_for_jobs_and_rewritten(
    old_jobs: Path, tmp_path: Path, start_writer: StartWriter, *, beside_jobs: bool
) -> None:
    directory = old_jobs if beside_jobs else tmp_path / "project"
    directory.mkdir(exist_ok=True)
    for name, content in STRANGERS.items():
        (directory / name).write_bytes(content)
    jobs = ["cut-off", "done", "whole"] if beside_jobs else []
    for _ in range(2):
        writer = start_writer(at=f"json://{directory}")
        with actorstate.connect(f"json://{directory}") as client:
            assert sorted(listed(client)) == jobs
            with pytest.raises(ForeignEdit, match=r"package\.json is no file of a job"):
                client.create("package")
        log = writer.log.read_text()
        assert all(log.count(f"/{name}") == 1 for name in STRANGERS if name != "package.json"), log
        writer.terminate()
    (directory / "lost.json").unlink(missing_ok=True)
    verified = command("verify", f"json://{directory}")
    assert not any(Path(name).stem + " " in verified.stdout for name in STRANGERS), verified.stdout
    repaired = command("repair", f"json://{directory}", "--adopt")
    assert not any(Path(name).stem + " " in repaired.stdout for name in STRANGERS), repaired.stdout
    assert {name: (directory / name).read_bytes() for name in STRANGERS} == STRANGERS
    assert not list(directory.rglob("*package*.json.*"))


def test_a_job_that_came_without_its_past_is_called_damaged(tmp_path: Path, start_writer: StartWriter) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    (old / "a.json").write_bytes(written(a_job("a")))
    moved = command("move", f"json://{old}", str(new))
    assert moved.returncode == 0, moved.stderr
    for location in (f"json://{old}", str(new)):
        start_writer(at=location)
        with actorstate.connect(location) as client:
            first = client.get("a")
            assert list(client.history("a", states=True)) == []
            assert list(client.history("a", newest_first=True)) == []
            assert client.get("a", at=datetime.now(UTC)).revision == first.revision
            with pytest.raises(HistoryPruned) as pruned:
                client.get("a", at=datetime(2026, 11, 22, 19, 51, 45, 600_000, UTC))
            assert pruned.value.details["oldest"] == first.revision
            client.pause("a")
            [entry] = client.history("a", states=True)
            assert entry.revision == first.revision + 1
            assert client.get("a", at=first.revision).progress == first.progress
            assert list(client.history("a", after=entry.revision + 41, states=True)) == []
        assert command("log", location, "a").returncode == 0


def test_history_is_damaged_where_the_older_tool_wrote_in_between(tmp_path: Path, start_writer: StartWriter) -> None:
    writer = start_writer(at=f"json://{tmp_path}")
    with actorstate.connect(f"json://{tmp_path}") as client:
        client.create("a")
        client.pause("a")
    writer.terminate()
    (tmp_path / "a.json").write_bytes(written(a_job("a")))
    start_writer(at=f"json://{tmp_path}")
    with actorstate.connect(f"json://{tmp_path}") as client:
        adopted = client.get("a")
        client.pause("a")
        assert [entry.revision for entry in client.history("a", states=True)] == [adopted.revision + 1]
        assert client.get("a", at=1).status == "pending"


def test_what_waited_for_an_approval_waits_for_ever(tmp_path: Path, start_writer: StartWriter) -> None:
    (tmp_path / "a.json").write_bytes(written(a_job("a", status="waiting_approval")))
    start_writer(at=f"json://{tmp_path}")
    with actorstate.connect(f"json://{tmp_path}") as client:
        assert client.get("a").status == "waiting"
        approved = command("approve", f"json://{tmp_path}", "a", "--by", "ann")
        assert approved.returncode == 0, approved.stderr
        assert client.get("a").status != "waiting"
