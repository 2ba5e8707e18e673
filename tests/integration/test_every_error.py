"""Every error of the tree is raised here for real, and the commands of its hint are typed where it was raised."""

import contextlib
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from actorstate import errors
from actorstate.client.sync import Client, connect
from actorstate.config import ClientSettings, WriterSettings
from actorstate.core.messages.replies import Refused
from actorstate.endpoint import WriterLock
from actorstate.errors import ActorStateError, from_wire
from actorstate.migrate.apply import carry_out
from actorstate.migrate.journal import Journal
from actorstate.migrate.layouts import SERVER
from actorstate.migrate.recovery import recover
from actorstate.migrate.rollback import roll_back_all
from actorstate.migrate.run import Watcher
from actorstate.migrate.runlock import only_one
from actorstate.migrate.sqlitefiles.hold import held
from actorstate.migrate.sqlitefiles.records import TableSource
from actorstate.migrate.sqlitefiles.whole import create_database
from actorstate.migrate.survey import survey
from actorstate.migrate.work import Work
from actorstate.store.choice import store_at
from actorstate.store.location import located
from actorstate.store.sqlite import SqliteStore
from tests.support.inprocess import BESIDE, WriterThread, failing
from tests.support.items import make_source, make_target, migrate
from tests.support.migration import HASTY as IMPATIENT
from tests.support.migration import failing_at, make_user, migrated, points_of
from tests.support.processes import HASTY, frozen
from tests.support.wire import Wire
from tests.support.writer import ROOT, WriterProcess

NEVER_ALONE = {errors.ActorStateError, errors.RequestRefused, errors.MigrationError}
"""Roots of the tree. A writer of a later release may send a code that becomes RequestRefused (test_errors.py)."""
BROKEN_HINT = {2, 70}
"""What the command line answers to a command that cannot be typed like that, or that has a defect."""
ALREADY = "already"
COMMAND = re.compile(r"actorstate [a-z]+(?: [^\s;,()]+)*")


@dataclass(slots=True)
class Stage:
    """A directory for one error, the writers that serve it, and all that is closed when the test ends."""

    directory: Path
    ends: contextlib.ExitStack
    process: WriterProcess | None = None

    def served(self, settings: ClientSettings | None = None) -> Client:
        """A client of a writer process."""
        self.process = WriterProcess(self.directory).start()
        self.ends.callback(self.process.kill)
        return self.client(settings)

    def served_here(self, writer: WriterSettings = BESIDE) -> Client:
        """A client of a writer in a thread, where faults can be put; patient enough for a loaded machine."""
        self.ends.enter_context(WriterThread(self.directory, writer))
        return self.client(ClientSettings(timeout_s=2.0, attempt_s=1.0))

    def client(self, settings: ClientSettings | None = None) -> Client:
        """A client of whoever serves the directory."""
        return self.ends.enter_context(connect(self.directory, settings=settings))

    def database(self) -> sqlite3.Connection:
        """The directory's database, for damage by hand."""
        self.directory.mkdir(exist_ok=True)
        return self.ends.enter_context(contextlib.closing(sqlite3.connect(self.directory / "jobs.sqlite")))

    def store(self) -> SqliteStore:
        """The directory's store, opened."""
        store = SqliteStore(self.directory / "jobs.sqlite")
        store.open()
        self.ends.callback(store.close)
        return store


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with contextlib.ExitStack() as ends:
        yield Stage(tmp_path / "jobs", ends)


Scene = Callable[[Stage], object]
SCENES: dict[type[ActorStateError], Scene] = {}


def raises(kind: type[ActorStateError]) -> Callable[[Scene], Scene]:
    """This scene ends with `kind`."""

    def keep(scene: Scene) -> Scene:
        assert kind not in SCENES, ALREADY
        SCENES[kind] = scene
        return scene

    return keep


@raises(errors.BadRequest)
def a_negative_count(stage: Stage) -> None:
    client = stage.served()
    client.create("job")
    with client.attach("job") as run:
        run.progress(succeeded=-1)


