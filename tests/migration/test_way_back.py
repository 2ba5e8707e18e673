"""Rollback is exact, also when it is killed; pruning never takes the only good copy, nor when a clock was set."""

import contextlib
import json
import shlex
import shutil
import sqlite3
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from actorstate.migrate.clocks import Moment, clock_problem, doubt, present_moment
from actorstate.migrate.journal import UNFINISHED, Journal, read_journal, write_journal
from actorstate.migrate.prune import prune_all
from actorstate.migrate.rollback import roll_back_all
from actorstate.migrate.run import Watcher
from tests.support.migration import (
    HASTY,
    NEW,
    OLD,
    Case,
    Disks,
    Says,
    add_row,
    failing_at,
    killed_at,
    make_user,
    migrated,
    points_of,
    registered_rows,
    rows_of,
    says,
    tree,
    typed,
)

EVERYTHING = Case(wal=True, images=True)
BACKUP = f"{OLD}.pre-migration-backup"


def back(data: Path, *, from_backup: bool = False) -> None:
    assert roll_back_all(data, Watcher(), HASTY, from_backup=from_backup).good


def kept_in(folder: Path) -> Journal:
    kept = read_journal(folder)
    assert kept is not None
    return kept


def test_rows_since_the_migration_are_lost_by_a_rollback(tmp_path: Path) -> None:
    folder = make_user(tmp_path, "alice", EVERYTHING)
    images = says_at_first(tmp_path, folder).images
    migrated(tmp_path)
    add_row(folder / NEW, "since")
    (folder / "profiles/default/images/since.png").write_bytes(b"since")
    there = says(folder)
    back(tmp_path)
    assert (folder / OLD).exists()
    assert says(folder) == there
    assert says(folder).images == images | {"since.png": b"since"}
    assert registered_rows(tmp_path) == []
    assert not (folder / "profiles").exists()
    assert migrated(tmp_path).counts == {"migrated": 1}
    assert says(folder) == there


def says_at_first(data: Path, folder: Path):
    """What a user says, read from a copy, so that his log stays as it is."""
    return says(shutil.copytree(folder, data.with_name(f"{data.name}-copy")))


def test_a_backup_does_not_bring_back_what_was_before(tmp_path: Path) -> None:
    folder = make_user(tmp_path, "alice", EVERYTHING)
    before = says_at_first(tmp_path, folder)
    migrated(tmp_path)
    add_row(folder / NEW, "by the new release")
    there = says(folder).rows
    back(tmp_path, from_backup=True)
    assert says(folder) == before
    kept = [folder / name for name in kept_in(folder).backups if "pre-rollback" in name]
    assert [rows_of(path) for path in kept] == [there]


def test_a_damaged_new_database_is_in_the_way_of_the_backup(tmp_path: Path) -> None:
    folder = make_user(tmp_path, "alice", EVERYTHING)
    before = says_at_first(tmp_path, folder)
    migrated(tmp_path)
    with (folder / NEW).open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * 4096)
    assert typed("migrate", "rollback", "profiles", tmp_path).returncode == 1
    assert (folder / NEW).exists()
    assert not (folder / OLD).exists()
    told = typed("migrate", "rollback", "profiles", tmp_path, "--from-backup")
    assert told.returncode == 0, told.stdout
    assert "is damaged, and kept as it is" in told.stdout
    assert says(folder) == before


def rolled_back_with_fewer_rows(data: Path) -> tuple[Path, Says]:
    """Rows that the new release has lost; then a rollback, which brings back what the user has now."""
    folder = make_user(data, "alice", EVERYTHING)
    before = says_at_first(data, folder)
    migrated(data)
    with contextlib.closing(sqlite3.connect(folder / NEW)) as app, app:
        app.execute("DELETE FROM items WHERE id > 3")
    back(data)
    assert says(folder).rows != before.rows
    return folder, before


def test_a_backup_that_is_wanted_after_a_rollback_is_said_to_be_back(tmp_path: Path) -> None:
    folder, before = rolled_back_with_fewer_rows(tmp_path)
    fewer = says(folder).rows
    assert "already" in typed("migrate", "rollback", "profiles", tmp_path).stdout
    assert says(folder).rows == fewer
    told = typed("migrate", "prune", "profiles", tmp_path, "--grace", "0s")
    assert told.returncode == 1
    assert (folder / BACKUP).exists()
    line = told.stdout.partition("to have it back: actorstate ")[2].partition(";")[0]
    assert "rolled back" in typed(*line.split()).stdout
    assert says(folder) == before
    assert registered_rows(tmp_path) == []
    kept = [rows_of(folder / name) for name in kept_in(folder).backups]
    assert fewer in kept, "what was there is not kept"
    there = tree(tmp_path)
    assert "already" in typed(*line.split()).stdout
    assert tree(tmp_path) == there


