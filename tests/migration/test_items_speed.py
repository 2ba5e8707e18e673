"""What a migration of items costs beside a bare loop that writes the same rows in the same batches."""

import contextlib
import itertools
import sqlite3
import time
from pathlib import Path

import pytest

from actorstate.client.sync import Client
from tests.support.items import MAPPING, make_source, make_target, members, migrate
from tests.support.processes import client, job, served

__all__ = ["client", "job", "served"]

ROWS = 50_000
BATCH = 500


def bare(folder: Path) -> float:
    """The seconds of the loop."""
    started = time.monotonic()
    with (
        contextlib.closing(sqlite3.connect(folder / "old.sqlite")) as source,
        contextlib.closing(sqlite3.connect(folder / "new.sqlite")) as target,
    ):
        target.execute("PRAGMA synchronous=FULL")
        rows = source.execute("SELECT id, name, age, 'old app' FROM people ORDER BY id")
        while page := list(itertools.islice(rows, BATCH)):
            with target:
                for row in page:
                    target.execute(
                        "INSERT OR IGNORE INTO members (id, full_name, age, origin) VALUES (?, ?, ?, ?)", row
                    )
    return time.monotonic() - started


@pytest.mark.nightly
def test_items_are_migrated_much_slower_than_written(client: Client, tmp_path: Path, job: str) -> None:
    for name in ("bare", "ours"):
        (tmp_path / name).mkdir()
        make_source(tmp_path / name, ROWS)
        make_target(tmp_path / name)
    bare_s = bare(tmp_path / "bare")
    started = time.monotonic()
    state = migrate(client, tmp_path / "ours", job, mapping=MAPPING, batch_size=BATCH)
    ours_s = time.monotonic() - started
    print(f"\n{ROWS:,} items: {ours_s / bare_s:.1f} times the bare loop, {ROWS / ours_s:,.0f} items a second")
    assert state.progress.succeeded == ROWS - 2
    assert members(tmp_path / "ours") == members(tmp_path / "bare")
    assert ours_s / bare_s < 25
