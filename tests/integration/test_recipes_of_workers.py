"""The README's recipes for many workers, run as they stand there."""

import re
import shlex
from pathlib import Path

import pytest

from actorstate.client.sync import connect
from tests.integration.test_cli import actorstate
from tests.support.processes import Aside, until
from tests.support.writer import ROOT, Writers, writers

__all__ = ["writers"]

README = (ROOT / "README.md").read_text()


def block(language: str, first_words: str) -> str:
    """The block of code in which these words stand."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    [found] = [each for each in blocks if first_words in each]
    return found


def typed(text: str, directory: Path) -> None:
    for line in text.splitlines():
        command = shlex.split(line.replace("data/jobs", str(directory)))
        result = actorstate(*command[1:])
        assert result.returncode == 0, result.stderr


def test_a_recipe_for_many_workers_does_not_work(writers: Writers, capsys: pytest.CaptureFixture[str]) -> None:
    writer = writers().start()
    seen: list[int] = []
    with connect(writer.directory) as client:
        names = {"client": client, "part": range(5), "migrate": seen.append}
        exec(block("python", "unique_key="), names)
        assert (seen, client.get("orders-7").unique_key) == ([0, 1, 2, 3, 4], "orders/march")
        asking = Aside(lambda: exec(block("python", "wait_for_approval("), names))
        until(client, "orders-7", lambda state: state.status == "waiting")
        typed(block("sh", "actorstate approve"), writer.directory)
        asking.result()
        typed(block("sh", "actorstate throttle"), writer.directory)
        client.fail("orders-7", "enough")
        exec(block("python", "for attempt in client.get("), names)
        assert client.get("orders-7").status == "pending"
    assert capsys.readouterr().out.splitlines() == ["approved by ann", "1 failed 5 enough"]
