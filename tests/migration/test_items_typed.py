"""Item migrations as they are typed, and as the README shows them."""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Self

import pytest

from actorstate.client.sync import Client
from tests.support.items import EXPECTED, Service, asked, ledger, people, service
from tests.support.migration import command, typed
from tests.support.processes import ROOT, client, job, served
from tests.support.writer import WriterProcess

__all__ = ["client", "job", "people", "served", "service"]

README = (ROOT / "README.md").read_text()
LINE = ("people.jsonl", "new.sqlite:members", "--key", "id", "--rename", "name=full_name", "--set", "origin=old app")


class Typed:
    """A command that goes on beside the test."""

    def __init__(self, *arguments: object) -> None:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.process.kill()
        self.process.communicate()

    def told(self, words: str) -> str:
        """The next line on standard error in which these words are."""
        assert self.process.stderr is not None
        while line := self.process.stderr.readline():
            if words in line:
                return line
        pytest.fail(f"it never said {words!r}")


def block(language: str, words: str) -> str:
    blocks = re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    [found] = [each for each in blocks if words in each]
    return found


def test_the_recipe_of_the_command_line_does_not_work(
    served: WriterProcess, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(people)
    (people / "new.sqlite").rename("app.sqlite")
    statuses = []
    for line in block("sh", "migrate plan items").splitlines():
        told = typed(*shlex.split(line.replace("data/jobs", str(served.directory)))[1:])
        statuses.append(told.returncode)
        if "--state" in line and "--retry" not in line:
            assert re.search(r"1 validation; which: actorstate items \S+ (\S+) --outcome failed", told.stdout), (
                told.stdout
            )
            text = (people / "people.jsonl").read_text()
            (people / "people.jsonl").write_text(text.replace("null", '"person 7"'))  # mended, as its reader would
    assert statuses == [0, 1, 0, 0]


def test_a_source_and_a_target_of_ones_own_do_not_work(client: Client) -> None:
    notes = [{"id": number, "text": f"note {number}"} for number in range(1_200)]
    index: dict[str, object] = {"7": {"id": 7, "text": "old"}, "8": {"id": 8, "text": "note 8"}}
    names = {"client": client, "notes": notes, "index": index}
    exec(compile(block("python", "migrate_items"), "README.md", "exec"), names)
    progress = names["state"].progress
    assert (progress.succeeded, progress.skipped, progress.total) == (1_199, 1, 1_200)
    assert list(index.values()) == [notes[7], notes[8], *notes[:7], *notes[9:]]


def test_a_plan_writes_or_makes_a_job(served: WriterProcess, people: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(people)
    before = {path.name: path.read_bytes() for path in people.iterdir()}
    told = typed("migrate", "run", "items", *LINE, "--state", people / "jobs", "--json", MIGRATION_DRY_RUN="true")
    preview = json.loads(told.stdout)["preview"]
    assert (told.returncode, preview["counts"]) == (0, {"create": 19, "duplicate": 1})
    assert {path.name: path.read_bytes() for path in people.iterdir()} == before


WRONG = {
    "rollback items a b": "rollback means nothing for items",
    "run items people.jsonl new.sqlite:members --key id": "--state DIR says where the job is kept",
    "run items people.jsonl new.sqlite:members --key id --state jobs --rename name": "two names with = between them",
    "run items people.jsonl new.sqlite:members --key id --state jobs --workers 2": "--workers is for HTTP targets",
}


@pytest.mark.parametrize("line", WRONG)
def test_a_line_that_means_nothing_does_something(people: Path, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(people)
    told = typed("migrate", *shlex.split(line))
    assert (told.returncode, WRONG[line] in told.stderr) == (2, True), told.stderr
    assert not (people / "jobs").exists()


def test_a_service_gets_no_header_or_a_job_keeps_it(
    served: WriterProcess, client: Client, people: Path, job: str, service: Service
) -> None:
    (people / "headers").write_text("Authorization: Bearer s3cret\n")
    seen: list[str | None] = []
    service.on_request = lambda headers: seen.append(headers["Authorization"])
    told = typed(
        "migrate", "run", "items", people / "people.jsonl", service.url, "--key", "id", "--state", served.directory,
        "--job", job, "--workers", 2, "--headers", people / "headers",
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert set(seen) == {"Bearer s3cret"}
    assert len(service.items) == 20
    assert "s3cret" not in repr(client.get(job))
    assert ledger(client, job) == {}


def test_what_is_asked_is_not_shown_where_it_is_typed(
    served: WriterProcess, client: Client, people: Path, job: str
) -> None:
    asked(people, "INSERT INTO members VALUES (101, 'gone', 1, NULL)")
    state = ("--state", served.directory, "--job", job)
    source, target, *rules = LINE
    ends = (people / source, people / target)
    with Typed("migrate", "run", "items", *ends, *rules, *state, "--delete-missing") as process:
        question = process.told("to say yes")
        shown = typed("migrate", "status", "items", *ends, *state)
        assert "to delete, once approved: 1 items" in shown.stdout
        assert "\n  101\n" in shown.stdout
        assert typed(*shlex.split(question.rpartition("actorstate ")[2])).returncode == 0
        assert process.process.wait(30) == 1
    assert "to delete" not in typed("migrate", "status", "items", *ends, *state).stdout
    assert [row for row in asked(people, "SELECT * FROM members ORDER BY id") if row[0] != 3] == EXPECTED
