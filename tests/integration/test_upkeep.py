"""`verify`, `repair`, `backup`, `move`, typed as people type them: on whole stores, damaged ones, and under load."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import actorstate
from actorstate.store.choice import view_at
from actorstate.store.location import located
from actorstate.store.move import fingerprint
from tests.conftest import StartWriter
from tests.support.grown import grown
from tests.support.legacy import a_job, written
from tests.support.writer import slow

KINDS = {"sqlite": "", "json": "json://"}
JOBS = ["deleted", "ended", "long", "short", "with-items"]
KILLED = -9


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`actorstate ARGUMENTS`, with what it printed."""
    return subprocess.run(
        [sys.executable, "-m", "actorstate", *arguments], env=os.environ | environment,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def told(*arguments: str) -> dict[str, Any]:
    """What a command says as JSON, and its exit status under `exit`."""
    done = command(*arguments, "--json")
    return json.loads(done.stdout) | {"exit": done.returncode}


def killed(event: str, number: int, *arguments: str) -> int:
    """The exit status of a command that is killed (SIGKILL) at the n-th such event."""
    code = (
        "import itertools, os, signal, sys; from actorstate import telemetry; from actorstate.cli.main import main\n"
        "seen = itertools.count(1)\n"
        "def strike(name, fields):\n"
        f"    next(seen) == {number} and os.kill(os.getpid(), signal.SIGKILL)\n"
        f"telemetry.listen(strike, {event!r}); sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, timeout=120, check=False)
    return done.returncode


def fingerprints(location: str) -> dict[str, str]:
    """All jobs of a store, by id."""
    view = view_at(located(location))
    view.open()
    try:
        return {job: fingerprint(view, job) for job in view.known_jobs()}
    finally:
        view.close()


def files(directory: Path) -> dict[str, bytes]:
    """All that lies in a directory, locks and logs excepted."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name not in {"lock", "writer.log", "jobs.sqlite-shm", "jobs.sqlite-wal"}
    }


@pytest.fixture(params=list(KINDS))
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A whole store of each kind."""
    return str(grown(f"{KINDS[request.param]}{tmp_path / 'jobs'}"))


# --- move


@pytest.mark.parametrize("kind", ["sqlite", slow("json")])
def test_a_job_arrives_as_another(place: str, kind: str, tmp_path: Path) -> None:
    before, target = files(located(place).directory), f"{KINDS[kind]}{tmp_path / 'new'}"
    verdict = told("move", place, target)
    assert (verdict["exit"], verdict["moved"], verdict["equal"], verdict["failed"]) == (0, 5, 5, {})
    assert fingerprints(target) == fingerprints(place)
    assert sorted(fingerprints(target)) == JOBS
    assert files(located(place).directory) == before, "the source was touched"
    assert told("verify", target)["ok"]


@pytest.mark.slow
def test_a_moved_job_cannot_be_worked_on(place: str, tmp_path: Path, start_writer: StartWriter) -> None:
    kind = "json" if "://" not in place else "sqlite"
    target = f"{KINDS[kind]}{tmp_path / 'new'}"
    assert told("move", place, target)["exit"] == 0
    start_writer(at=target)
    with actorstate.connect(target) as client:
        assert client.get("long").progress.processed == 1_200
        with client.attach("long") as job:
            job.progress(succeeded=5)
        assert client.get("long").revision > 1_202
        assert client.get("long").progress.processed == 1_205
        client.create("deleted")
        assert client.get("deleted").revision > 4, "the tombstone did not come along"


@pytest.mark.parametrize("number", [slow(1), slow(2), 3, slow(5), slow(7)])
@pytest.mark.parametrize("kind", ["json", slow("sqlite")])
def test_a_move_that_was_killed_cannot_go_on(place: str, kind: str, number: int, tmp_path: Path) -> None:
    target = f"{KINDS[kind]}{tmp_path / 'new'}"
    assert killed("store.written", number, "move", place, target) == KILLED
    refused = command("serve", target)
    assert refused.returncode == 4
    assert f"actorstate move {place} {target}" in refused.stderr
    verdict = told("move", place, target)
    assert (verdict["exit"], verdict["equal"]) == (0, 5)
    assert fingerprints(target) == fingerprints(place)


@pytest.mark.slow
def test_a_move_overwrites_jobs_or_is_done_twice(place: str, tmp_path: Path) -> None:
    target = str(grown(tmp_path / "other", many=3))
    before = fingerprints(target)
    refused = told("move", place, target)
    assert (refused["exit"], refused["error"]["code"]) == (4, "other_store")
    assert fingerprints(target) == before
    new = str(tmp_path / "new")
    assert told("move", place, new)["exit"] == 0
    assert told("move", place, new)["error"]["code"] == "other_store"
    assert told("move", place, place)["error"]["code"] == "bad_request"
    assert told("move", str(tmp_path / "nowhere"), new)["exit"] == 4


@pytest.mark.slow
def test_a_store_is_moved_under_its_writer(place: str, tmp_path: Path, start_writer: StartWriter) -> None:
    writer = start_writer(at=place)
    refused = command("move", place, str(tmp_path / "new"))
    assert refused.returncode == 4
    assert f"kill {writer.process.pid}" in refused.stderr
    assert not (tmp_path / "new").exists()


def test_the_older_tools_jobs_are_changed_by_their_move(tmp_path: Path) -> None:
    old = tmp_path / "old"
    (old / ".backups").mkdir(parents=True)
    (old / "whole.json").write_bytes(written(a_job("whole")))
    (old / "cut.json").write_bytes(written(a_job("cut"))[:300])
    (old / ".backups" / "cut.backup.json").write_bytes(written(a_job("cut")))
    before = files(old)
    there = told("move", f"json://{old}", str(tmp_path / "there"))
    assert (there["exit"], list(there["recovered"])) == (0, ["cut"])
    assert files(old) == before
    back = tmp_path / "back"
    assert told("move", str(tmp_path / "there"), f"json://{back}")["exit"] == 0
    out = json.loads((back / "whole.json").read_bytes())
    del out["actorstate"], out["progress"]
    assert list(out.items()) == [(name, value) for name, value in a_job("whole").items() if name != "progress"]


@pytest.mark.parametrize("start", [slow("0"), "1"])
def test_a_move_is_not_tracked_as_a_job(start: str, tmp_path: Path) -> None:
    place, target = str(grown(tmp_path / "jobs", many=3)), tmp_path / "new"
    done = command("move", place, f"json://{target}", ACTORSTATE_AUTOSTART=start)
    assert done.returncode == 0, done.stderr
    tracked = target / ".actorstate" / "moving"
    assert tracked.exists() == (start == "1")
    if tracked.exists():
        try:
            state = json.loads(command("get", str(tracked), "move", "--json").stdout)
            assert (state["status"], state["progress"]["processed"]) == ("completed", 5)
        finally:
            os.kill(int((tracked / ".actorstate" / "lock").read_text()), 15)


# --- verify and repair


def test_a_whole_store_is_called_damaged(place: str) -> None:
    before = files(located(place).directory)
    verdict = told("verify", place)
    assert (verdict["exit"], verdict["jobs"], verdict["deleted"], verdict["items"]) == (0, 4, 1, 12)
    assert verdict["changes"] == 1_202 + 5 + 5 + 4
    assert files(located(place).directory) == before
    assert told("repair", place) == {
        "location": place, "dry_run": False, "ok": True, "done": [], "general": [], "damaged": [], "exit": 0,
    }  # fmt: skip


ROWS = {
    "change": "UPDATE changes SET body = x'00' WHERE job = 'long' AND revision = 700",
    "lost change": "DELETE FROM changes WHERE job = 'long' AND revision = 650",
    "newest change": "UPDATE changes SET at = at + 1 WHERE job = 'short' AND revision = 5",
    "newest keyframe": "UPDATE keyframes SET body = x'00' WHERE (job, revision) IN "
    "(SELECT job, max(revision) FROM keyframes WHERE job = 'long')",
    "all of a job": "UPDATE changes SET body = x'00' WHERE job = 'short'",
    "index": "UPDATE jobs SET status = 'completed' WHERE job = 'long'",
    "lost from the index": "DELETE FROM jobs WHERE job = 'long'",
    "deleted in the index": "UPDATE jobs SET deleted = 1 WHERE job = 'long'",
    "item": "UPDATE items SET body = x'00' WHERE job = 'with-items' AND key = 'row-3'",
}


@pytest.mark.parametrize("damage", [damage if damage in {"change", "index"} else slow(damage) for damage in ROWS])
def test_damage_in_the_database_passes_or_cannot_be_mended(damage: str, tmp_path: Path) -> None:
    place = str(grown(tmp_path / "jobs"))
    before = fingerprints(place)
    with sqlite3.connect(tmp_path / "jobs" / "jobs.sqlite") as connection:
        connection.execute(ROWS[damage])
    connection.close()
    found = told("verify", place)
    job = ROWS[damage].split("job = '")[1].split("'")[0]
    assert (found["exit"], [each["job"] for each in found["damaged"]]) == (1, [job])
    dry = told("repair", place, "--dry-run")
    assert (dry["exit"], [each["job"] for each in dry["done"]]) == (1, [job])
    assert told("verify", place) == found, "a dry run has changed something"
    mended = told("repair", place)
    assert (mended["exit"], mended["damaged"]) == (0, [])
    assert told("verify", place)["ok"]
    after = fingerprints(place)
    assert {name: print_ for name, print_ in after.items() if name != job} == {
        name: print_ for name, print_ in before.items() if name != job
    }


@pytest.mark.slow
def test_a_job_that_lost_its_newest_state_goes_on_as_if_nothing_were(tmp_path: Path, start_writer: StartWriter) -> None:
    place = str(grown(tmp_path / "jobs"))
    with sqlite3.connect(tmp_path / "jobs" / "jobs.sqlite") as connection:
        connection.execute("UPDATE changes SET body = x'00' WHERE job = 'long' AND revision = 1202")
        connection.execute("DELETE FROM keyframes WHERE job = 'long' AND revision > 1100")
    connection.close()
    assert told("repair", place)["exit"] == 0
    start_writer(at=place)
    with actorstate.connect(place) as client:
        state = client.get("long")
    assert (state.status, state.revision, state.recovered.lost_up_to) == ("paused", 1_203, 1_202)
    assert state.progress.processed == 1_199
    assert state.recovered.from_revision == 1_201


def test_an_edited_file_is_adopted_without_being_asked(tmp_path: Path, start_writer: StartWriter) -> None:
    place = str(grown(f"json://{tmp_path / 'jobs'}"))
    path = tmp_path / "jobs" / "long.json"
    edited = json.loads(path.read_bytes()) | {"status": "completed", "completedAt": "2026-11-23T00:00:00.000Z"}
    path.write_bytes(written(edited))
    found = told("verify", place)
    assert (found["exit"], [each["job"] for each in found["damaged"]]) == (1, ["long"])
    left = told("repair", place)
    assert left["exit"] == 1
    assert "--adopt" in left["done"][0]["done"]
    assert path.read_bytes() == written(edited)
    adopted = told("repair", place, "--adopt")
    assert adopted["exit"] == 0, adopted
    [kept] = path.parent.glob("long.json.edited.*")
    assert kept.read_bytes() == written(edited)
    start_writer(at=place)
    with actorstate.connect(place) as client:
        state = client.get("long")
    assert (state.status, state.kind, state.revision) == ("completed", "orders", 1_203)
    assert state.checkpoints["main"].data == {"after": 1_190}
    assert state.progress.processed == 1_200


FILES = {
    "file": "long.json",
    "second copy": ".backups/long.backup.json",
    "past": ".generations/long.jsonl",
    "ledger": ".items/with-items.jsonl",
}


@pytest.mark.parametrize("damage", [damage if damage == "past" else slow(damage) for damage in FILES])
def test_damage_in_the_files_passes_or_cannot_be_mended(damage: str, tmp_path: Path) -> None:
    place = str(grown(f"json://{tmp_path / 'jobs'}"))
    before = fingerprints(place)
    path = tmp_path / "jobs" / FILES[damage]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x81
    path.write_bytes(content)
    job = path.name.split(".")[0]
    found = told("verify", place)
    assert (found["exit"], [each["job"] for each in found["damaged"]]) == (1, [job])
    mended = told("repair", place)
    assert (mended["exit"], mended["damaged"]) == (0, []), mended
    kept = [each for each in path.parent.glob(f"{path.name}.corrupted.*") if each.read_bytes() == content]
    assert kept, "the damaged file is gone"
    if damage in {"file", "second copy"}:
        assert fingerprints(place) == before


# --- backup


def test_a_backup_is_not_what_was_there(place: str, tmp_path: Path, start_writer: StartWriter) -> None:
    target = tmp_path / "backup"
    kept = told("backup", place, str(target))
    assert (kept["exit"], kept["jobs"], kept["verified"]) == (0, 4, True)
    copy = f"{place.partition(':')[0]}://{target}" if "://" in place else str(target)
    assert kept["to"] == copy
    assert fingerprints(copy) == fingerprints(place)
    assert {entry["name"]: entry["bytes"] for entry in kept["files"]} == {
        name: len(content) for name, content in files(target).items() if name != ".actorstate/manifest.json"
    }
    assert told("backup", place, str(target))["error"]["code"] == "other_store"
    start_writer(at=copy)
    with actorstate.connect(copy) as client:
        assert sorted(state.id for state in client.jobs()) == ["ended", "long", "short", "with-items"]


@pytest.mark.slow
def test_a_backup_disturbs_the_writer_or_misses_what_was_acknowledged(
    tmp_path: Path, start_writer: StartWriter
) -> None:
    place, target = str(grown(tmp_path / "jobs", many=300)), tmp_path / "backup"
    start_writer(at=place)
    with actorstate.connect(place) as client, client.attach("short") as job:
        job.progress(succeeded=7)
        job.flush()
        acknowledged = client.get("short").revision
        assert told("backup", place, str(target))["exit"] == 0
        assert told("verify", place)["exit"] == 0
        job.progress(succeeded=1)
    shutil.rmtree(tmp_path / "jobs")
    assert json.loads((target / ".actorstate" / "manifest.json").read_bytes())["jobs"] == 4
    start_writer(at=target)
    with actorstate.connect(target) as client:
        assert client.get("short").revision >= acknowledged


@pytest.mark.slow
def test_a_damaged_store_gives_a_backup_that_counts(place: str, tmp_path: Path) -> None:
    if "://" in place:
        (tmp_path / "jobs" / "long.json").write_bytes(b"{")
    else:
        with sqlite3.connect(tmp_path / "jobs" / "jobs.sqlite") as connection:
            connection.execute(ROWS["change"])
        connection.close()
    refused = told("backup", place, str(tmp_path / "backup"))
    assert (refused["exit"], refused["error"]["code"]) == (4, "corrupt_job")
    assert "long" in refused["error"]["message"]
    assert not (tmp_path / "backup").exists()
