"""A dry run changes nothing, not even a time or a lock file, and tells what the run then does."""

import re
import subprocess
from pathlib import Path

import pytest

from actorstate.migrate import run_profiles
from actorstate.migrate.journal import read_journal
from actorstate.migrate.layouts import SERVER
from actorstate.migrate.survey import survey
from tests.support.migration import NEW, OLD, Case, command, make_database, make_user, migrated, tree, typed
from tests.support.processes import ROOT

MUTATING = (
    "open,openat,creat,mkdir,mkdirat,rmdir,unlink,unlinkat,rename,renameat,renameat2,link,linkat,symlink,symlinkat,"
    "truncate,ftruncate,fallocate,chmod,fchmod,fchmodat,chown,fchown,fchownat,lchown,utimensat,futimesat,setxattr,"
    "fsetxattr,mknod,mknodat,write,pwrite64,writev,fsync,fdatasync"
)
WRITES = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|O_APPEND")


def mutations(log: str, *folders: Path) -> list[str]:
    """The calls that change something below the folders; an open that only reads is none."""
    named = [line for line in log.splitlines() if any(str(folder) in line for folder in folders)]
    harmless = re.compile(r"\b(open|openat)\(")
    return [line for line in named if not (harmless.search(line) and not WRITES.search(line))]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    make_user(data, "alice", Case(wal=True, images=True))
    make_user(data, "bob", Case(images=True))
    make_database(data / "both" / OLD, 3)
    make_database(data / "both" / NEW, 5)
    (data / "backups").mkdir()
    return data


def test_a_dry_run_changes_something_in_data_or_the_state_directory(data: Path, tmp_path: Path) -> None:
    state, log = tmp_path / "jobs", tmp_path / "strace"
    state.mkdir()
    line = command("migrate", "run", "profiles", data, "--dry-run", "--state", state)
    before = tree(data)
    ended = subprocess.run(
        ["strace", "-f", "-y", "-o", str(log), "-e", f"trace={MUTATING}", *line],
        capture_output=True, text=True, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert ended.returncode == 1, ended.stderr  # `both` would be refused
    assert mutations(log.read_text(), data, state) == []
    assert tree(data) == before
    assert list(state.iterdir()) == []
    assert "(57.5 kB)" in ended.stdout  # its -wal counts


def test_the_count_of_changes_would_not_see_a_run(data: Path, tmp_path: Path) -> None:
    log = tmp_path / "strace"
    line = command("migrate", "run", "profiles", data)
    subprocess.run(["strace", "-f", "-y", "-o", str(log), "-e", f"trace={MUTATING}", *line], capture_output=True,
                   env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"})  # fmt: skip
    assert len(mutations(log.read_text(), data)) > 50


def test_a_dry_run_tells_something_else_than_the_run_does(data: Path) -> None:
    told = typed("migrate", "run", "profiles", data, MIGRATION_DRY_RUN="true")
    lines = told.stdout.splitlines()
    assert lines[0] == "[DRY RUN] Migration check - no data will be moved"
    assert all(line.startswith("[DRY RUN] ") for line in lines)
    assert f"[DRY RUN] Would migrate alice: {OLD} -> {NEW} (" in told.stdout
    assert "[DRY RUN] Would refuse both: both" in told.stdout
    assert f"[DRY RUN] Would skip backups: no {OLD}" in told.stdout
    planned = survey(data, SERVER)
    results = {one.user: one.result for one in migrated(data).users}
    assert results == {"alice": "migrated", "bob": "migrated", "both": "refused", "backups": "skipped"}
    for one in planned.users:
        if one.action == "migrate":
            kept = read_journal(data / one.user)
            assert kept is not None
            assert kept.plan == one


def test_an_app_in_a_dry_run_moves_data(data: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("MIGRATION_DRY_RUN", "true")
    before = tree(data)
    report = run_profiles(data, layout="server")
    assert report.counts == {"planned": 4}
    assert tree(data) == before
    assert "[DRY RUN] Would migrate alice" in capsys.readouterr().out


def test_a_damaged_source_is_not_told_by_a_dry_run(data: Path) -> None:
    (data / "bob" / OLD).write_bytes(b"noise" * 5_000)
    told = typed("migrate", "plan", "profiles", data, "--json")
    assert '"bob": ["' in told.stdout
    assert "Would refuse bob" in typed("migrate", "plan", "profiles", data).stdout
