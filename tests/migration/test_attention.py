"""Users whom nothing safe can be done for: left alone, told where each copy lies, and helped by what is typed next."""

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from actorstate import telemetry
from tests.support.migration import (
    NEW,
    OLD,
    Case,
    add_row,
    killed_at,
    make_user,
    migrated,
    points_of,
    rows_of,
    says,
    tree,
)
from tests.support.migration import typed as command


@contextlib.contextmanager
def failing_twice(first: str, second: str) -> Iterator[None]:
    """A step fails, and so does the way back."""
    failed: list[str] = []

    def listener(_name: str, fields: dict[str, object]) -> None:
        point = str(fields["point"])
        if point in {first, second} and point not in failed:
            failed.append(point)
            raise OSError(5, f"injected at {point}")

    stop = telemetry.listen(listener, "migrate.reached")
    try:
        yield
    finally:
        stop()
    assert failed == [first, second]


@pytest.mark.parametrize("second", ["undo.folder_back", "undo.database_gone", "undo.stage_gone"])
def test_a_way_back_that_failed_is_tried_again_and_again(tmp_path: Path, second: str) -> None:
    folder = make_user(tmp_path, "alice", Case(images=True))
    make_user(tmp_path, "bob")
    before = says(folder)
    with failing_twice("switch.folder_placed", second):
        report = migrated(tmp_path)
    assert {one.user: one.result for one in report.users} == {"alice": "needs_attention", "bob": "migrated"}
    there = tree(tmp_path)
    assert {one.user: one.result for one in migrated(tmp_path).users} == {"alice": "refused", "bob": "skipped"}
    assert tree(tmp_path) == there
    told = command("migrate", "status", "profiles", tmp_path, "--user", "alice")
    assert told.returncode == 1
    assert "going back failed" in told.stdout
    assert str(folder / OLD) in told.stdout
    assert str(folder / f"{OLD}.pre-migration-backup") in told.stdout
    assert f"actorstate migrate audit profiles {tmp_path} --user alice --mend --keep old" in told.stdout
    assert rows_of(folder / OLD) == before.rows


def both_written_to(data: Path) -> Path:
    """A run that was killed after the switch; then an app wrote to the old database, and another to the new one."""
    other = data.with_name(f"{data.name}-other")
    make_user(other, "alice", Case(images=True))
    number = points_of(lambda: migrated(other)).index("switch.ended")
    folder = make_user(data, "alice", Case(images=True))
    killed_at(number, lambda: migrated(data))
    add_row(folder / OLD, "to the old one")
    add_row(folder / NEW, "to the new one")
    return folder


@pytest.mark.parametrize("keep", ["old", "new"])
def test_of_two_databases_that_were_both_written_to_one_is_thrown_away(tmp_path: Path, keep: str) -> None:
    folder = both_written_to(tmp_path)
    rows = {"old": rows_of(folder / OLD), "new": rows_of(folder / NEW)}
    assert migrated(tmp_path).counts == {"needs_attention": 1}
    there = tree(tmp_path)
    assert command("migrate", "run", "profiles", tmp_path).returncode == 1
    assert tree(tmp_path) == there
    told = json.loads(command("migrate", "status", "profiles", tmp_path, "--json").stdout)["users"][0]
    assert {path for path, _ in told["copies"]} >= {str(folder / OLD), str(folder / NEW)}
    line = told["next"].partition("actorstate ")[2].partition(" (or")[0].replace("--keep old", f"--keep {keep}")
    assert command(*line.split()).returncode == 0
    assert says(folder).rows == rows[keep]
    assert len(says(folder).images) == 6
    kept = [rows_of(path) for path in folder.glob("*-backup*") if not path.name.endswith(".json")]
    assert rows["new" if keep == "old" else "old"] in kept
    assert migrated(tmp_path).good


def test_a_journal_that_cannot_be_read_is_taken_for_none(tmp_path: Path) -> None:
    folder = make_user(tmp_path, "alice")
    (folder / ".actorstate-migration.json").write_bytes(b'{"actorstate": 1')
    before = tree(tmp_path)
    assert migrated(tmp_path).counts == {"refused": 1}
    for verb in ("status", "verify", "audit"):
        told = command("migrate", verb, "profiles", tmp_path)
        assert told.returncode == 1, verb
        assert "cannot be understood" in told.stdout
    assert tree(tmp_path) == before


def test_a_row_of_an_unfinished_transaction_is_migrated(tmp_path: Path) -> None:
    folder = make_user(tmp_path, "alice")
    with contextlib.closing(sqlite3.connect(folder / OLD, isolation_level=None)) as app:
        app.execute("BEGIN IMMEDIATE")
        app.execute("INSERT INTO items(title) VALUES ('not committed')")
        assert migrated(tmp_path).counts == {"refused": 1}
    assert migrated(tmp_path).counts == {"migrated": 1}
    assert "not committed" not in str(rows_of(folder / NEW))
