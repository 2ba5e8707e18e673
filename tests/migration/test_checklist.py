"""The older note's list, one test each: what a migration of users' data must never get wrong."""

import contextlib
import hashlib
import os
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from actorstate import telemetry
from actorstate.migrate.journal import read_journal
from actorstate.migrate.prune import prune_all
from actorstate.migrate.verification import verify_all
from tests.support.migration import (
    HASTY,
    NEW,
    OLD,
    Case,
    Disks,
    failing_at,
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

MIB = 1024 * 1024
BACKUP = f"{OLD}.pre-migration-backup"


def make_large(path: Path, size: int) -> None:
    make_database(path, 10)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        for at in range(size // MIB):
            connection.execute("INSERT INTO items(title, data) VALUES (?, ?)", (f"large {at}", os.urandom(MIB)))


def test_a_small_database_is_not_migrated_whole(tmp_path: Path) -> None:
    folder = make_user(tmp_path, "alice", Case(wal=True, images=True))
    before_images = {path.name for path in (folder / "images").rglob("*.png")}
    report = migrated(tmp_path)
    assert report.counts == {"migrated": 1}
    assert len([row for row in rows_of(folder / NEW) if row[0] == "items"]) == 350
    assert {path.name for path in (folder / "profiles/default/images").rglob("*.png")} == before_images
    assert [path.name for path in folder.glob(f"{OLD}*") if not path.name.startswith(BACKUP)] == []
    assert registered_rows(tmp_path) == [("alice", "default", "Default")]


@pytest.mark.slow
def test_a_database_of_more_than_100_megabytes_is_not_migrated_whole(tmp_path: Path) -> None:
    make_large(tmp_path / "alice" / OLD, 101 * MIB)
    assert (tmp_path / "alice" / OLD).stat().st_size > 100 * MIB
    before = digest(tmp_path / "alice" / OLD)
    assert migrated(tmp_path).counts == {"migrated": 1}
    assert digest(tmp_path / "alice" / NEW) == before
    assert all(one.good for one in verify_all(tmp_path))


def digest(database: Path) -> tuple[int, str]:
    """Number and digest of all rows, one at a time."""
    number, digest = 0, hashlib.sha256()
    with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?immutable=1", uri=True)) as connection:
        for row in connection.execute("SELECT id, title, data FROM items ORDER BY id"):
            number += 1
            digest.update(f"{row[0]} {row[1]} ".encode() + row[2])
    return number, digest.hexdigest()


def test_a_disk_that_is_nearly_full_is_found_out_half_way(tmp_path: Path, disks: Disks) -> None:
    data = tmp_path / "disk"
    disks.mount(data, 6 * MIB)
    make_large(data / "alice" / OLD, 2 * MIB)
    make_database(data / "bob" / OLD, 10)
    before = tree(data)
    report = migrated(data)
    assert {one.user: one.result for one in report.users} == {"alice": "refused", "bob": "migrated"}
    assert "bytes free" in report.users[0].reason
    assert {name: one for name, one in tree(data).items() if name.startswith("alice")} == {
        name: one for name, one in before.items() if name.startswith("alice")
    }


def test_a_disk_that_fills_up_meanwhile_leaves_half_a_user(tmp_path: Path, disks: Disks) -> None:
    data = tmp_path / "disk"
    disks.mount(data, 12 * MIB)
    make_large(data / "alice" / OLD, 2 * MIB)
    before = says(data / "alice").rows

    def fill(_name: str, fields: dict[str, object]) -> None:
        if fields["point"] == "backup.copied":
            with contextlib.suppress(OSError), (data / "filler").open("wb", buffering=0) as filler:
                while filler.write(bytes(4096)):
                    pass

    stop = telemetry.listen(fill, "migrate.reached")
    try:
        report = migrated(data)
    finally:
        stop()
    assert [one.result for one in report.users] == ["failed"]
    assert says(data / "alice").rows == before
    (data / "filler").unlink()
    assert migrated(data).counts == {"migrated": 1}
    assert says(data / "alice").rows == before


def test_a_failure_is_not_rolled_back(tmp_path: Path) -> None:
    folder = make_user(tmp_path, "alice", Case(images=True))
    before = says(folder)
    other = tmp_path.with_name(f"{tmp_path.name}-other")
    make_user(other, "alice", Case(images=True))
    number = points_of(lambda: migrated(other)).index("verify.begun")
    with failing_at(number, OSError(5, "Input/output error")):
        report = migrated(tmp_path)
    assert report.counts == {"failed": 1}
    assert says(folder) == before
    assert (folder / OLD).exists()
    assert registered_rows(tmp_path) == []


def test_an_image_that_came_over_damaged_is_not_found_out(tmp_path: Path) -> None:
    folder = make_user(tmp_path, "alice", Case(images=True))

    def damage(_name: str, fields: dict[str, object]) -> None:
        if fields["point"] == "register.begun":
            (folder / "profiles/default/images/1.png").write_bytes(b"")

    stop = telemetry.listen(damage, "migrate.reached")
    try:
        report = migrated(tmp_path)
    finally:
        stop()
    assert report.counts == {"failed": 1}
    assert "1 of 6 files are missing or differ: 1.png" in report.users[0].reason
    assert (folder / OLD).exists()
    assert len(says(folder).images) == 6


def test_progress_jumps_back_or_is_at_its_end_too_early(tmp_path: Path) -> None:
    make_user(tmp_path, "alice", Case(wal=True, images=True))
    told: list[tuple[int, int]] = []
    migrated(tmp_path, options=replace(HASTY, tell=lambda _, done, total: told.append((done, total))))
    shares = [done / total for done, total in told]
    assert shares == sorted(shares)
    assert 0.3 < shares[0] < 0.5, "the rows are read, and nothing is copied"
    assert 0.8 < shares[-1] < 1.0, "the end is told by the outcome"


def test_one_users_failure_stops_the_others(tmp_path: Path) -> None:
    for user in ("alice", "bob", "carol"):
        make_user(tmp_path, user, Case(images=True))
    (tmp_path / "bob" / OLD).write_bytes(b"noise" * 5_000)
    report = migrated(tmp_path, workers=2)
    assert {one.user: one.result for one in report.users} == {
        "alice": "migrated",
        "bob": "refused",
        "carol": "migrated",
    }
    assert (tmp_path / "bob" / OLD).read_bytes() == b"noise" * 5_000


def test_a_second_run_changes_something(tmp_path: Path) -> None:
    folder = make_user(tmp_path, "alice", Case(wal=True, images=True))
    migrated(tmp_path)
    there = tree(tmp_path)
    for _ in range(3):
        assert migrated(tmp_path).counts == {"skipped": 1}
    assert tree(tmp_path) == there
    assert says(folder).images


def test_damage_after_the_migration_is_not_found(tmp_path: Path) -> None:
    folder = make_user(tmp_path, "alice", Case(images=True))
    migrated(tmp_path)
    assert typed("migrate", "verify", "profiles", tmp_path).returncode == 0
    with (folder / BACKUP).open("r+b") as file:
        file.seek(6_000)
        file.write(b"rot")
    told = typed("migrate", "verify", "profiles", tmp_path)
    assert told.returncode == 1
    assert "not those that its manifest describes" in told.stdout
    (folder / NEW).write_bytes((folder / NEW).read_bytes()[:8192])
    assert "WRONG" in typed("migrate", "verify", "profiles", tmp_path).stdout


def test_a_source_that_is_damaged_is_migrated(tmp_path: Path) -> None:
    folder = make_user(tmp_path, "alice")
    with (folder / OLD).open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * 4096)
    before = (folder / OLD).read_bytes()
    report = migrated(tmp_path)
    assert not report.good
    assert (folder / OLD).read_bytes() == before
    assert not (folder / "profiles").exists()


def test_an_index_that_lacks_a_row_is_migrated(tmp_path: Path) -> None:
    folder = make_user(tmp_path, "alice")
    with contextlib.closing(sqlite3.connect(folder / OLD)) as connection:
        page = int(connection.execute("SELECT rootpage FROM sqlite_master WHERE name='by_title'").fetchone()[0])
        size = int(connection.execute("PRAGMA page_size").fetchone()[0])
    content = bytearray((folder / OLD).read_bytes())
    at = content.rindex(b"item ", 0, page * size)
    content[at : at + 4] = b"ITEM"
    (folder / OLD).write_bytes(content)
    before = tree(tmp_path)
    report = migrated(tmp_path)
    assert report.counts == {"refused": 1}
    assert "by_title" in report.users[0].reason
    assert {
        name: one[3] for name, one in tree(tmp_path).items() if "journal" not in name and not name.endswith(".json")
    } == {name: one[3] for name, one in before.items()}


def test_backups_outlive_their_grace_or_leave_before_it(tmp_path: Path) -> None:
    folder = make_user(tmp_path, "alice", Case(images=True))
    migrated(tmp_path)
    assert [one.stays for one in prune_all(tmp_path)] == ["its grace ends in 30.0 days"]
    assert (folder / BACKUP).exists()
    assert [one.stays for one in prune_all(tmp_path, grace_s=0)] == [""]
    assert not list(folder.glob(f"{BACKUP}*"))
    assert read_journal(folder).backups == ()  # type: ignore[union-attr]
    assert list(prune_all(tmp_path, grace_s=0)) == []


def test_a_backup_is_made_of_nothing(tmp_path: Path) -> None:
    make_images(tmp_path / "alice" / "images")
    (tmp_path / "backups").mkdir()
    before = tree(tmp_path)
    assert migrated(tmp_path).counts == {"skipped": 2}
    assert tree(tmp_path) == before


def test_a_user_who_is_migrated_already_is_touched(tmp_path: Path) -> None:
    make_database(tmp_path / "alice" / NEW)
    before = tree(tmp_path)
    report = migrated(tmp_path)
    assert "migrated already" in report.users[0].reason
    assert tree(tmp_path) == before


def test_a_backup_of_somebody_else_is_trusted_or_overwritten(tmp_path: Path) -> None:
    folder = make_user(tmp_path, "alice")
    (folder / BACKUP).write_bytes(b"half a copy of an earlier tool")
    before = rows_of(folder / OLD)
    report = migrated(tmp_path)
    assert report.users[0].backup.endswith(f"{BACKUP}.2")
    assert (folder / BACKUP).read_bytes() == b"half a copy of an earlier tool"
    assert rows_of(folder / f"{BACKUP}.2") == before
    list(prune_all(tmp_path, grace_s=0))
    assert (folder / BACKUP).exists()
    assert not (folder / f"{BACKUP}.2").exists()


def test_images_are_copied_only_when_that_is_asked_for(tmp_path: Path) -> None:
    folder = make_user(tmp_path, "alice", Case(images=True))
    assert typed("migrate", "run", "profiles", tmp_path, "--backup-images").returncode == 0
    copied = {path.name: path.read_bytes() for path in (folder / "images.pre-migration-backup").rglob("*.png")}
    assert copied == {path.name: path.read_bytes() for path in (folder / "profiles/default/images").rglob("*.png")}
    list(prune_all(tmp_path, grace_s=0))
    assert not (folder / "images.pre-migration-backup").exists()
