"""A damaged log must not pass for a short one: SQLite drops what follows a flipped bit without a word."""

import sqlite3
from pathlib import Path

import pytest

from actorstate.errors import StoreFailed
from actorstate.store.contract import IndexRow, JobCommit, StoredChange
from actorstate.store.sqlite import SqliteStore

COMMITS = 20


def store_in(folder: Path) -> SqliteStore:
    return SqliteStore(folder / "jobs.sqlite", folder / "head")


def part(revision: int) -> JobCommit:
    return JobCommit("a", revision, (StoredChange(revision, b"x" * 100),), index=IndexRow("job", "running", ""))


def killed_after_commits(folder: Path) -> None:
    """What a SIGKILL leaves behind: a log that was never moved into the database, and a head."""
    store = store_in(folder)
    store.open()
    store.set_epoch(1)
    for revision in range(1, COMMITS + 1):
        store.commit(1, [part(revision)])
    store.rest()
    for name in ("jobs.sqlite", "jobs.sqlite-wal", "head"):
        (folder / "killed").mkdir(exist_ok=True)
        (folder / "killed" / name).write_bytes((folder / name).read_bytes())
    store.close()


def flip_a_bit(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 0x01
    path.write_bytes(content)


def test_a_log_that_is_whole_is_recovered(tmp_path: Path) -> None:
    killed_after_commits(tmp_path)
    store = store_in(tmp_path / "killed")
    store.open()
    assert len(store.changes("a", 0, -1)) == COMMITS
    store.close()


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_flipped_bit_in_the_log_is_not_taken_for_its_end(tmp_path: Path, share: float) -> None:
    killed_after_commits(tmp_path)
    log = tmp_path / "killed" / "jobs.sqlite-wal"
    flip_a_bit(log, int(log.stat().st_size * share))
    store = store_in(tmp_path / "killed")
    with pytest.raises(StoreFailed, match=f"{COMMITS} were acknowledged") as caught:
        store.open()
    assert "rm " in caught.value.hint


def test_sqlite_alone_calls_the_same_damage_ok(tmp_path: Path) -> None:
    """The negative control: why the head is there."""
    killed_after_commits(tmp_path)
    log = tmp_path / "killed" / "jobs.sqlite-wal"
    flip_a_bit(log, log.stat().st_size // 2)
    connection = sqlite3.connect(tmp_path / "killed" / "jobs.sqlite")
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert connection.execute("SELECT count(*) FROM changes").fetchone()[0] < COMMITS
    connection.close()


def test_a_database_put_back_from_last_week_is_noticed(tmp_path: Path) -> None:
    killed_after_commits(tmp_path)
    older = tmp_path / "older"
    older.mkdir()
    store = store_in(older)
    store.open()
    store.close()
    (older / "head").write_bytes((tmp_path / "head").read_bytes())
    with pytest.raises(StoreFailed, match="replaced"):
        store_in(older).open()


def test_an_accepted_loss_lets_the_store_open_again(tmp_path: Path) -> None:
    killed_after_commits(tmp_path)
    log = tmp_path / "killed" / "jobs.sqlite-wal"
    flip_a_bit(log, log.stat().st_size // 2)
    (tmp_path / "killed" / "head").unlink()
    store = store_in(tmp_path / "killed")
    store.open()
    assert 0 < len(store.changes("a", 0, -1)) < COMMITS
    store.close()