@raises(errors.CorruptItem)
def a_rotten_row_in_the_ledger(stage: Stage) -> None:
    client = stage.served()
    client.create("job")
    with client.attach("job") as run:
        run.failed("row-7", "timeout")
    stage.database().execute("UPDATE items SET body = body || X'00'").connection.commit()
    list(client.items("job"))


@raises(errors.BadJobId)
def a_path_as_an_id(stage: Stage) -> None:
    stage.served().get("../etc/passwd")


@raises(errors.BadMessage)
def noise_on_the_wire(stage: Stage) -> None:
    stage.served()
    assert stage.process is not None
    with Wire(stage.process.endpoint) as wire:
        wire.socket.send(b"\xc1 noise")
        answer = wire.wait(0).answer
    assert isinstance(answer, Refused)
    raise from_wire(answer.code, answer.message, answer.hint.replace("DIR", str(stage.directory)), answer.details)


@raises(errors.TooLarge)
def a_photograph_as_a_checkpoint(stage: Stage) -> None:
    client = stage.served()
    client.create("job")
    with client.attach("job") as run:
        run.checkpoint(bytes(300_000))


@raises(errors.JobNotFound)
def an_id_that_nobody_has(stage: Stage) -> None:
    stage.served().get("nobody")


@raises(errors.Conflict)
def one_id_for_two_kinds(stage: Stage) -> None:
    client = stage.served()
    client.create("job", kind="import")
    client.create("job", kind="export")


@raises(errors.IllegalTransition)
def deleting_a_job_at_work(stage: Stage) -> None:
    client = stage.served()
    client.create("job")
    with client.attach("job"):
        client.delete("job")


@raises(errors.JobFinished)
def working_on_a_finished_job(stage: Stage) -> None:
    client = stage.served()
    client.create("job")
    client.complete("job")
    with client.attach("job"):
        pass


@raises(errors.Fenced)
def working_on_after_a_take_over(stage: Stage) -> None:
    client = stage.served()
    client.create("job")
    with client.attach("job", worker="old") as old, client.attach("job", worker="new", take_over=True):
        old.progress(succeeded=1)
        old.flush()


@raises(errors.AlreadyAttached)
def two_who_want_a_job_for_themselves(stage: Stage) -> None:
    client = stage.served()
    with client.run("job"), client.run("job"):
        pass


@raises(errors.AlreadyTracked)
def two_workers_on_one_track(stage: Stage) -> None:
    client = stage.served()
    client.create("job")
    with client.attach("job") as one, client.attach("job") as other:
        next(one.track("abc"))
        loop = one.track("abc", name="part")
        next(loop)
        next(other.track("abc", name="part"))


@raises(errors.Busy)
def a_mailbox_that_is_full(stage: Stage) -> None:
    stage.served_here(WriterSettings(max_mailbox=0)).create("job")


@raises(errors.HistoryPruned)
def a_past_that_is_forgotten(stage: Stage) -> None:
    client = stage.served_here(WriterSettings(history_changes=1))
    client.create("job")
    with client.attach("job") as run:
        for number in range(1_000):
            run.checkpoint(bytes(20_000 + number))
            client.get("job", at=2)


@raises(errors.ActorFailed)
def a_defect_in_an_actor(stage: Stage) -> None:
    client = stage.served_here()
    with failing("actor.asked", ZeroDivisionError("injected")):
        client.create("job")


@raises(errors.JobParked)
def a_defect_that_comes_again(stage: Stage) -> None:
    client = stage.served_here(WriterSettings(max_actor_failures=1))
    with failing("actor.asked", ZeroDivisionError("injected")), contextlib.suppress(errors.ActorFailed):
        client.create("job")
    client.create("job")


@raises(errors.OutcomeUnknown)
def a_writer_that_falls_silent(stage: Stage) -> None:
    client = stage.served(HASTY)
    client.create("other")
    assert stage.process is not None
    with frozen(stage.process):
        client.create("job")


@raises(errors.WriterUnavailable)
def nobody_serves(stage: Stage) -> None:
    stage.directory.mkdir()
    stage.client(HASTY).get("job")


