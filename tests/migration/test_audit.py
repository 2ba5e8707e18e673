"""Data that an earlier, unsafe migration has touched: all of it is found, and mended without losing a row."""

import json
import shutil
from pathlib import Path

import pytest

from tests.support.migration import (
    NEW,
    OLD,
    Case,
    add_row,
    failing_at,
    killed_at,
    make_database,
    make_images,
    make_user,
    migrated,
    points_of,
    registered_rows,
    rows_of,
    says,
    tree,
    typed,
)


def found_in(data: Path, *options: str) -> dict[str, list[str]]:
    """The kinds of findings by user."""
    before = tree(data)
    told = typed("migrate", "audit", "profiles", data, "--json", *options)
    if not options:
        assert tree(data) == before, "looking has changed something"
    kinds: dict[str, list[str]] = {}
    for one in json.loads(told.stdout)["findings"]:
        kinds.setdefault(one["user"], []).append(one["kind"])
        assert one["mended"] or not options, one
    return kinds


def test_nothing_is_found_after_a_safe_migration(tmp_path: Path) -> None:
    make_user(tmp_path, "alice", Case(wal=True, images=True))
    migrated(tmp_path)
    assert found_in(tmp_path) == {}
    assert typed("migrate", "audit", "profiles", tmp_path).returncode == 0


def test_a_user_without_backup_or_row_is_not_found(tmp_path: Path) -> None:
    folder = tmp_path / "alice"
    make_database(folder / NEW)
    make_images(folder / "images")
    before = rows_of(folder / NEW)
    assert sorted(found_in(tmp_path)["alice"]) == ["no_backup", "no_row", "orphaned_files"]
    found_in(tmp_path, "--mend")
    assert found_in(tmp_path) == {}
    assert says(folder).rows == before
    assert len(says(folder).images) == 6
    assert rows_of(folder / f"{OLD}.pre-migration-backup") == before
    assert registered_rows(tmp_path) == [("alice", "default", "Default")]
    assert typed("migrate", "verify", "profiles", tmp_path).returncode == 0
    assert typed("migrate", "rollback", "profiles", tmp_path).returncode == 0
    assert rows_of(folder / OLD) == before


def both(data: Path, late: str) -> Path:
    """What finding B leaves: a copy in the new place, and the old database still there."""
    folder = make_user(data, "alice", Case(images=True))
    (folder / NEW).parent.mkdir(parents=True)
    shutil.copyfile(folder / OLD, folder / NEW)
    if late:
        add_row(folder / (OLD if late == "old" else NEW), "late")
    return folder


def test_an_old_database_that_says_the_same_is_kept_for_ever(tmp_path: Path) -> None:
    folder = both(tmp_path, "")
    before = rows_of(folder / OLD)
    assert migrated(tmp_path).counts == {"refused": 1}
    assert found_in(tmp_path) == {"alice": ["both_databases"]}
    found_in(tmp_path, "--mend")
    assert says(folder).rows == before
    assert not (folder / OLD).exists()


@pytest.mark.parametrize("late", ["old", "new"])
@pytest.mark.parametrize("keep", ["old", "new"])
def test_of_two_databases_the_wrong_one_is_kept_or_the_other_is_lost(tmp_path: Path, late: str, keep: str) -> None:
    folder = both(tmp_path, late)
    rows = {"old": rows_of(folder / OLD), "new": rows_of(folder / NEW)}
    told = typed("migrate", "audit", "profiles", tmp_path, "--mend")
    assert told.returncode == 1
    assert "--keep" in told.stdout
    assert (folder / OLD).exists()
    assert (folder / NEW).exists()
    found_in(tmp_path, "--mend", "--keep", keep)
    assert says(folder).rows == rows[keep]
    assert len(says(folder).images) == 6
    backups = list(folder.glob("*-backup"))
    assert [rows_of(path) for path in backups] == [rows["new" if keep == "old" else "old"]]
    assert migrated(tmp_path).good
    assert says(folder).rows == rows[keep]


def test_rows_in_a_log_that_was_left_behind_are_lost(tmp_path: Path) -> None:
    folder = make_user(tmp_path, "alice", Case(wal=True, images=True))
    copy = shutil.copytree(folder, tmp_path.with_name(f"{tmp_path.name}-copy"))
    before = rows_of(copy / OLD)
    (folder / NEW).parent.mkdir(parents=True)
    (folder / OLD).rename(folder / NEW)
    assert len(rows_of(folder / NEW)) < len(before)
    assert "log_left_behind" in found_in(tmp_path)["alice"]
    assert "350 rows" in typed("migrate", "audit", "profiles", tmp_path).stdout
    found_in(tmp_path, "--mend")
    assert rows_of(folder / OLD) == before
    assert migrated(tmp_path).counts == {"migrated": 1}
    assert says(folder).rows == before
    assert (folder / f"{OLD}-wal.left-behind").exists()


def test_a_log_is_put_onto_a_database_that_was_written_to_since(tmp_path: Path) -> None:
    folder = make_user(tmp_path, "alice", Case(wal=True))
    (folder / NEW).parent.mkdir(parents=True)
    (folder / OLD).rename(folder / NEW)
    add_row(folder / NEW, "since")
    before = rows_of(folder / NEW)
    typed("migrate", "audit", "profiles", tmp_path, "--mend")
    assert rows_of(folder / NEW) == before
    assert (folder / f"{OLD}-wal").stat().st_size


@pytest.mark.parametrize("keep", ["old", pytest.param("new", marks=pytest.mark.slow)])
def test_a_kill_while_mending_loses_something(tmp_path: Path, keep: str) -> None:
    from actorstate.migrate.audit import audit_all
    from actorstate.migrate.layouts import SERVER
    from actorstate.migrate.mend import mended

    def mend() -> None:
        assert all(one.mended for one in mended(tmp_path, SERVER, list(audit_all(tmp_path, SERVER)), keep))  # type: ignore[arg-type]

    both(tmp_path, "new")
    number = len(points_of(mend))
    assert number > 8
    for at in range(number):
        shutil.rmtree(tmp_path / "alice")
        folder = both(tmp_path, "new")
        kept = rows_of(folder / (OLD if keep == "old" else NEW))
        killed_at(at, mend)
        if not migrated(tmp_path).good:
            mend()
        assert says(folder).rows == kept
        assert len(says(folder).images) == 6


def test_an_interrupted_run_is_mended_by_the_audit(tmp_path: Path) -> None:
    make_user(tmp_path, "alice")
    other = tmp_path.with_name(f"{tmp_path.name}-other")
    make_user(other, "alice")
    number = points_of(lambda: migrated(other)).index("stage.ended")
    killed_at(number, lambda: migrated(tmp_path))
    assert found_in(tmp_path) == {"alice": ["interrupted"]}
    with failing_at(10**6, OSError()):
        assert migrated(tmp_path).good
    assert found_in(tmp_path) == {}
