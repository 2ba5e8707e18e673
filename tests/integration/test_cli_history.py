"""The past on the command line: `log`, `history`, `diff`, `restore`, `get --at`, as people type them."""

import argparse
import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from actorstate.cli.moments import moment
from actorstate.client.sync import Client, connect
from tests.support.inprocess import WriterThread

DEADLINE_S = 60.0
JOB = "import-42"


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    with WriterThread(tmp_path / "jobs") as writer:
        yield writer.directory


@pytest.fixture
def client(directory: Path) -> Iterator[Client]:
    with connect(directory, autostart=False) as client:
        client.create(JOB, kind="orders", total=1_000)
        with client.attach(JOB, worker="web-1") as run:
            for number in range(1, 4):
                run.progress(succeeded=number * 10, failed=1)
                run.checkpoint({"row": number})
        yield client


def actorstate(*arguments: str | Path, **options: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "actorstate", *map(str, arguments)]
    options = {"stdin": subprocess.DEVNULL, "timeout": DEADLINE_S, **options}
    return subprocess.run(command, capture_output=True, text=True, **options)  # type: ignore[call-overload, no-any-return]  # options by name


def told(*arguments: str | Path) -> str:
    done = actorstate(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_log_is_silent_or_in_another_order(client: Client, directory: Path) -> None:
    lines = told("log", directory, JOB, "-n", "4").splitlines()
    assert [line.split()[1] for line in lines] == ["3", "4", "5", "6"]
    assert "web-1" in lines[0]
    assert lines[0].endswith("+10 succeeded, +1 failed, saved default")
    assert len(told("log", directory, JOB).splitlines()) == client.get(JOB).revision
    entries = json.loads(told("log", directory, JOB, "-n", "2", "--json"))
    assert [entry["what"] for entry in entries] == ["Report", "Detach"]


def test_a_followed_log_ends_before_the_job_or_after(client: Client, directory: Path) -> None:
    command = [sys.executable, "-m", "actorstate", "log", str(directory), JOB, "-n", "1", "-f"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().endswith("detached\n")
        client.fail(JOB, "no space")
        assert process.stdout.readline().endswith("failed: no space\n")
        assert process.stdout.read() == ""
        assert process.wait(DEADLINE_S) == 0


def test_the_history_shows_other_counts(client: Client, directory: Path) -> None:
    head, *lines = told("history", directory, JOB, "--after", "2", "--limit", "2").splitlines()
    assert head.split() == ["REVISION", "TIME", "STATUS", "PROCESSED", "FAILED", "WHO", "CHANGE"]
    rows = [line.split() for line in lines]
    assert [[row[0], *row[2:5]] for row in rows] == [["3", "running", "11", "1"], ["4", "running", "32", "2"]]
    entries = json.loads(told("history", directory, JOB, "--limit", "1", "--json"))
    assert [entry["progress"]["processed"] for entry in entries] == [client.get(JOB).progress.processed]


def test_the_past_is_shown_as_the_present(client: Client, directory: Path) -> None:
    assert "revision 3," in told("get", directory, JOB, "--at", "3")
    state = json.loads(told("get", directory, JOB, "--at", client.get(JOB, at=4).updated_at.isoformat(), "--json"))
    assert (state["revision"], state["progress"]["processed"]) == (4, 32)
    lines = told("diff", directory, JOB, "3", "4").splitlines()
    assert "progress.processed: 11 -> 32" in lines
    assert "checkpoints.default.data.row: 1 -> 2" in lines
    assert told("diff", directory, JOB, "4", "4") == "no difference\n"


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("get", "{}", JOB, "--at", "99"), 4, "99 has not happened"),
        (("get", "{}", JOB, "--at", "1h ago"), 1, "was created later"),
        (("diff", "{}", JOB, "1h"), 1, "actorstate history"),
        (("get", "{}", JOB, "--at", "soon"), 2, "is no moment"),
        (("restore", "{}", JOB, "2026-01-01"), 2, "write 2026-01-01T00:00Z"),
        (("restore", "{}", "nobody", "1"), 4, "there is no job"),
        (("log", "{}", "nobody"), 1, "there is no job"),
        (("log", "{}", JOB, "-n", "0"), 2, "-n"),
        (("history", "{}", JOB, "--after", "-1"), 2, "--after"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, tuple) else None,
)
def test_a_wrong_moment_is_taken(
    client: Client, directory: Path, arguments: tuple[str, ...], status: int, says: str
) -> None:
    before = client.get(JOB).revision
    done = actorstate(*(part.format(directory) for part in arguments))
    assert (done.returncode, done.stdout) == (status, "")
    assert says in done.stderr
    assert client.get(JOB).revision == before