@raises(errors.RunClosed)
def a_run_after_its_block(stage: Stage) -> None:
    with stage.served().run("job") as run:
        pass
    run.progress(succeeded=1)


@raises(errors.JobCancelled)
def a_row_boundary_after_a_cancel(stage: Stage) -> None:
    client = stage.served()
    kept: list[errors.JobCancelled] = []
    with client.run("job") as run:
        client.cancel("job")
        run.progress(succeeded=1)
        run.flush()
        try:
            run.heed()
        except errors.JobCancelled as cancelled:
            kept.append(cancelled)
            raise
    raise kept[0]


@raises(errors.NotApproved)
def a_question_that_nobody_answers(stage: Stage) -> None:
    client = stage.served()
    client.create("job")
    with client.attach("job") as run:
        run.wait_for_approval("12 groups to delete", timeout_s=0.05)


@raises(errors.StaleMirror)
def a_mirror_of_a_frozen_writer(stage: Stage) -> None:
    client = stage.served(HASTY)
    client.create("job")
    mirror = stage.ends.enter_context(client.mirror(stale_after_s=0.5))
    mirror.get("job")
    assert stage.process is not None
    with frozen(stage.process):
        while mirror.age_s < 1.0:
            threading.Event().wait(0.01)
        mirror.get("job")


@raises(errors.StoreError)
def a_database_of_another_program(stage: Stage) -> None:
    stage.database().execute("CREATE TABLE theirs (x)")
    stage.store()


@raises(errors.DiskFull)
def a_disk_without_space(stage: Stage) -> None:
    client = stage.served_here()
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL
    with failing("store.written", full):
        client.create("job")


@raises(errors.StoreFailed)
def a_database_that_is_none(stage: Stage) -> None:
    stage.directory.mkdir()
    (stage.directory / "jobs.sqlite").write_bytes(b"noise" * 1_000)
    stage.store()


@raises(errors.CorruptJob)
def a_change_of_one_byte_on_the_disk(stage: Stage) -> None:
    client = stage.served()
    client.create("job")
    assert stage.process is not None
    stage.process.terminate()
    with stage.database() as database:
        database.execute("UPDATE changes SET body = x'c1' || substr(body, 2)")
    stage.process.start()
    client.get("job")


@raises(errors.ForeignEdit)
def a_file_that_somebody_edited(stage: Stage) -> None:
    location = f"json://{stage.directory}"
    writer = WriterProcess(stage.directory, location=location).start()
    stage.ends.callback(writer.kill)
    client = stage.ends.enter_context(connect(location))
    client.create("job")
    writer.terminate()
    path = stage.directory / "job.json"
    path.write_bytes(path.read_bytes().replace(b"planning", b"completed"))
    writer.start()
    client.get("job")


@raises(errors.OtherStore)
def json_files_where_sqlite_is(stage: Stage) -> None:
    stage.directory.mkdir()
    stage.store()
    store_at(located(f"json://{stage.directory}"))


@raises(errors.StoreTooNew)
def a_directory_of_a_later_release(stage: Stage) -> None:
    stage.served()
    assert stage.process is not None
    stage.process.terminate()
    stage.database().execute("PRAGMA user_version = 999")
    stage.store()


@raises(errors.EpochFenced)
def a_writer_whose_time_is_over(stage: Stage) -> None:
    stage.directory.mkdir()
    store = stage.store()
    store.set_epoch(2)
    store.commit(1, ())


@raises(errors.NotOwner)
def a_start_by_root_for_somebody_else(stage: Stage) -> None:
    if os.geteuid():
        pytest.skip("only root may give a directory away")
    stage.directory.mkdir()
    os.chown(stage.directory, 65534, 65534)
    WriterLock(stage.directory).acquire()


@raises(errors.WriterRunning)
def a_second_writer(stage: Stage) -> None:
    stage.served()
    WriterLock(stage.directory).acquire()


