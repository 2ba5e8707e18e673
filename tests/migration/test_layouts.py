"""Layouts: those that only record, those that move, and one of somebody else's app, as the README shows it."""

import contextlib
import re
import sqlite3
import sys
from pathlib import Path

import pytest

from actorstate.errors import BadRequest, TargetFailed, UserRefused
from actorstate.migrate import run_profiles
from actorstate.migrate.layouts import DESKTOP, MOBILE, MOBILE_MOVE, SERVER, Layout, Move, layout_named
from actorstate.migrate.sqlitefiles.registry import COLUMNS, Rows, _Asked
from tests.support.migration import (
    NEW,
    OLD,
    Case,
    make_database,
    make_user,
    migrated,
    registered_rows,
    rows_of,
    says,
    tree,
    typed,
)
from tests.support.processes import ROOT


def rows_in(data: Path, database: str) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(data / database)) as connection:
        return connection.execute("SELECT * FROM profiles ORDER BY user_id").fetchall()


@pytest.mark.parametrize("layout", [DESKTOP, MOBILE], ids=["desktop", "mobile"])
def test_a_layout_that_only_records_moves_or_changes_something(tmp_path: Path, layout: Layout) -> None:
    for user in ("alice", "bob"):
        make_user(tmp_path, user, Case(wal=True, images=True))
    (tmp_path / "backups").mkdir()
    before = tree(tmp_path)
    assert migrated(tmp_path, layout).counts == {"recorded": 2, "skipped": 1}
    rows = rows_in(tmp_path, "profiles.db")
    assert registered_rows(tmp_path, "profiles.db") == [("alice", "default", "Default"), ("bob", "default", "Default")]
    for _ in range(3):
        assert migrated(tmp_path, layout).counts == {"skipped": 3}
        assert run_profiles(tmp_path, layout=layout).users == ()
    assert rows_in(tmp_path, "profiles.db") == rows, "created_at has changed"
    after = {name: one for name, one in tree(tmp_path).items() if name != "profiles.db"}
    assert after == before
    make_user(tmp_path, "carol")
    assert run_profiles(tmp_path, layout=layout).counts == {"recorded": 1, "skipped": 3}


def test_a_phone_keeps_its_backups_where_the_cloud_sees_them(tmp_path: Path) -> None:
    folder = make_user(tmp_path, "alice", Case(wal=True, images=True))
    assert migrated(tmp_path, MOBILE).counts == {"recorded": 1}
    told = typed("migrate", "run", "profiles", tmp_path, "--layout", "mobile", "--move")
    assert told.returncode == 0, told.stdout + told.stderr
    assert len([row for row in says(folder).rows if row[0] == "items"]) == 350
    assert rows_of(folder / "no_backup" / f"{OLD}.pre-migration-backup") == rows_of(folder / NEW)
    assert len(registered_rows(tmp_path, "profiles.db")) == 1
    assert typed("migrate", "rollback", "profiles", tmp_path).returncode == 0
    assert (folder / OLD).exists()
    assert len(registered_rows(tmp_path, "profiles.db")) == 1


def test_a_phones_backup_is_over_its_budget(tmp_path: Path) -> None:
    from dataclasses import replace

    make_user(tmp_path, "alice")
    before = tree(tmp_path)
    report = migrated(tmp_path, replace(MOBILE_MOVE, backup_budget_bytes=1_000))
    assert "over the budget" in report.users[0].reason
    assert tree(tmp_path) == before


def test_a_layout_of_another_app_takes_more_than_30_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    shown = next(block for block in blocks if "Layout(" in block)
    assert len(shown.splitlines()) <= 30
    make_database(tmp_path / "data/alice/notes.db")
    (tmp_path / "data/alice/files").mkdir()
    (tmp_path / "data/alice/files/a.txt").write_text("a")
    (tmp_path / "notes_layout.py").write_text(shown)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.chdir(tmp_path)
    __import__("notes_layout")
    assert (tmp_path / "data/alice/v2/notes.sqlite").exists()
    assert (tmp_path / "data/alice/v2/files/a.txt").read_text() == "a"
    assert registered_rows(tmp_path / "data", "accounts.db") == [("alice", "main", "Main")]
    assert layout_named("notes_layout:NOTES").name == "notes"


@pytest.mark.parametrize("place", ["/etc/passwd", "../peek.db", "a/../b", "", ".", "a//b", "images/peek.db"])
def test_a_layout_leads_out_of_the_users_folder(place: str) -> None:
    with pytest.raises(BadRequest):
        Layout("bad", Move(place, NEW), SERVER.folders)


def test_a_layout_that_nobody_knows_is_taken_for_another() -> None:
    for name in ("servers", "no_such_module:X", "os:path"):
        with pytest.raises(BadRequest):
            layout_named(name)
    with pytest.raises(BadRequest):
        layout_named("desktop", move=True)


def test_users_whose_data_are_strange_are_touched(tmp_path: Path) -> None:
    make_user(tmp_path, "alice", Case(images=True))
    (tmp_path / "linked").symlink_to(tmp_path / "alice")
    folder = make_user(tmp_path, "link", Case(images=True))
    (folder / OLD).rename(tmp_path / "elsewhere.db")
    (folder / OLD).symlink_to(tmp_path / "elsewhere.db")
    folder = make_user(tmp_path, "out", Case(images=True))
    (folder / "images/out").symlink_to("../peek.db")
    folder = make_user(tmp_path, "pipe", Case(images=True))
    import os

    os.mkfifo(folder / "images/pipe")
    report = migrated(tmp_path)
    reasons = {one.user: one.reason for one in report.users}
    assert {one.user: one.result for one in report.users} == {
        "alice": "migrated", "linked": "refused", "link": "refused", "out": "refused", "pipe": "refused"
    }  # fmt: skip
    assert "symbolic link" in reasons["linked"]
    assert "symlink" in reasons["link"]
    assert "would point elsewhere" in reasons["out"]
    assert "neither a file nor a folder" in reasons["pipe"]


def test_rows_that_are_written_together_fail_together(tmp_path: Path) -> None:
    rows, database = Rows(), tmp_path / "system.db"
    bad, good, other = (dict.fromkeys(COLUMNS, name) for name in ("bad", "good", "other"))
    bad["name"] = None  # type: ignore[assignment]
    rows._waiting.put(_Asked(database, "profiles", other))
    rows.record(database, "profiles", good)
    assert [row[0] for row in registered_rows(tmp_path)] == ["good", "other"]
    rows._waiting.put(_Asked(database, "profiles", bad))
    rows.record(database, "profiles", dict.fromkeys(COLUMNS, "late"))
    with pytest.raises(TargetFailed):
        rows.record(database, "profiles", bad)
    assert [row[0] for row in registered_rows(tmp_path)] == ["good", "late", "other"]


def test_a_registry_of_another_shape_is_written_to(tmp_path: Path) -> None:
    folder = make_user(tmp_path, "alice")
    with contextlib.closing(sqlite3.connect(tmp_path / "system.db")) as connection:
        connection.execute("CREATE TABLE profiles (name TEXT)")
    with pytest.raises(UserRefused):
        migrated(tmp_path)
    assert (folder / OLD).exists()
    assert not (folder / "profiles").exists()
