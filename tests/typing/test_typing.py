"""The client's face as type checkers, editors and `help` see it, though its methods are carried over."""

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import actorstate
from actorstate.client import operations
from actorstate.client.aio import AsyncClient
from actorstate.client.aio.mirror import AsyncMirror
from actorstate.client.aio.run import AsyncRun
from actorstate.client.mirror import Mirror, copy
from actorstate.client.run import Run
from actorstate.client.sync import Client
from actorstate.store.location import located

ROOT = Path(__file__).resolve().parents[2]
FACE = Path(__file__).with_name("face.py")
PUBLIC = [
    function
    for name, function in vars(operations).items()
    if inspect.isfunction(function) and function.__module__ == operations.__name__ and hasattr(Client, name)
]


def wrong_lines() -> list[int]:
    lines = FACE.read_text().splitlines()
    begin = next(number for number, line in enumerate(lines, start=1) if line.startswith("def wrong"))
    return [number for number in range(begin + 2, len(lines) + 1) if lines[number - 1].strip() != "pass"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["mypy", "--strict", "--cache-dir", "{tmp}"], id="mypy"),
        pytest.param(["pyright", "--pythonpath", sys.executable], id="pyright"),
    ],
)
def test_a_checker_misreads_a_carried_method(command, tmp_path):
    arguments = [part.replace("{tmp}", str(tmp_path)) for part in command]
    told = subprocess.run([sys.executable, "-m", *arguments, str(FACE)], cwd=ROOT, capture_output=True, text=True)
    errors = re.findall(r"face\.py:(\d+)(?::\d+)?:? .*error", told.stdout)
    assert sorted({int(line) for line in errors}) == wrong_lines(), told.stdout + told.stderr


@pytest.mark.parametrize(
    ("face", "operation"),
    [
        pytest.param(face, operation, id=f"{face.__name__}.{operation.__name__}")
        for face in (Client, AsyncClient)
        for operation in [*PUBLIC, copy.mirror]
    ],
)
def test_help_shows_another_signature_than_the_operation_has(face: type, operation: Callable[..., object]) -> None:
    method = getattr(face, operation.__name__)
    told, meant = inspect.signature(method), inspect.signature(operation)
    assert list(told.parameters) == ["self", *meant.parameters]
    assert list(told.parameters.values())[1:] == list(meant.parameters.values())
    assert list(inspect.signature(getattr(Client(located("."), None), operation.__name__)).parameters) == list(
        meant.parameters
    )
    assert method.__doc__ == operation.__doc__
    assert inspect.isfunction(method)


def test_the_stub_of_the_package_names_something_else_than_the_package_has() -> None:
    stub = {node.targets[0].id: node for node in ast.parse((ROOT / "actorstate" / "__init__.pyi").read_text()).body
            if isinstance(node, ast.Assign)}  # fmt: skip
    names = ast.literal_eval(stub["__all__"].value)
    assert names == actorstate.__all__
    assert all(hasattr(actorstate, name) for name in names)
    assert not hasattr(actorstate, "connect_later")


def test_a_blocking_program_imports_asyncio() -> None:
    program = "import sys, actorstate; print('asyncio' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert told.stdout == "False\n", told.stdout + told.stderr


@pytest.mark.parametrize(("blocking", "asynchronous"), [(Client, AsyncClient), (Run, AsyncRun), (Mirror, AsyncMirror)])
def test_one_of_the_two_clients_lacks_a_name(blocking: type, asynchronous: type) -> None:
    missing = {name for name in dir(blocking) if not name.startswith("_") and not hasattr(asynchronous, name)}
    assert missing <= BLOCKING_ONLY


BLOCKING_ONLY = {"heed_row", "retries_of"}
"""What the tracks and retries of both runs are made of."""