def interrupted_at(stage: Stage, point: str) -> Work:
    """A migration of alice that was interrupted there, as by Ctrl-C."""
    make_user(stage.directory, "alice")
    plan = survey(stage.directory, SERVER).users[0]
    work = Work(stage.directory, Journal("server", "migrating", "", plan), IMPATIENT)
    points = iter(points_of(lambda: migrated(stage.directory)))
    roll_back_all(stage.directory, Watcher(), IMPATIENT)
    number = list(points).index(point)
    with failing_at(number, KeyboardInterrupt()), contextlib.suppress(KeyboardInterrupt), held(work.old, 0.1) as source:
        carry_out(work, source)
    return work


@raises(errors.MigrationRunning)
def two_who_move_the_same_users(stage: Stage) -> None:
    stage.directory.mkdir()
    with only_one(stage.directory), only_one(stage.directory):
        pass


@raises(errors.UserRefused)
def a_user_whom_nobody_knows(stage: Stage) -> None:
    make_user(stage.directory, "alice")
    survey(stage.directory, SERVER, "bob")


@raises(errors.DatabaseInUse)
def a_database_that_an_app_has_open(stage: Stage) -> None:
    make_user(stage.directory, "alice")
    with contextlib.closing(sqlite3.connect(stage.directory / "alice/peek.db")) as app:
        app.execute("SELECT count(*) FROM items")
        with held(stage.directory / "alice/peek.db", 0.1):
            pass


@raises(errors.VerificationFailed)
def a_copy_that_the_disk_has_changed(stage: Stage) -> None:
    work = interrupted_at(stage, "stage.database_copied")
    with work.stage.open("r+b") as file:
        file.seek(5_000)
        file.write(b"rot")
    with held(work.old, 0.1) as source:
        carry_out(work, source, "verify_stage")


@raises(errors.NeedsAttention)
def two_databases_that_were_both_written_to(stage: Stage) -> None:
    work = interrupted_at(stage, "switch.database_placed")
    for database in (work.old, work.new):
        with contextlib.closing(sqlite3.connect(database)) as app, app:
            app.execute("INSERT INTO items(title) VALUES ('since')")
    recover(work)


@raises(errors.SourceUnreadable)
def a_source_that_is_no_database(stage: Stage) -> None:
    stage.directory.mkdir()
    (stage.directory / "old.sqlite").write_bytes(b"noise" * 1_000)
    TableSource(stage.directory / "old.sqlite", "people")


@raises(errors.TargetFailed)
def a_target_that_is_there_already(stage: Stage) -> None:
    stage.directory.mkdir()
    create_database(stage.directory / "new.sqlite", ["CREATE TABLE people (id)"])
    create_database(stage.directory / "new.sqlite", ["CREATE TABLE people (id)"])


@raises(errors.ItemRefused)
def an_item_at_which_a_migration_is_to_stop(stage: Stage) -> None:
    client = stage.served()
    make_source(stage.directory)
    make_target(stage.directory)
    migrate(client, stage.directory, "job", stop_on_error=True)


def every_kind() -> list[type[ActorStateError]]:
    """The classes of the tree, as errors.py defines them."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ActorStateError)]
    return [kind for kind in kinds if kind not in NEVER_ALONE]


@pytest.mark.parametrize("kind", every_kind(), ids=lambda kind: kind.__name__)
def test_an_error_is_never_raised_or_its_hint_cannot_be_typed(kind: type[ActorStateError], stage: Stage) -> None:
    with pytest.raises(kind) as raised:
        SCENES[kind](stage)
    assert type(raised.value) is kind
    assert "DIR" not in raised.value.hint or not isinstance(raised.value, errors.RequestRefused)
    for command in COMMAND.findall(raised.value.hint.replace("DIR", str(stage.directory))):
        assert typed(shlex.split(command)) not in BROKEN_HINT, command


def typed(command: list[str]) -> int:
    """The exit status of a command of ours; a writer is ended as soon as it serves."""
    line = [sys.executable, "-m", *command]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        if command[1] == "serve" and process.stdout.readline():
            process.send_signal(signal.SIGTERM)
        process.stdout.read()
    return process.returncode
