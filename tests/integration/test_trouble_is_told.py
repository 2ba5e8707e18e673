"""What an operator types first when something is broken, and what it must not say then: that all is well."""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

import actorstate
from actorstate.errors import CorruptJob
from tests.support.writer import Writers, writers

__all__ = ["writers"]

DAMAGED, WHOLE = ("b-damaged", "d-damaged"), ("a-whole", "c-whole", "e-whole")


def typed(
    *arguments: str | Path, stdout: int = subprocess.PIPE, **environment: str
) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [sys.executable, "-m", "actorstate", *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=stdout,
        stderr=subprocess.PIPE, env=os.environ | environment, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done


def troubles(directory: Path) -> dict[str, dict[str, str]]:
    """What `doctor` finds wrong, by name."""
    report = json.loads(typed("doctor", directory, "--json").stdout)
    return {found["name"]: found for found in report["findings"] if found["level"] == "wrong"}


@pytest.fixture
def damaged(writers: Writers, tmp_path: Path) -> Path:
    """The directory of a running writer with jobs of which two cannot be read."""
    writer, directory = writers().start(), tmp_path / "jobs"
    with actorstate.connect(directory) as client:
        for job in (*DAMAGED, *WHOLE):
            client.create(job, kind="ü")
    writer.terminate()
    with closing(sqlite3.connect(directory / "jobs.sqlite", isolation_level=None)) as database:
        for table in ("changes", "keyframes"):
            database.execute(f"UPDATE {table} SET body = x'00' WHERE job LIKE '%-damaged'")
    writer.start()
    return directory


def test_a_damaged_job_hides_others_or_is_left_out_in_silence(damaged: Path) -> None:
    seen: list[str] = []
    with actorstate.connect(damaged) as client, pytest.raises(CorruptJob, match=r"2 jobs: 'b-damaged', 'd-damaged'"):
        seen.extend(state.id for state in client.jobs())
    assert seen == list(WHOLE)
    text, plain = typed("jobs", damaged), typed("jobs", damaged, "--json")
    assert (text.returncode, plain.returncode) == (4, 4)
    assert [line.split()[0] for line in text.stdout.splitlines()[1:]] == list(WHOLE)
    assert "2 jobs" in text.stderr
    assert f"actorstate verify {damaged}" in text.stderr
    *jobs, error = json.loads(plain.stdout)
    assert [job["id"] for job in jobs] == list(WHOLE)
    assert (error["error"]["code"], error["error"]["details"]["number"]) == ("corrupt_job", 2)
    assert typed("jobs", damaged, "--limit", "3").returncode == 0


def test_top_waits_for_damaged_jobs_or_says_nothing_of_them(damaged: Path) -> None:
    done = typed("top", damaged, "--once")
    assert done.returncode == 4
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == list(WHOLE)
    assert done.stderr.count("2 jobs are damaged") == 1
    assert f"actorstate verify {damaged}" in done.stderr


def test_doctor_calls_a_refused_damaged_job_well(damaged: Path) -> None:
    assert typed("get", damaged, DAMAGED[0]).returncode == 4
    assert troubles(damaged)["damage"]["next"] == f"actorstate verify {damaged}"


@pytest.mark.parametrize("content", [b"", b"garb\xff", b"-3", b"9" * 30])
def test_a_damaged_epoch_file_stops_a_store_that_has_its_own(writers: Writers, tmp_path: Path, content: bytes) -> None:
    writer, directory = writers().start(), tmp_path / "jobs"
    writer.terminate()
    path = directory / ".actorstate" / "epoch"
    path.write_bytes(content)
    assert troubles(directory)["epoch"]["next"] == f"rm {path}"
    writer.start()
    assert path.read_bytes() == b"2\n"
    assert "epoch.damaged" in writer.log.read_text()
    assert "epoch" not in troubles(directory)


def test_a_lost_store_begins_anew_at_a_damaged_epoch(tmp_path: Path) -> None:
    path = tmp_path / "jobs" / ".actorstate" / "epoch"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    refused = typed("serve", tmp_path / "jobs")
    assert (refused.returncode, refused.stderr.splitlines()[-1]) == (4, f"  rm {path}")


def test_doctor_finds_half_a_move_well(writers: Writers, tmp_path: Path) -> None:
    writers().start().terminate()
    (tmp_path / "jobs" / ".actorstate" / "move").write_text(json.dumps({"from": "/old", "done": False}))
    assert troubles(tmp_path / "jobs")["store"]["next"].endswith(f"actorstate move /old {tmp_path / 'jobs'}")


def test_doctor_finds_a_database_well_that_no_command_opens(writers: Writers, tmp_path: Path) -> None:
    writers().start().terminate()
    (tmp_path / "copy").mkdir()
    (tmp_path / "jobs" / "jobs.sqlite").rename(tmp_path / "copy" / "jobs.sqlite")
    assert typed("jobs", tmp_path / "copy").returncode == 3
    assert troubles(tmp_path / "copy")["store"]["next"] == f"actorstate serve {tmp_path / 'copy'}"


def test_doctor_would_have_a_stopped_writer_killed(writers: Writers, tmp_path: Path) -> None:
    writer = writers().start()
    writer.stop()
    found = troubles(tmp_path / "jobs")
    assert found["lock"]["next"].startswith(f"kill -CONT {writer.pid} ")
    assert found["lock"]["next"].endswith(f"actorstate serve {tmp_path / 'jobs'} --detach --take-over")
    assert "is stopped" in found["writer"]["message"]
    assert not found["writer"]["next"]


@pytest.mark.parametrize("command", ["jobs", "items"])
def test_a_limit_beyond_all_numbers_is_a_defect(tmp_path: Path, command: str) -> None:
    job = ["any"] if command == "items" else []
    assert typed(command, tmp_path, *job, "--limit", "9223372036854775808").returncode == 2


@pytest.mark.parametrize(
    "arguments", [["jobs"], ["jobs", "--json"], ["get", "a", "--json"], ["get", "nowhere", "--json"]]
)
def test_a_full_standard_output_is_a_defect(writers: Writers, tmp_path: Path, arguments: list[str]) -> None:
    writers().start()
    with actorstate.connect(tmp_path / "jobs") as client:
        client.create("a", meta={"much": "x" * 20_000})
    command, *rest = arguments
    with Path("/dev/full").open("wb") as full:
        done = typed(command, tmp_path / "jobs", *rest, stdout=full.fileno())
    assert done.returncode == 4
    assert "standard output: No space left on device" in done.stderr
    assert "doctor" not in done.stderr


def test_a_closed_standard_output_is_a_defect(tmp_path: Path) -> None:
    command = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "actorstate", "jobs", str(tmp_path)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr[:28]) == (4, "actorstate: standard output:")
    assert "Traceback" not in done.stderr


def test_a_kind_that_the_terminal_cannot_show_is_a_defect(writers: Writers, tmp_path: Path) -> None:
    writers().start()
    with actorstate.connect(tmp_path / "jobs") as client:
        client.create("a", kind="ü")
    done = typed("jobs", tmp_path / "jobs", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert "\\xfc" in done.stdout