def test_a_backup_is_wanted_where_nothing_or_noise_is_left_after_a_rollback(tmp_path: Path) -> None:
    folder, before = rolled_back_with_fewer_rows(tmp_path)
    (folder / OLD).write_bytes(b"\xff" * 8192)
    told = typed("migrate", "rollback", "profiles", tmp_path, "--from-backup")
    assert told.returncode == 1
    line = told.stdout.partition("type it again: ")[2].splitlines()[0]
    subprocess.run(shlex.split(line), check=True)
    assert typed("migrate", "rollback", "profiles", tmp_path, "--from-backup").returncode == 0
    assert says(folder) == before
    migrated(tmp_path)
    (folder / NEW).unlink()
    assert typed("migrate", "rollback", "profiles", tmp_path, "--from-backup").returncode == 0
    assert says(folder) == before


@pytest.mark.slow
def test_a_kill_while_a_backup_is_brought_back_after_a_rollback_forgets_which(tmp_path: Path, disks: Disks) -> None:
    disks.mount(tmp_path)
    data = tmp_path / "data"
    _, before = rolled_back_with_fewer_rows(data)
    original = shutil.copytree(data, tmp_path / "original")
    number = len(points_of(lambda: back(data, from_backup=True)))
    assert number > 40
    for at in range(0, number, 3):
        shutil.rmtree(data)
        shutil.copytree(original, data)
        killed_at(at, lambda: back(data, from_backup=True))
        one = json.loads(typed("migrate", "status", "profiles", data, "--json").stdout)["users"][0]
        if one["state"] in UNFINISHED:
            assert one["next"].endswith("--user alice --from-backup"), at
        assert typed("migrate", "rollback", "profiles", data, "--from-backup").returncode == 0
        assert says(data / "alice") == before, at


@pytest.mark.parametrize(
    ("other_disk", "from_backup"),
    [
        pytest.param(True, False, marks=pytest.mark.slow),
        pytest.param(False, True, marks=pytest.mark.slow),
        *(pytest.param(*case, marks=pytest.mark.nightly) for case in ((True, True), (False, False))),
    ],
)
def test_a_kill_during_a_rollback_loses_something(tmp_path: Path, disks: Disks, other_disk, from_backup) -> None:
    disks.mount(tmp_path)
    original, data = tmp_path / "original", tmp_path / "data"
    folder = make_user(original, "alice", EVERYTHING)
    before = says_at_first(original, folder)

    def set_up() -> Path:
        disks.unmount_below(data)
        shutil.rmtree(data, ignore_errors=True)
        shutil.copytree(original, data)
        if other_disk:
            disks.mount(data / "alice/profiles")
        assert migrated(data).good
        return data / "alice"

    set_up()
    number = len(points_of(lambda: back(data, from_backup=from_backup)))
    assert number > 20
    for at in range(number):
        folder = set_up()
        killed_at(at, lambda: back(data, from_backup=from_backup))
        assert migrated(data).good  # finishes the rollback or undoes it, and comes to one state
        assert says(folder) == before
        back(data)
        assert says(folder) == before
        assert (folder / OLD).exists()
        assert registered_rows(data) == []


@pytest.mark.slow
def test_an_error_during_a_rollback_leaves_the_user_half_way(tmp_path: Path, disks: Disks) -> None:
    disks.mount(tmp_path)
    data = tmp_path / "data"
    folder = make_user(data, "alice", Case(images=True))
    before = says(folder)

    def set_up() -> None:
        shutil.rmtree(data)
        make_user(data, "alice", Case(images=True))
        assert migrated(data).good

    set_up()
    for number, point in enumerate(points_of(lambda: back(data))):
        set_up()
        with failing_at(number, OSError(5, "injected")):
            report = roll_back_all(data, Watcher(), HASTY)
        if not point.startswith(("remove", "done")):
            assert report.counts == {"failed": 1}, point
            assert (folder / NEW).exists()
            assert registered_rows(data), point
        assert point.startswith("remove") or says(folder) == before
        assert migrated(data).good
        back(data)
        assert says(folder) == before
        assert (folder / OLD).exists()


def ended(folder: Path, wall_ago: float, boot_ago: float, boot: str | None = None) -> None:
    """As if the migration had ended so long ago, on either clock."""
    now, kept = present_moment(), kept_in(folder)
    moment = Moment(now.wall - wall_ago, now.boottime - boot_ago, now.boot if boot is None else boot)
    write_journal(folder, replace(kept, ended=moment))


DAY = 86_400.0


