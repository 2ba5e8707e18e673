"""Errors and kills put under the migration at its system calls: the next run still leaves one good state."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from actorstate.migrate.layouts import SERVER
from actorstate.migrate.run import Round, Settings, migrate_one
from actorstate.migrate.survey import survey
from tests.support.migration import HASTY, NEW, Case, Disks, Stage, disks, migrated
from tests.support.processes import ROOT

__all__ = ["disks"]

CALLS = (
    "write", "pwrite64", "fsync", "fdatasync", "rename", "link", "unlink", "mkdir", "rmdir", "ftruncate", "chmod",
    "chown", "utimensat", "sendfile", "copy_file_range",
)  # fmt: skip
"""What changes files, as Python and SQLite ask for it here."""
FULL = {"write", "pwrite64", "fsync", "rename", "link", "mkdir", "sendfile", "copy_file_range"}
PLACE = re.compile(r'"([^"]+)"|<([^>]+)>')


@dataclass(frozen=True)
class Hit:
    """One system call: its name, how many of that name came before it, and on which kind of file."""

    call: str
    number: int
    role: str


def migrate_alice(data: str) -> None:
    """One user in the main thread: strace counts the calls of each thread for itself."""
    place = Path(data)
    migrate_one(survey(place, SERVER).users[0], Round(place, SERVER, Settings(options=HASTY)))


def traced(data: Path, *options: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from tests.support.processes import main; main()"
    line = [sys.executable, "-c", code, "tests.migration.test_injected_errors", "migrate_alice", str(data)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}
    return subprocess.run(["strace", "-f", *options, *line], cwd=ROOT, env=environment, capture_output=True, text=True)


def hits(stage: Stage, log: Path) -> Iterator[Hit]:
    """The file-changing calls below DATA that a migration makes, in order."""
    ended = traced(stage.data, "-y", "-o", str(log), "-e", f"trace={','.join(CALLS)}")
    assert ended.returncode == 0, ended.stderr
    assert (stage.folder / NEW).exists(), ended.stderr
    counts: dict[str, int] = {}
    for line in log.read_text().splitlines():
        found = re.match(r"\d+\s+(\w+)\((.*)", line)
        if found is None:
            continue
        call = found[1]
        counts[call] = counts.get(call, 0) + 1
        places = [one or other for one, other in PLACE.findall(found[2])]
        below = [place.removeprefix(str(stage.data)) for place in places if place.startswith(str(stage.data))]
        if below:
            yield Hit(call, counts[call], re.sub(r"\.\d+\.tmp", ".N.tmp", below[0]))


@pytest.fixture
def stage(request: pytest.FixtureRequest, tmp_path: Path, disks: Disks) -> Stage:
    stage = Stage(tmp_path / "disk/data", request.param, disks)
    stage.prepare()
    return stage


CASES = [
    pytest.param(Case(True, True, True), id="other disk", marks=pytest.mark.slow),
    pytest.param(Case(True, True, False), id="same disk", marks=pytest.mark.nightly),
]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("stage", CASES, indirect=True)
def test_an_error_of_a_system_call_loses_something_or_leaves_two_states(stage: Stage, tmp_path: Path) -> None:
    first: dict[tuple[str, str], Hit] = {}
    for hit in hits(stage, tmp_path / "log"):
        first.setdefault((hit.call, hit.role), hit)
    assert len(first) > 40
    for hit in first.values():
        for error in errors_of(hit, stage.case):
            stage.set_up()
            rule = f"inject={hit.call}:error={error}:when={hit.number}"
            traced(stage.data, "--seccomp-bpf", "-o", str(tmp_path / "hit"), "-e", f"trace={hit.call}", "-e", rule)
            assert "INJECTED" in (tmp_path / "hit").read_text(), hit
            attended(stage)
            stage.check_migrated()


def errors_of(hit: Hit, case: Case) -> list[str]:
    """On each push one a call, at night all that it can answer."""
    possible = ["ENOSPC", "EIO"] if hit.call in FULL else ["EIO"]
    return possible[:1] if case.other_disk else possible


def attended(stage: Stage) -> None:
    """Nobody needs attention after one error."""
    report = migrated(stage.data)
    assert report.good, report


@pytest.mark.nightly
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("stage", [pytest.param(one.values[0], id=one.id) for one in CASES], indirect=True)
def test_a_kill_before_a_system_call_loses_something_or_leaves_two_states(stage: Stage, tmp_path: Path) -> None:
    everything = list(hits(stage, tmp_path / "log"))
    assert len(everything) > 100
    for hit in everything:
        stage.set_up()
        rule = f"inject={hit.call}:signal=KILL:when={hit.number}"
        traced(stage.data, "-o", str(tmp_path / "hit"), "-e", f"trace={hit.call}", "-e", rule)
        assert "killed by SIGKILL" in (tmp_path / "hit").read_text(), hit
        stage.check_migrated()
