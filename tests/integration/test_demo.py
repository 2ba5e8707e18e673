"""The demo is played for real: every row arrives, whoever is killed; and its verdict can say no."""

import json
import os
import pty
import re
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from actorstate.client.sync import connect
from actorstate.core.messages.document import Document, Progress, Track
from actorstate.demo.cargo import compared
from actorstate.demo.library import FileTree, standard_library
from actorstate.demo.observer import Observer
from actorstate.demo.options import JOB, DemoOptions, Place
from actorstate.demo.processes import DemoFailed
from actorstate.demo.run import run_demo
from actorstate.demo.show import SilentView, show_demo
from actorstate.demo.verdict import Reads, Updates
from actorstate.errors import BadRequest, SourceUnreadable
from actorstate.migrate.rowcopy import Range, content_of, copy_part, divide
from actorstate.migrate.sqlitefiles.rows import SqliteSource, SqliteTarget
from actorstate.migrate.sqlitefiles.whole import create_target

CHINOOK = Path(__file__).resolve().parents[3] / "shared" / "data" / "chinook.sqlite"
SCRIPT = """
    CREATE TABLE "order ""by"" me" (rowid TEXT, "select" INT);
    CREATE TABLE equal (a, b);
    CREATE TABLE keyed (a TEXT, b INT, PRIMARY KEY (b, a)) WITHOUT ROWID;
    CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT, half AS (id / 2), raw BLOB, t TEXT);
    CREATE TABLE hollow (a);
    CREATE TABLE log (a);
    CREATE INDEX i ON equal (b);
    CREATE VIEW v AS SELECT * FROM equal;
    CREATE TRIGGER tr AFTER INSERT ON equal BEGIN INSERT INTO log VALUES (new.a); END;
    CREATE VIRTUAL TABLE words USING fts5 (body);
"""


def make_source(path: Path, rows: int) -> Path:
    """A database with `rows` rows in each of five tables."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(SCRIPT)
        for number in range(rows):
            connection.execute('INSERT INTO "order ""by"" me" VALUES (?, ?)', (f"r{number}", number))
            connection.execute("INSERT INTO equal VALUES (1, NULL)")
            connection.execute("INSERT INTO keyed VALUES (?, ?)", (f"k{number % 7}", number))
            connection.execute(
                "INSERT INTO counted (raw, t) VALUES (?, CAST(x'ff00fe' AS TEXT))", (bytes([number % 256]),)
            )
        connection.commit()
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return make_source(tmp_path_factory.mktemp("source") / "small.sqlite", 120)


@pytest.fixture(scope="module")
def played(source, tmp_path_factory):
    """A demo that was played once: its verdict and its files."""
    place = Place(tmp_path_factory.mktemp("demo") / "kept")
    return run_demo(DemoOptions(source, place.directory, seconds=1.5), SilentView()), place


def processes_of(directory: Path) -> list[str]:
    """Command lines of processes that have `directory` among their arguments."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if os.fsencode(directory) in line and b"actorstate" in line:
            found.append(line.replace(b"\0", b" ").decode())
    return found


# --- a demo that goes well -------------------------------------------------------------------------------------


def test_every_row_arrives_once_though_the_writer_is_killed_twice(played, source):
    verdict, place = played
    assert verdict.ok, verdict.checks()
    assert verdict.expected == verdict.found == 600
    assert verdict.updates == Updates(600, 600, 600)
    assert [kill.status for kill in verdict.kills] == [-signal.SIGKILL, -signal.SIGKILL]
    assert 0 < verdict.kills[0].processed < verdict.kills[1].processed < 600
    assert verdict.epochs == 3
    assert verdict.reads.reads > 100
    assert {one.name for one in verdict.skipped if one.kind != "shadow"} == {"v", "words"}
    with closing(sqlite3.connect(place.target)) as target:
        target.text_factory = bytes
        target.execute("ATTACH ? AS theirs", (str(source),))
        for table in ('"order ""by"" me"', "equal", "keyed", "counted", "log", "sqlite_sequence"):
            here, there = f"SELECT * FROM main.{table}", f"SELECT * FROM theirs.{table}"
            for sql in (f"{here} EXCEPT {there}", f"{there} EXCEPT {here}"):
                assert not target.execute(sql).fetchall()
            rows = f"SELECT (SELECT count(*) FROM main.{table}) - (SELECT count(*) FROM theirs.{table})"
            assert target.execute(rows).fetchone() == (0,)
        assert target.execute("PRAGMA integrity_check").fetchone() == (b"ok",)
    assert not place.target.with_name("target.sqlite-wal").exists()


