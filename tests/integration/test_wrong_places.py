"""Mistakes about where jobs lie: what is typed, whose it is, and whether there is room. Nothing is left behind."""

import asyncio
import errno
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import actorstate
from actorstate.client.sync import Client
from actorstate.config import ClientSettings
from actorstate.core.messages.requests import Get
from actorstate.endpoint import user_name
from actorstate.errors import BadMessage, BadRequest, HistoryPruned, OtherStore, WriterUnavailable
from actorstate.store import files
from actorstate.store.files import write_durably
from actorstate.store.location import located
from tests.conftest import StartWriter, WriterProcess
from tests.support.legacy import a_job, written

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a directory away")


def typed(*arguments: str | Path, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "actorstate", *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, cwd=cwd, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.mark.parametrize("text", ["json:/x", "sqlite:/x", "postgresql:/x", "json://json:/x", "json:///", "/", "C:/x"])
def test_a_slash_too_few_becomes_a_folder_of_that_name(text: str) -> None:
    with pytest.raises(BadRequest):
        located(text)


def test_an_odd_name_is_no_place() -> None:
    assert [located(text).kind for text in ("./json:/x", "a:b", "data/a:/b")] == ["sqlite"] * 3


def test_a_backup_goes_to_a_folder_named_like_a_url(directory: Path, writer: WriterProcess, tmp_path: Path) -> None:
    with actorstate.connect(directory) as client:
        client.create("job")
    before = set(tmp_path.iterdir())
    nowhere = f"/actorstate-{os.getpid()}"
    for target in (f"json:{nowhere}", f"json://{nowhere}", "json:///"):
        done = typed("backup", directory, target, cwd=tmp_path)
        assert done.returncode == 4, done.stdout
    assert set(tmp_path.iterdir()) == before
    assert not Path(nowhere).exists()


def test_a_store_of_the_other_kind_is_taken_while_a_writer_runs(directory: Path, writer: WriterProcess) -> None:
    with (
        actorstate.connect(f"json://{directory}") as client,
        pytest.raises(OtherStore, match="a SQLite store") as found,
    ):
        client.create("job")
    assert found.value.hint == f"name it as it is: {directory}"
    for command in ("jobs", "top", "web"):
        done = typed(command, f"json://{directory}")
        assert (done.returncode, "holds a SQLite store" in done.stderr) == (4, True), command


def test_files_of_jobs_are_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "old-1.json").write_bytes(written(a_job()))
    done = typed("jobs", tmp_path)
    assert done.returncode == 3
    assert f"name it json://{tmp_path}" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["old-1.json"]


@AS_ROOT
@pytest.mark.parametrize("options", [[], ["--detach"], ["--take-over"]])
@pytest.mark.parametrize("begun", [True, False])
def test_root_leaves_files_in_anothers_directory(tmp_path: Path, options: list[str], *, begun: bool) -> None:
    directory = tmp_path / "jobs"
    made = directory / ".actorstate" if begun else directory
    made.mkdir(parents=True)
    for path in {directory, made}:
        os.chown(path, NOBODY, NOBODY)
    before = sorted(tmp_path.rglob("*"))
    done = typed("serve", directory, *options)
    assert done.returncode == 4
    assert done.stderr.endswith(f"sudo -u {shlex.quote(user_name(NOBODY))} actorstate serve {directory}\n")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_hint_cannot_be_typed_where_a_path_has_spaces(tmp_path: Path) -> None:
    place = tmp_path / "my jobs; rm -rf x"
    done = typed("jobs", place)
    assert shlex.split(done.stderr.splitlines()[-1])[-1] == str(place)
    hasty = ClientSettings(timeout_s=0.3)
    with actorstate.connect(place, settings=hasty) as client, pytest.raises(WriterUnavailable) as found:
        client.create("job")
    assert f"actorstate serve {shlex.quote(str(place))}" in found.value.hint
    place.mkdir()
    (place / "jobs.sqlite").write_bytes(b"no database at all" * 100)
    done = typed("doctor", place)
    assert done.returncode == 1
    assert f"serve {place}" not in done.stdout
    assert shlex.quote(str(place)) in done.stdout


def test_a_full_disk_leaves_half_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "epoch"
    write_durably(path, b"1\n")

    def fail(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "injected: no space left on device")

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(OSError, match="injected"):
        write_durably(path, b"2\n")
    assert [(found.name, found.read_bytes()) for found in tmp_path.iterdir()] == [("epoch", b"1\n")]


def test_a_wrong_request_is_answered_with_no_writer(directory: Path, writer: WriterProcess) -> None:
    wrong = Get("no such id!")  # as a defect of ours would send it: the calls look at ids themselves

    async def ask() -> None:
        async with actorstate.connect_async(directory) as client:
            await client.create("job")
            with pytest.raises(BadMessage):
                await client.transport.call(wrong, 5.0)
            assert (await client.get("job")).id == "job"

    asyncio.run(ask())
    with actorstate.connect(directory) as client, pytest.raises(BadMessage):
        client.transport.call(wrong, 5.0)


def test_history_is_kept_to_no_bound_that_was_given(directory: Path, start_writer: StartWriter) -> None:
    assert typed("serve", directory, "--keep-days", "0").returncode == 2
    assert typed("serve", directory, "--keep-days", "99999").returncode == 2
    assert typed("serve", directory, "--keep-changes", "0").returncode == 2
    start_writer("--keep-changes", "1", "--keep-days", "2.5")
    with actorstate.connect(directory) as client:
        client.create("job")
        for _ in range(3):
            client.complete("job")  # each end of a job is a keyframe, up to which history is forgotten
            client.retry("job")
        with pytest.raises(HistoryPruned):
            pruned(client)


def pruned(client: Client) -> None:
    """Looks at the beginning until it is forgotten."""
    for _ in range(1_000):
        client.get("job", at=1)
        client.wait("job", after=client.get("job").revision, timeout_s=0.01)
