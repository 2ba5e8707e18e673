"""Users' databases that are in use, and several runs at once: no committed row is lost, the others are told why."""

import contextlib
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from actorstate import telemetry
from actorstate.errors import MigrationRunning
from actorstate.migrate import Wish, run_profiles
from actorstate.migrate.layouts import SERVER
from actorstate.migrate.profiles import nothing_to_do
from actorstate.migrate.run import Settings, Watcher, run_all
from tests.support.migration import (
    HASTY,
    NEW,
    OLD,
    Case,
    Disks,
    command,
    killed_at,
    make_database,
    make_user,
    migrated,
    registered_rows,
    rows_of,
    says,
    tree,
    typed,
)
from tests.support.processes import ROOT, Child, hear, tell, together


def sit(database: str, mode: str) -> None:
    """An app whose connection is idle."""
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute(f"PRAGMA journal_mode={mode}")
    connection.execute("INSERT INTO items(title) VALUES ('by the app')")
    tell("sits")
    hear()


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_database_that_an_idle_app_has_open_is_moved_under_it(tmp_path: Path, mode: str) -> None:
    folder = make_user(tmp_path, "alice", Case(images=True))
    make_user(tmp_path, "bob")
    with Child(sit, folder / OLD, mode) as app:
        app.expect("sits")
        report = migrated(tmp_path)
        assert [(one.user, one.result) for one in report.users] == [("alice", "refused"), ("bob", "migrated")]
        assert f"process {app.pid} (" in report.users[0].reason
        assert (folder / "images").exists()
        assert not (folder / "profiles").exists()
        app.kill()
    assert migrated(tmp_path).counts == {"migrated": 1, "skipped": 1}
    assert ("by the app",) in [row[2:3] for row in rows_of(folder / NEW) if row[0] == "items"]


def hold_open(database: str) -> None:
    """An app that has the file open, and no lock on it."""
    with Path(database).open("rb"):
        tell("open")
        hear()


def test_an_idle_app_in_another_container_is_not_seen(tmp_path: Path) -> None:
    folder = make_user(tmp_path, "alice")
    before = rows_of(folder / OLD)
    with Child(hold_open, folder / OLD) as app:
        app.expect("open")
        line = ["unshare", "--pid", "--fork", "--mount-proc", *command("migrate", "run", "profiles", tmp_path)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        told = subprocess.run([*line, "--lock-wait", "0.1"], capture_output=True, text=True, env=environment)
        assert told.returncode == 1, told.stderr
        assert "another container" in told.stdout
    assert rows_of(folder / OLD) == before
    assert migrated(tmp_path).good


def commit_for_ever(old: str) -> None:
    """An app that opens the database for each row, waits for its lock, and tells what is committed."""
    number = 0
    tell("begins")
    while True:
        with contextlib.closing(sqlite3.connect(f"file:{old}?mode=rw", uri=True, timeout=10)) as connection:
            try:
                connection.execute("INSERT INTO items(title) VALUES (?)", (f"live {number}",))
                connection.commit()
            except sqlite3.Error as error:
                tell(f"refused: {error}")
                return
        tell(number)
        number += 1


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_row_that_a_live_writer_has_committed_is_lost(tmp_path: Path, mode: str) -> None:
    folder = make_user(tmp_path, "alice")
    with contextlib.closing(sqlite3.connect(folder / OLD)) as connection:
        connection.execute(f"PRAGMA journal_mode={mode}")
    with Child(commit_for_ever, folder / OLD) as app:
        app.expect("begins")
        app.expect(0)
        for _ in range(5):
            report = migrated(tmp_path)
            if report.users[0].result != "refused":
                break
            assert (
                f"process {app.pid}" in report.users[0].reason or "went before it was named" in report.users[0].reason
            )
        app.kill()
        committed = [told for told in app.remaining() if isinstance(told, int)]
    assert migrated(tmp_path).good
    rows = [row[2] for row in rows_of(folder / NEW) if row[0] == "items" and str(row[2]).startswith("live")]
    acknowledged = max(committed, default=0) + 1
    assert rows in ([f"live {n}" for n in range(acknowledged)], [f"live {n}" for n in range(acknowledged + 1)])


@pytest.mark.parametrize("case", [Case(), Case(wal=True)], ids=str)
def test_somebody_who_waited_for_the_lock_is_told_that_his_row_is_committed(tmp_path: Path, case: Case) -> None:
    folder = make_user(tmp_path, "alice", case)
    with Child(wait_and_insert, folder / OLD) as app:
        app.expect("ready")
        stop = telemetry.listen(lambda _, fields: _say(app, fields), "migrate.reached")
        try:
            assert migrated(tmp_path).counts == {"migrated": 1}
        finally:
            stop()
        assert app.read() == "file is not a database"
    assert not (folder / OLD).exists()


def _say(app: Child, fields: dict[str, object]) -> None:
    if fields["point"] == "stage.begun":
        app.say()
        app.expect("trying")


def wait_and_insert(database: str) -> None:
    """An app that begins to wait for the lock when it is told to."""
    tell("ready")
    hear()
    connection = sqlite3.connect(database, timeout=30, isolation_level=None)
    tell("trying")
    try:
        connection.execute("INSERT INTO items(title) VALUES ('late')")
    except sqlite3.Error as error:
        tell(str(error))
    else:
        tell("committed")


def test_two_runs_at_once_meet(tmp_path: Path) -> None:
    folder = make_user(tmp_path, "alice")
    answers: list[int] = []

    def meet(_name: str, fields: dict[str, object]) -> None:
        if fields["point"] == "stage.ended":
            before = tree(tmp_path)
            told = typed("migrate", "run", "profiles", tmp_path)
            assert f"process {os.getpid()} is migrating the users" in told.stderr
            with pytest.raises(MigrationRunning):
                run_profiles(tmp_path, wish=Wish(wait_s=0))
            assert tree(tmp_path) == before
            answers.append(told.returncode)

    stop = telemetry.listen(meet, "migrate.reached")
    try:
        assert migrated(tmp_path).counts == {"migrated": 1}
    finally:
        stop()
    assert answers == [4]
    assert (folder / NEW).exists()


def test_a_database_that_an_app_has_opened_already_is_undone_under_it(tmp_path: Path) -> None:
    folder = make_user(tmp_path, "alice")
    before = rows_of(folder / OLD)
    with contextlib.ExitStack() as stack:

        def open_and_fail(_name: str, fields: dict[str, object]) -> None:
            if fields["point"] == "switch.database_placed":
                app = stack.enter_context(Child(hold_open, folder / NEW))
                app.expect("open")
                raise OSError(5, "injected")

        stop = telemetry.listen(open_and_fail, "migrate.reached")
        try:
            report = migrated(tmp_path)
        finally:
            stop()
        assert report.counts == {"needs_attention": 1}
        assert "is in use" in report.users[0].reason
        assert rows_of(folder / OLD) == rows_of(folder / NEW) == before
    told = typed("migrate", "audit", "profiles", tmp_path, "--user", "alice", "--mend", "--keep", "new")
    assert told.returncode == 0, told.stdout
    assert rows_of(folder / NEW) == before


def start_an_app(data: str) -> None:
    """What each worker of a server does at its start."""
    tell("starts")
    hear()
    report = run_profiles(data, layout="server")
    tell([report.good, report.counts])


def test_workers_of_a_server_that_start_together_migrate_twice(tmp_path: Path) -> None:
    for user in ("alice", "bob", "carol"):
        make_user(tmp_path, user, Case(wal=True, images=True))
    before = {user: len(rows_of(tmp_path / user / OLD)) for user in ("alice", "bob", "carol")}
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(Child(start_an_app, tmp_path)) for _ in range(4)]
        for one in workers:
            one.expect("starts")
        together(4, lambda place: workers[place].say())
        told = [one.read() for one in workers]
        for one in workers:
            one.ends_well()
    assert all(good for good, _ in told)  # type: ignore[misc]
    assert sum(counts.get("migrated", 0) for _, counts in told) == 3  # type: ignore[misc]
    assert {user: len(rows_of(tmp_path / user / NEW)) for user in before} == before
    assert [row[0] for row in registered_rows(tmp_path)] == ["alice", "bob", "carol"]


