"""`items`, `retry --where` and `jobs --newest` as people and scripts type them."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from actorstate.client.sync import Client, connect

Told = "subprocess.CompletedProcess[str]"


@pytest.fixture(scope="module")
def folder(shared_writer: object) -> Path:
    """A directory with one job: three failures of two kinds, and one that was left out."""
    directory: Path = shared_writer.directory  # type: ignore[attr-defined]
    with connect(directory) as client:
        client.create("import-1", total=10)
        with client.attach("import-1") as run:
            run.items("failed", {"a": "timeout", "b": "timed\x1b[2J out\nagain"}, category="network")
            run.failed("c c", ValueError("bad"), category="not valid")
            run.skipped("s")
    return directory


@pytest.fixture
def client(folder: Path) -> Iterator[Client]:
    with connect(folder) as client:
        yield client


def actorstate(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "actorstate", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)


def test_a_table_of_items_obeys_an_escape_or_loses_a_column(folder: Path) -> None:
    told = actorstate("items", folder, "import-1")
    head, *rows = told.stdout.splitlines()
    assert (told.returncode, head.split()) == (0, ["KEY", "OUTCOME", "CATEGORY", "TRIES", "LAST", "ERROR"])
    assert [row.split()[:3] for row in rows] == [
        ["a", "failed", "network"],
        ["b", "failed", "network"],
        ["c", "c", "failed"],
        ["s", "skipped", "-"],
    ]
    assert "\x1b" not in told.stdout


def test_json_lines_are_no_json_or_miss_a_filter(folder: Path) -> None:
    told = actorstate("items", folder, "import-1", "--outcome", "failed", "--category", "network", "--json")
    items = [json.loads(line) for line in told.stdout.splitlines()]
    assert [item["key"] for item in items] == ["a", "b"]
    assert items[1]["error"] == "timed\x1b[2J out\nagain"
    assert set(items[0]) == {"key", "outcome", "first_at", "last_at", "category", "attempts", "error"}


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["import-1", "--category", "none-such"], 0, "has no such items"),
        (["import-1", "--after", "b", "--limit", "1", "--json"], 0, ""),
        (["none-such"], 1, "there is no job"),
        (["import-1", "--outcome", "lost"], 2, "invalid choice"),
        (["import-1", "--limit", "0"], 2, "--limit"),
    ],
    ids=str,
)
def test_a_script_cannot_tell_how_it_went(folder: Path, arguments: list[str], status: int, said: str) -> None:
    told = actorstate("items", folder, *arguments)
    assert (told.returncode, said in told.stderr) == (status, True)
    if not said:
        assert json.loads(told.stdout)["key"] == "c c"


def test_a_retry_by_category_says_nothing_of_what_is_next(client: Client, folder: Path) -> None:
    client.create("import-2")
    with client.attach("import-2") as run:
        run.items("failed", ["a", "b", "c"], category="network")
    client.complete("import-2")
    told = actorstate("retry", folder, "import-2", "--where", "network")
    assert told.returncode == 0
    assert "3 items are to be done once more, by a worker's job.retries()" in told.stdout
    assert "3 to retry" in actorstate("get", folder, "import-2").stdout
    assert json.loads(actorstate("get", folder, "import-2", "--json").stdout)["progress"]["retrying"] == 3
    both = actorstate("retry", folder, "import-2", "--where", "network", "--from-start")
    assert (both.returncode, "--where" in both.stderr) == (2, True)


def test_the_newest_job_is_not_the_first(client: Client, folder: Path) -> None:
    for name in ("z-older", "a-newer"):
        client.create(name, kind="aged")
    told = actorstate("jobs", folder, "--kind", "aged", "--newest", "--limit", "1")
    assert [row.split()[0] for row in told.stdout.splitlines()] == ["JOB", "a-newer"]
    told = actorstate("jobs", folder, "--kind", "aged", "--newest", "--json")
    assert [job["id"] for job in json.loads(told.stdout)] == ["a-newer", "z-older"]