def test_a_dry_run_restores_or_hides_what_a_restore_would_do(client: Client, directory: Path) -> None:
    before = client.get(JOB)
    shown = told("restore", directory, JOB, "3", "--dry-run")
    assert "progress.processed: 63 -> 11" in shown
    assert "checkpoints.default.data.row: 3 -> 1" in shown
    assert client.get(JOB) == before
    assert json.loads(told("restore", directory, JOB, "3", "--dry-run", "--json"))[0]["path"] == "progress.processed"


def test_a_restore_brings_nothing_back_and_does_not_say_how_to_go_on(client: Client, directory: Path) -> None:
    done = told("restore", directory, JOB, "3", "--by", "ann")
    assert f"actorstate resume {directory} {JOB}" in done
    state = client.get(JOB)
    assert (state.status, state.progress.processed, state.checkpoints["default"].data) == ("paused", 11, {"row": 1})
    assert told("log", directory, JOB, "-n", "1").split()[2] == "ann"
    assert told("resume", directory, JOB)
    again = json.loads(told("restore", directory, JOB, "4", "--json"))
    assert (again["progress"]["processed"], again["recovered"]["from_revision"]) == (32, 4)


@pytest.mark.parametrize(("answer", "status"), [("n", 1), ("", 1), ("y", 0)])
def test_nobody_is_asked_on_a_terminal(client: Client, directory: Path, answer: str, status: int) -> None:
    before = client.get(JOB).revision
    leader, follower = pty.openpty()

    command = [sys.executable, "-m", "actorstate", "restore", str(directory), JOB, "3"]
    with subprocess.Popen(command, stdin=follower, stdout=subprocess.PIPE, text=True) as process:
        os.write(leader, answer.encode() + b"\n")
        assert process.stdout is not None
        shown = process.stdout.read()
        assert process.wait(DEADLINE_S) == status
    os.close(leader)
    os.close(follower)
    assert "bring it back? [y/N]" in shown
    assert (client.get(JOB).revision > before) == (status == 0)


@pytest.mark.parametrize(
    ("text", "age"),
    [
        ("5m ago", timedelta(minutes=5)),
        ("90s", timedelta(seconds=90)),
        ("1.5h ago", timedelta(hours=1.5)),
        ("2 d ago", timedelta(days=2)),
        ("1w", timedelta(weeks=1)),
    ],
)
def test_an_age_is_another_time(text: str, age: timedelta) -> None:
    before = datetime.now(UTC)
    at = moment(text)
    assert isinstance(at, datetime)
    assert before - age <= at <= datetime.now(UTC) - age


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("41", 41),
        ("2026-11-23T01:30Z", datetime(2026, 11, 23, 1, 30, tzinfo=UTC)),
        ("2026-11-23T01:30:00+02:00", datetime(2026, 11, 22, 23, 30, tzinfo=UTC)),
    ],
)
def test_a_moment_is_another_one(text: str, expected: object) -> None:
    assert moment(text) == expected


@pytest.mark.parametrize(
    "text", ["", "-1", "1.5", "5", "5 minutes ago", "soon", "99999999999w", "2026-13-01T00:00Z", "٣"]
)
def test_nonsense_is_a_moment(text: str) -> None:
    if text == "5":
        assert moment(text) == 5
        return
    with pytest.raises(argparse.ArgumentTypeError):
        moment(text)