def test_a_call_with_nothing_to_do_costs_more_than_a_stat_for_each_user(tmp_path: Path) -> None:
    for number in range(5):
        make_user(tmp_path, f"user{number}")
    assert run_profiles(tmp_path).counts == {"migrated": 5}
    assert nothing_to_do(tmp_path, SERVER)
    opened: list[str] = []

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event in {"open", "sqlite3.connect", "os.listdir", "os.scandir"}:
            opened.append(f"{event} {arguments[0]}")

    watching = False
    sys.addaudithook(hook)
    watching = True
    report = run_profiles(tmp_path)
    watching = False
    assert report.users == ()
    assert len(opened) <= 2, opened
    make_database(tmp_path / "late" / OLD)
    assert not nothing_to_do(tmp_path, SERVER)
    assert run_profiles(tmp_path).counts == {"migrated": 1, "skipped": 5}


def test_a_missing_writer_or_a_lost_state_directory_stops_a_migration(tmp_path: Path) -> None:
    data, state = tmp_path / "data", tmp_path / "jobs"
    make_user(data, "alice", Case(images=True))
    make_user(data, "bob")
    before = says(data / "alice")
    killed_at(30, lambda: run_all(data, SERVER, Settings(options=HASTY), Watcher()))
    assert not state.exists()
    assert migrated(data).good
    assert says(data / "alice") == before


@pytest.mark.parametrize("other_disk", [False, True])
def test_an_image_that_arrives_during_the_run_is_lost(tmp_path: Path, disks: Disks, other_disk) -> None:
    folder = make_user(tmp_path, "alice", Case(images=True))
    if other_disk:
        disks.mount(folder / "profiles")
    arrived: dict[str, bytes] = {}

    def arrive(_name: str, fields: dict[str, object]) -> None:
        name = f"late/{fields['point']}.png"
        place = folder / "images" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(name.encode())
        arrived[name] = name.encode()

    stop = telemetry.listen(arrive, "migrate.reached")
    try:
        report = migrated(tmp_path)
    finally:
        stop()
    there = folder / "profiles/default/images"
    found = {str(path.relative_to(there)): path.read_bytes() for path in there.rglob("late/*")}
    left = {path.name for path in (folder / "images").rglob("*.png")}
    assert report.counts == {"migrated": 1}
    assert len(found) > 20
    assert found | {f"late/{name}": f"late/{name}".encode() for name in left} == arrived


def test_images_of_one_name_that_differ_are_thrown_away(tmp_path: Path) -> None:
    folder = make_user(tmp_path, "alice", Case(images=True))

    def arrive(_name: str, fields: dict[str, object]) -> None:
        if fields["point"] == "switch.folder_placed":
            (folder / "images").mkdir()
            (folder / "images/0.png").write_bytes(b"another picture")

    stop = telemetry.listen(arrive, "migrate.reached")
    try:
        report = migrated(tmp_path)
    finally:
        stop()
    assert (folder / "images/0.png").read_bytes() == b"another picture"
    assert (folder / "profiles/default/images/0.png").read_bytes() == bytes(1000)
    assert "0.png stays" in report.users[0].notes[0]
    found = typed("migrate", "audit", "profiles", tmp_path)
    assert "orphaned files" in found.stdout
