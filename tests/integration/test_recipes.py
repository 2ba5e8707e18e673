"""Every block of code in the README is run as it stands there: here, or in the test that `ELSEWHERE` names."""

import contextlib
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import actorstate
from actorstate.client.sync import Client, connect
from tests.support.writer import ROOT, WriterProcess, Writers, writers

__all__ = ["writers"]

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(python|sh)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
ELSEWHERE = {
    "actorstate demo": "tests/integration/test_demo.py",
    ".venv/bin/pytest": "tests/test_architecture.py",
    "unique_key=": "tests/integration/test_recipes_of_workers.py",
    "wait_for_approval(": "tests/integration/test_recipes_of_workers.py",
    "actorstate approve": "tests/integration/test_recipes_of_workers.py",
    "actorstate throttle": "tests/integration/test_recipes_of_workers.py",
    "for attempt in client.get(": "tests/integration/test_recipes_of_workers.py",
    "client.mirror(stale_after_s": "tests/integration/test_recipes_of_readers.py",
    "connect_async": "tests/integration/test_recipes_of_readers.py",
    "register_blueprint": "tests/web/test_flask.py",
    "actorstate web": "tests/web/test_web_command.py",
    "run_profiles": "tests/migration/test_layouts.py",
    "migrate plan profiles": "tests/migration/test_as_a_job.py",
    "migrate plan items": "tests/migration/test_items_typed.py",
    "migrate_items": "tests/migration/test_items_typed.py",
}
"""Words of a block, and the test that runs it: those need more than a writer and a job."""
LASTING = ("serve", "top", "--follow")
"""What stays until it is told to end: Ctrl-C, once it has said something."""
WITHIN_S = 30.0


class Rejected(Exception):
    """A row of the reader's own that he will not have."""


@dataclass(frozen=True, slots=True)
class Row:
    id: str


class Database:
    """The reader's own."""

    commits = 0

    def commit(self) -> None:
        self.commits += 1


def migrate(row: object) -> None:
    if row == Row("7"):
        raise Rejected(row)


@dataclass(slots=True)
class Scene:
    """A directory `data/jobs` in a folder of its own, with a job that has a past, failed items, and a writer."""

    folder: Path
    client: Client
    writer: WriterProcess
    ends: contextlib.ExitStack

    def names(self) -> dict[str, Any]:
        return {
            "actorstate": actorstate,
            "client": self.client,
            "rows": [Row(str(number)) for number in range(10)],
            "part": [Row(str(number)) for number in range(10)],
            "database": Database(),
            "Rejected": Rejected,
            "migrate": migrate,
            "find": Row,
            "without_passwords": str.strip,
            "datetime": datetime,
            "timedelta": _within_the_past,
            "UTC": UTC,
        }


def _within_the_past(*, hours: float) -> timedelta:
    """The job is some milliseconds old, not an hour."""
    return timedelta(milliseconds=hours)


@pytest.fixture
def scene(writers: Writers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    writer = writers(tmp_path / "data" / "jobs").start()
    with connect(writer.directory) as client:
        client.create("import-43", kind="orders", total=100)
        with client.attach("import-43") as run:
            run.items("failed", {f"order-{number}": "reset" for number in range(3)}, category="network")
            for number in range(45):
                run.progress(succeeded=1)
                run.checkpoint({"after": number})
        with contextlib.ExitStack() as ends:
            yield Scene(tmp_path, client, writer, ends)


def here(language: str) -> list[str]:
    return [text for kind, text in BLOCKS if kind == language and not any(words in text for words in ELSEWHERE)]


def named(text: str) -> str:
    return re.sub(r"\W+", "-", text[:60]).strip("-")


@pytest.mark.parametrize("block", here("python"), ids=named)
def test_python_of_the_readme_does_not_run(scene: Scene, block: str) -> None:
    names = scene.names()
    if "client.watch(" in block:
        scene.client.complete("import-43")
    if "import-42" in block and "client.run" not in block:
        scene.client.create("import-42")
    if "Rejected" not in block:
        names["migrate"] = print
    try:
        exec(compile(block, "README.md", "exec"), names)
    finally:
        if names["client"] is not scene.client:
            names["client"].close()
    for words, holds in OUTCOMES.items():
        if words in block:
            assert holds(scene), words


OUTCOMES: dict[str, Callable[[Scene], bool]] = {
    "client.run(": lambda scene: scene.client.get("import-42").progress.succeeded == 10,
    "except Rejected": lambda scene: scene.client.get("import-43").progress.by_category["validation"] == 1,
    "job.items(": lambda scene: len(list(scene.client.items("import-43", outcome="skipped"))) == 2,
    "job.retries(": lambda scene: scene.client.get("import-43").progress.failed == 0,
    "job.step(": lambda scene: scene.client.get("import-43").steps[0].status == "done",
    "client.restore(": lambda scene: scene.client.get("import-43").status == "paused",
}
"""What is true once a block with these words has run."""


@pytest.mark.parametrize("block", here("sh"), ids=named)
def test_a_command_of_the_readme_does_not_work(scene: Scene, block: str) -> None:
    for line in prepared(scene, block).splitlines():
        if line.startswith("actorstate "):
            assert typed(line, scene) == 0, line


def prepared(scene: Scene, block: str) -> str:
    """The block for this scene: the state that it speaks of, and a folder of ours in the place of /srv."""
    if "actorstate watch" in block:
        scene.client.complete("import-43")
    if "json:///" in block:
        scene.writer.terminate()
        shutil.rmtree(scene.writer.directory)
        old = scene.folder / "migrations"
        old.mkdir()
        beside = scene.ends.enter_context(begun(f"actorstate serve json://{old}"))
        first_words(beside)
        with connect(f"json://{old}") as client:
            client.create("import-43")
        if "actorstate move" in block:
            end(beside)
        else:
            scene.ends.callback(end, beside)
    if any(words in block for words in ("actorstate serve data/jobs\n", "--detach", "repair", "backup")):
        scene.writer.terminate()
    block = re.sub(r"'\d+[hm] ago'", "41", block)  # the job is not so old
    return block.replace("/srv/migrations", str(scene.folder / "migrations"))


def typed(line: str, scene: Scene) -> int:
    """The exit status of a line; Ctrl-C ends what lasts, and a writer in the background is ended too."""
    with begun(line) as process:
        if any(word in line.split() for word in LASTING) and "--detach" not in line:
            first_words(process)
            return end(process)
        status = process.wait(WITHIN_S)
    if "--detach" in line and "--take-over" in line:
        os.kill(scene.writer.endpoint.pid, signal.SIGTERM)
    return status


def begun(line: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", *shlex.split(line)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=environment)


def first_words(process: "subprocess.Popen[bytes]") -> None:
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], WITHIN_S)[0], "it says nothing"
    assert process.stdout.readline()


def end(process: "subprocess.Popen[bytes]") -> int:
    """Ctrl-C is a clean end of what lasts; 130 says that it was that."""
    process.send_signal(signal.SIGINT)
    status = process.wait(WITHIN_S)
    return 0 if status == 130 else status


def test_a_block_of_the_readme_is_run_nowhere() -> None:
    for words, path in ELSEWHERE.items():
        assert (ROOT / path).is_file(), path
        assert any(words in text for _, text in BLOCKS), words