def test_the_job_of_a_kept_demo_can_be_asked_for_afterwards(played, start_writer):
    _, place = played
    start_writer(at=place.jobs)
    with connect(place.jobs) as client:
        state = client.get(JOB)
    assert state.status == "completed"
    assert state.progress.percent == 100
    assert sum(track.counted for track in state.tracks.values()) == state.progress.processed


def test_no_process_is_left_behind(played):
    assert not processes_of(played[1].directory)


@pytest.mark.slow
def test_chinook_on_a_terminal():
    if not CHINOOK.exists():
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing(f"{CHINOOK} is not here; it is not part of the project")
    status, shown = on_a_terminal("demo", "--source", str(CHINOOK))
    assert status == 0, shown
    assert "15,607 found of 15,607 expected" in shown
    assert "11 of 11 with every row exactly once" in shown
    assert "2 of 2 while workers were reporting" in shown
    assert "all of it held" in shown


@pytest.mark.slow
def test_the_standard_library_is_indexed_as_json():
    result = subprocess.run([sys.executable, "-m", "actorstate", "demo", "--json"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    told = json.loads(result.stdout)
    assert told["ok"] is True
    assert told["expected"] == told["found"] == FileTree(standard_library()).groups()[0].items > 1_000
    assert (told["lost"], told["counted_twice"], told["reads"]["torn"], told["reads"]["backwards"]) == (0, 0, 0, 0)
    assert len(told["kills"]) == 2


def on_a_terminal(*arguments: str) -> tuple[int, str]:
    """Exit status and output of `actorstate` on a pseudo-terminal, without what moves the cursor."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": "120", "TERM": "xterm"}
    process = subprocess.Popen([sys.executable, "-m", "actorstate", *arguments], stdout=theirs, env=environment)
    os.close(theirs)
    shown = b""
    try:
        while block := os.read(ours, 65536):
            shown += block
    except OSError:  # EIO: the other end was closed
        pass
    finally:
        os.close(ours)
    return process.wait(), re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode(errors="replace"))


def test_fewer_rows_than_workers_are_no_excuse_for_sparing_the_writer(tmp_path):
    path = tmp_path / "tiny\udcff.sqlite"  # a name that is no UTF-8 is a name
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE t (a); INSERT INTO t VALUES (1), (2)")
    verdict = run_demo(DemoOptions(path, readers=1, seconds=0), SilentView())
    assert verdict.ok, verdict.checks()
    assert len(verdict.kills) == 2


# --- a verdict that can say no ---------------------------------------------------------------------------------

TAMPERING = {
    "a_row_is_missing": ("DELETE FROM keyed WHERE b = 7", {"keyed"}),
    "a_row_is_there_twice": ("INSERT INTO log SELECT * FROM log LIMIT 1", {"log"}),
    "a_row_took_the_place_of_another": ("UPDATE keyed SET b = 1007 WHERE b = 7", {"keyed"}),
    "a_number_became_text": ("UPDATE counted SET raw = '1' WHERE id = 50", {"counted"}),
    "a_hidden_rowid_moved": ("UPDATE equal SET rowid = 9000 WHERE rowid = 9", {"equal"}),
    "text_was_mended": ("UPDATE counted SET t = 'fine' WHERE id = 3", {"counted"}),
    "an_empty_table_is_not_empty": ("INSERT INTO hollow VALUES (1)", {"hollow"}),
}


@pytest.mark.parametrize("case", TAMPERING)
def test_the_verdict_fails_when_the_target_was_tampered_with(case, played, tmp_path):
    verdict, place = played
    sql, hurt = TAMPERING[case]
    tampered = Place(tmp_path)
    tampered.source.write_bytes(place.source.read_bytes())
    tampered.target.write_bytes(place.target.read_bytes())
    assert replace(verdict, tables=compared(tampered)).ok
    with closing(sqlite3.connect(tampered.target)) as target:
        assert target.execute(sql).rowcount == 1
        target.commit()
    wrong = replace(verdict, tables=compared(tampered))
    assert not wrong.ok
    assert {table.name for table in wrong.tables if not table.ok} == hurt


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"updates": Updates(600, 600, 599)}, {"applied", "lost"}),
        ({"updates": Updates(600, 600, 601)}, {"applied", "counted twice"}),
        ({"updates": Updates(600, 599, 600)}, {"acknowledged"}),
        ({"updates": Updates(601, 601, 601)}, {"updates sent", "counted twice"}),
        ({"reads": Reads(reads=9, torn=1)}, {"torn reads"}),
        ({"reads": Reads(reads=9, backwards=1)}, {"revisions backwards"}),
        ({"reads": Reads(reads=9, revived=1)}, {"finished job revived"}),
        ({"reads": Reads(reads=9, failed=1)}, {"reads without an answer"}),
        ({"reads": Reads()}, {"reads per second"}),
        ({"kills": ()}, {"writer killed"}),
        ({"epochs": 2}, {"writer killed"}),
        ({"status": "running"}, {"job"}),
        ({"tables": ()}, {"tables", "updates sent", "counted twice"}),
    ],
)
def test_the_verdict_fails_for_each_promise_by_itself(change, named, played, capsys):
    wrong = replace(played[0], **change)
    assert {check.name for check in wrong.checks() if not check.ok} == named
    assert show_demo(DemoOptions(), as_json=False, play=lambda _options, _view: wrong) == 1
    assert "NOT SO" in capsys.readouterr().out
    assert show_demo(DemoOptions(), as_json=True, play=lambda _options, _view: wrong) == 1
    assert json.loads(capsys.readouterr().out)["ok"] is False


@pytest.mark.parametrize("change", [{"status": 0}, {"workers": 0}, {"processed": 600}])
def test_a_kill_that_hit_no_busy_writer_does_not_count(change, played):
    verdict = played[0]
    wrong = replace(verdict, kills=(verdict.kills[0], replace(verdict.kills[1], **change)))
    assert [check.name for check in wrong.checks() if not check.ok] == ["writer killed"]


def state(revision: int, counted: int, *, epoch: int = 1, **more) -> Document:
    now = datetime.now(UTC)
    progress = more.pop("progress", Progress(processed=counted, succeeded=counted))
    return Document("j", "demo", more.pop("status", "running"), revision, epoch, now, now, progress=progress,
                    tracks={"a": Track(counted=counted)}, **more)  # fmt: skip


@pytest.mark.parametrize(
    ("states", "found"),
    [
        ([state(1, 1), state(1, 1), state(3, 2), state(4, 2, epoch=2), state(5, 9, epoch=2, status="completed")], {}),
        ([state(1, 1, progress=Progress(processed=2, succeeded=1))], {"torn": 1}),
        ([state(1, 3, progress=Progress(processed=2, succeeded=2))], {"torn": 1}),
        ([state(1, 1), state(1, 2)], {"torn": 1}),
        ([state(2, 1), state(1, 1)], {"backwards": 1}),
        ([state(1, 1, epoch=2), state(9, 1)], {"backwards": 1}),
        ([state(9, 1), state(8, 1, epoch=2)], {"backwards": 1}),
        ([state(1, 1, status="completed"), state(2, 1)], {"revived": 1}),
    ],
)
def test_a_reader_notices(states, found):
    observer = Observer()
    for one in states:
        observer.see(one)
    findings = {"torn": observer.torn, "backwards": observer.backwards, "revived": observer.revived}
    assert {name: count for name, count in findings.items() if count} == found
    assert observer.reads == len(states)


# --- a demo that is broken off ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_demo_that_is_interrupted_ends_all_of_its_processes(number, status, source, tmp_path):
    place = tmp_path / "demo"
    command = [sys.executable, "-m", "actorstate", "demo", "--source", str(source), "--dir", str(place)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "took over" in line:
                break
        assert len(processes_of(place)) > 10
        demo.send_signal(number)
        demo.communicate()
    assert demo.returncode == status
    assert not processes_of(place)


class Killing:
    """A view that kills, once, one of the processes that it is shown."""

    def __init__(self, choose) -> None:
        self._choose = choose
        self.killed = False

    def tell(self, event: str) -> None:
        """Something happened."""

    def show(self, moment) -> None:
        """Kills it as soon as there is one."""
        for pid in self._choose(moment):
            if not self.killed:
                os.kill(pid, signal.SIGKILL)
                self.killed = True


@pytest.mark.parametrize(
    ("choose", "name"),
    [
        (lambda moment: [worker.pid for worker in moment.state.workers.values()], "worker-"),
        (lambda moment: [moment.writer] if moment.state.workers else [], "writer-"),
    ],
)
def test_a_process_that_dies_by_itself_ends_the_demo_without_a_verdict(choose, name, source, tmp_path):
    with pytest.raises(DemoFailed, match=name):
        run_demo(DemoOptions(source, tmp_path / "demo"), Killing(choose))
    assert not processes_of(tmp_path / "demo")


def test_a_directory_with_something_in_it_is_not_touched(source, tmp_path):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(BadRequest, match="not empty"):
        run_demo(DemoOptions(source, tmp_path), SilentView())
    with pytest.raises(BadRequest, match="no directory"):
        run_demo(DemoOptions(source, tmp_path / "mine"), SilentView())
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]


def test_a_source_without_rows_is_a_typed_error(tmp_path):
    path = tmp_path / "empty.sqlite"
    path.touch()
    with pytest.raises(SourceUnreadable, match="no rows"):
        run_demo(DemoOptions(path, tmp_path / "demo"), SilentView())
    assert not processes_of(tmp_path / "demo")


# --- a part outlives its worker --------------------------------------------------------------------------------

DYING = """
import os, sys
from pathlib import Path
from actorstate.client.sync import connect
from actorstate.migrate.rowcopy import copy_part, divide
from actorstate.migrate.sqlitefiles.rows import SqliteSource, SqliteTarget

directory, source, target, last = sys.argv[1:]

class Dying(SqliteTarget):
    def put(self, item):
        if item.key == int(last):
            os.kill(os.getpid(), 9)
        super().put(item)

with connect(directory) as client, SqliteSource(Path(source)) as rows, Dying(Path(target)) as into:
    with client.attach("copy", worker="w") as run:
        copy_part(run, rows, into, divide(rows.groups(), 1)[0], every=10)
"""


def test_a_part_whose_worker_was_killed_is_finished_by_the_next_without_a_row_twice(writer, directory, tmp_path):
    path, new = tmp_path / "source.sqlite", tmp_path / "target.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (a)")
        connection.executemany("INSERT INTO t VALUES (?)", [("same",)] * 100)
        connection.commit()
    with connect(directory) as client, SqliteSource(path) as rows:
        create_target(rows, new)
        client.create("copy", total=100)
        for last in (37, 38, 75):
            arguments = [str(directory), str(path), str(new), str(last)]
            died = subprocess.run([sys.executable, "-c", DYING, *arguments], capture_output=True, text=True)
            assert died.returncode == -signal.SIGKILL, died.stderr
        with SqliteTarget(new) as into, client.attach("copy", worker="w") as run:
            copy_part(run, rows, into, divide(rows.groups(), 1)[0], every=10)
        progress = client.get("copy").progress
        with SqliteSource(new) as made:
            whole = Range("t", 0, 1_000)
            assert content_of(made.items(whole)) == content_of(rows.items(whole))
    assert (progress.processed, progress.succeeded) == (100, 100)