def test_pruning_goes_by_the_age_of_the_file_or_before_the_grace_is_over(tmp_path: Path) -> None:
    folder = make_user(tmp_path, "alice")
    migrated(tmp_path)
    import os

    os.utime(folder / BACKUP, (0, 0))
    assert [bool(one.stays) for one in prune_all(tmp_path)] == [True]
    ended(folder, 29.9 * DAY, 29.9 * DAY)
    assert [bool(one.stays) for one in prune_all(tmp_path)] == [True]
    assert (folder / BACKUP).exists()
    ended(folder, 30.1 * DAY, 30.1 * DAY)
    assert [one.stays for one in prune_all(tmp_path)] == [""]
    assert not (folder / BACKUP).exists()


@pytest.mark.parametrize(
    ("wall_ago", "boot_ago"), [(31 * DAY, 1 * DAY), (31 * DAY, 31 * DAY - 3_700), (-5.0, 10.0)], ids=str
)
def test_a_clock_that_was_set_ends_the_grace(tmp_path: Path, wall_ago: float, boot_ago: float) -> None:
    folder = make_user(tmp_path, "alice")
    migrated(tmp_path)
    ended(folder, wall_ago, boot_ago)
    told = list(prune_all(tmp_path))
    assert [one.wrong for one in told] == [True]
    assert "clock" in told[0].stays
    assert (folder / BACKUP).exists()


def test_a_reboot_or_a_small_correction_keeps_backups_for_ever() -> None:
    end = Moment(1_000_000.0, 500.0, "one boot")
    assert not clock_problem(end, Moment(1_000_000.0 + 31 * DAY, 20.0, "another boot"))
    assert not doubt(end, Moment(1_000_000.0 + 31 * DAY, 30 * DAY, "another boot"), 30 * DAY)
    assert not doubt(replace(end, synchronized=True), Moment(2e6, 20.0, "another boot", synchronized=True), 30 * DAY)
    assert not clock_problem(end, Moment(1_000_000.0 + 31 * DAY + 3_000, 500.0 + 31 * DAY, "one boot"))


@pytest.mark.parametrize(("then", "now"), [(False, True), (True, False), (False, False)])
def test_a_date_that_nothing_vouches_for_ends_the_grace_after_a_reboot(tmp_path: Path, monkeypatch, then, now) -> None:
    folder = make_user(tmp_path, "alice")
    migrated(tmp_path)
    ended(folder, 31 * DAY, 31 * DAY, "another boot")
    kept = kept_in(folder)
    assert kept.ended is not None
    write_journal(folder, replace(kept, ended=replace(kept.ended, synchronized=then)))
    monkeypatch.setattr("actorstate.migrate.clocks.is_synchronized", lambda: now)
    told = list(prune_all(tmp_path))
    assert [one.wrong for one in told] == [True]
    assert "--trust-clock" in told[0].stays
    assert (folder / BACKUP).exists()
    assert [one.stays for one in prune_all(tmp_path, trust_clock=True)] == [""]
    assert not (folder / BACKUP).exists()


def test_the_only_good_copy_is_pruned(tmp_path: Path) -> None:
    folder = make_user(tmp_path, "alice")
    migrated(tmp_path)
    good = (folder / NEW).read_bytes()
    ended(folder, 31 * DAY, 31 * DAY)
    for damaged in (good[:8192], b"", b"\xff" * len(good), None):
        (folder / NEW).unlink()
        if damaged is not None:
            (folder / NEW).write_bytes(damaged)
        told = typed("migrate", "prune", "profiles", tmp_path)
        assert told.returncode == 1
        assert "only good copy" in told.stdout
        assert (folder / BACKUP).exists()
        (folder / NEW).write_bytes(good)


def test_a_kill_while_pruning_leaves_a_backup_that_nobody_knows(tmp_path: Path) -> None:
    folder = make_user(tmp_path, "alice")
    migrated(tmp_path)
    ended(folder, 31 * DAY, 31 * DAY)
    killed_at(0, lambda: list(prune_all(tmp_path)))
    assert [one.stays for one in prune_all(tmp_path)] == [""]
    assert kept_in(folder).backups == ()
    assert not list(folder.glob(f"{BACKUP}*"))


def test_a_run_prunes_what_is_due_unless_told_otherwise(tmp_path: Path) -> None:
    folder = make_user(tmp_path, "alice")
    migrated(tmp_path)
    ended(folder, 31 * DAY, 31 * DAY)
    make_user(tmp_path, "bob")
    assert typed("migrate", "run", "profiles", tmp_path, "--no-prune").returncode == 0
    assert (folder / BACKUP).exists()
    assert typed("migrate", "run", "profiles", tmp_path).returncode == 0
    assert not (folder / BACKUP).exists()
    assert (tmp_path / "bob" / BACKUP).exists()
    there = tree(tmp_path)
    assert list(prune_all(tmp_path))
    assert tree(tmp_path) == there
