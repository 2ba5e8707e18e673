"""The README's recipes for mirrors and asyncio, run as they stand there."""

import asyncio
import re
import textwrap
from pathlib import Path

import pytest

from actorstate.client.sync import connect
from tests.support.writer import Writers, writers

__all__ = ["writers"]

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()


def recipe(begin: str) -> str:
    """The first Python block after these words."""
    return re.findall(r"^```python\n(.*?)^```", README[README.index(begin) :], re.MULTILINE | re.DOTALL)[0]


def test_the_recipe_of_the_mirror_does_not_work(writers: Writers) -> None:
    with connect(writers().start().directory) as client:
        client.create("import-43")
        names = {"client": client}
        exec(recipe("**Many readers.**"), names)
        assert names["state"].status == "paused"
        assert names["running"] == []


def test_the_recipe_of_asyncio_does_not_work(writers: Writers, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = writers().start()
    monkeypatch.chdir(writer.directory.parent)
    done: list[int] = []

    async def migrate(row: int) -> None:
        await asyncio.sleep(0)
        done.append(row)

    text = textwrap.dedent(recipe("**asyncio.**")).replace("data/jobs", str(writer.directory))
    names: dict[str, object] = {"rows": list(range(5)), "migrate": migrate}
    exec(f"import actorstate\n{text}", names)
    asyncio.run(names["main"]())
    with connect(writer.directory) as client:
        assert client.get("import-45").status == "completed"
    assert done == list(range(5))
