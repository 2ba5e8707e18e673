"""What safety costs: 1,000 users against `cp -a` and `PRAGMA integrity_check` of the same data, in one run."""

import contextlib
import shutil
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.migration import NEW, OLD, Case, make_user, migrated

USERS, WORKERS = 1_000, 4


@pytest.mark.nightly
@pytest.mark.timeout(3_600)
def test_1000_users_take_how_much_longer_than_copying_and_checking(tmp_path: Path) -> None:
    data = tmp_path / "data"
    original = make_user(data, "user0", Case(images=True))
    for number in range(1, USERS):
        shutil.copytree(original, data / f"user{number}")
    plain_s = copied_and_checked(data, tmp_path / "before")
    started = time.monotonic()
    assert migrated(data, workers=WORKERS).counts == {"migrated": USERS}
    safe_s = time.monotonic() - started
    assert all((data / f"user{number}" / NEW).exists() for number in range(USERS))
    plain_s = (plain_s + copied_and_checked(tmp_path / "before", tmp_path / "after")) / 2  # a busy machine, two looks
    print(f"\n{USERS} users, {WORKERS} workers: {safe_s:.1f} s; cp -a and integrity_check: {plain_s:.1f} s; "
          f"ratio {safe_s / plain_s:.1f}")  # fmt: skip


def copied_and_checked(data: Path, copy: Path) -> float:
    """How long that takes without any of our care."""
    subprocess.run(["sync"], check=True)
    started = time.monotonic()
    subprocess.run(["cp", "-a", str(data), str(copy)], check=True)
    for number in range(USERS):
        with contextlib.closing(sqlite3.connect(copy / f"user{number}" / OLD)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    return time.monotonic() - started
