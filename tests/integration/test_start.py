"""Zero service: a client starts the writer that it does not find, and says why when it cannot."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from actorstate.client import start
from actorstate.client.aio import connect_async
from actorstate.client.sync import Client, connect
from actorstate.config import ClientSettings
from actorstate.endpoint import lock_holder, private_folder, read_endpoint
from actorstate.errors import ActorStateError, WriterUnavailable
from actorstate.writer.detach import detached
from tests.support.autostart import (
    STARTING,
    WITHIN_S,
    Pythons,
    as_python,
    children,
    ended_within,
    kill,
    serving,
    zero,
)
from tests.support.processes import ROOT, Child, ends_within, forked, hear, joined, tell, together
from tests.support.writer import Writers, writers

__all__ = ["as_python", "writers", "zero"]

GATED = '[ -p {gate} ] && read _ < {gate}\nexec {python} "$@"\n'
COUNTED = 'echo "$@" >> {counter}\nexec {python} "$@"\n'


def pid_of(client: Client) -> int:
    return client.ask(timeout_s=WITHIN_S).pid


# --- it starts ----------------------------------------------------------------------------------------------------


def test_the_first_call_finds_nobody(zero: Path) -> None:
    with connect(zero, settings=STARTING) as client:
        assert client.create("job").status == "pending"
        writer = pid_of(client)
        assert serving(zero) == [writer]
        assert children(os.getpid()) == [], "the launcher was not reaped, or the writer is a child of its client"
        assert os.getsid(writer) == writer
        assert Path(f"/proc/{writer}/cwd").readlink() == Path("/")
        log = private_folder(zero) / "writer.log"
        streams = [Path(f"/proc/{writer}/fd/{number}").readlink() for number in range(3)]
        assert streams == [Path(os.devnull), log, log]


def test_an_event_loop_finds_nobody(zero: Path) -> None:
    async def create() -> str:
        async with connect_async(zero, settings=STARTING) as client:
            jobs = await asyncio.gather(*[client.create(f"job-{number}") for number in range(20)])
            return jobs[-1].id

    assert asyncio.run(create()) == "job-19"
    assert serving(zero) == [read_endpoint(zero).pid]


def test_a_writer_ends_with_the_client_that_started_it(zero: Path) -> None:
    with Child(create_and_end, zero) as child:
        writer = child.read()
        child.ends_well()
    with connect(zero, autostart=False, settings=STARTING) as client:
        assert pid_of(client) == writer
        assert client.get("job").id == "job"


def create_and_end(directory: str) -> None:
    client = connect(directory, settings=STARTING)
    client.create("job")
    tell(pid_of(client))


def test_a_killed_writer_stays_away(zero: Path) -> None:
    with connect(zero, settings=STARTING) as client:
        client.create("job")
        with client.attach("job") as run:
            for _ in range(3):
                run.progress(succeeded=5)
                kill(pid_of(client))
                run.progress(succeeded=5)
                run.flush()
        assert client.get("job").progress.processed == 30
        assert read_endpoint(zero).epoch == 4


def test_threads_that_find_nobody_at_once_start_a_writer_each(zero: Path, tmp_path: Path, as_python: Pythons) -> None:
    counter = tmp_path / "starts"
    as_python(COUNTED.replace("{counter}", str(counter)))
    with connect(zero, settings=STARTING) as client:
        together(16, lambda place: client.create(f"job-{place}"))
        assert len(list(client.jobs())) == 16
    assert len(counter.read_text().splitlines()) == 1


def test_an_interrupted_script_takes_its_writer_along(zero: Path) -> None:
    with Child(create_and_wait, zero) as child:
        writer = child.read()
        os.killpg(child.pid, signal.SIGINT)
        assert child.wait() != 0
        assert not ended_within(int(str(writer)), 0.2)
    with connect(zero, autostart=False, settings=STARTING) as client:
        assert pid_of(client) == writer


def create_and_wait(directory: str) -> None:
    os.setpgrp()
    client = connect(directory, settings=STARTING)
    client.create("job")
    tell(pid_of(client))
    hear()


def test_a_start_is_interrupted_with_the_script_that_waits_for_it(
    zero: Path, tmp_path: Path, as_python: Pythons, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while the launcher still runs: it goes on, and the next client finds the writer."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    ours, python = sys.executable, as_python(GATED.replace("{gate}", str(gate)))
    monkeypatch.setattr(sys, "executable", ours)
    with Child(create_interrupted, zero, python) as child, gate.open("w") as opened:  # waits for the launcher
        os.killpg(child.pid, signal.SIGINT)
        assert child.wait() != 0
        opened.write("go\n")
    with connect(zero, autostart=False, settings=STARTING) as client:
        client.create("job")


def create_interrupted(directory: str, python: str) -> None:
    os.setpgrp()
    sys.executable = python
    connect(directory, settings=STARTING).create("job")


@pytest.mark.parametrize("used_before", [False, True], ids=["made before the fork", "used before the fork"])
def test_of_forked_children_one_does_not_work(*, used_before: bool, zero: Path) -> None:
    """gunicorn --preload: the client is made in the parent, and each worker uses it."""
    client = connect(zero, settings=STARTING)
    if used_before:
        client.create("parent")
        kill(pid_of(client))
    codes = [joined(pid) for pid in [forked(lambda name=f"child-{n}": use(client, name)) for n in range(4)]]
    assert codes == [0] * 4
    with client:
        assert {state.id for state in client.jobs()} >= {f"child-{number}" for number in range(4)}
        assert serving(zero) == [pid_of(client)]


def use(client: Client, name: str) -> None:
    client.create(name)
    assert client.get(name).id == name
    assert children(os.getpid()) == []


@pytest.mark.parametrize("chld", ["SIG_IGN", "a handler that reaps all"])
def test_a_program_that_collects_its_children_itself_confuses_the_start(chld: str, zero: Path) -> None:
    with Child(start_where_children_are_collected, zero, chld) as child:
        child.expect("job")
        child.ends_well()


def start_where_children_are_collected(directory: str, chld: str) -> None:
    def reap(_number: int, _frame: object) -> None:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass

    signal.signal(signal.SIGCHLD, signal.SIG_IGN if chld == "SIG_IGN" else reap)
    with connect(directory, settings=STARTING) as client:
        tell(client.create("job").id)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def test_the_writer_reports_to_the_service_manager_of_its_client(
    zero: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with connect(zero, settings=STARTING) as client:
            client.create("job")
            writer = pid_of(client)
            os.kill(writer, signal.SIGTERM)
            assert ended_within(writer, WITHIN_S)
        with pytest.raises(BlockingIOError):
            manager.recv(100)


def test_modules_in_the_folder_of_the_script_are_taken_for_ours(
    zero: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "script"
    folder.mkdir()
    for name in ("actorstate", "json", "zmq", "logging"):
        (folder / f"{name}.py").write_text("raise SystemExit('a module of the script')")
    monkeypatch.setenv("PYTHONPATH", os.path.relpath(Path(__file__).parents[2], folder))
    monkeypatch.chdir(folder)
    with connect(zero, settings=STARTING) as client:
        assert client.create("job").id == "job"


def test_a_package_that_only_the_client_finds_is_not_found_by_its_writer(zero: Path) -> None:
    """One that was put on sys.path in the program itself."""
    with Child(create_and_end, zero, before="import os; os.environ.pop('PYTHONPATH')") as child:
        environment = Path(f"/proc/{child.read()}/environ").read_bytes().split(b"\0")
        assert f"PYTHONPATH={ROOT}".encode() in environment
        child.ends_well()


def test_a_socket_path_over_the_limit_is_refused_and_its_folder_left_behind(zero: Path, tmp_path: Path) -> None:
    deep = tmp_path / ("long" * 30) / "jobs"
    with connect(deep, settings=STARTING) as client:
        client.create("job")
        first = Path(read_endpoint(deep).requests.removeprefix("ipc://")).parent
        assert (first / "requests").exists()
        kill(pid_of(client))
        assert client.get("job").id == "job"
        assert not first.exists()
        second, writer = Path(read_endpoint(deep).requests.removeprefix("ipc://")).parent, pid_of(client)
        os.kill(writer, signal.SIGTERM)
        assert ended_within(writer, WITHIN_S)
        assert not second.exists()


# --- it does not start --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["", "json://"])
def test_a_mistyped_path_is_begun_by_reading_from_it(scheme: str, zero: Path) -> None:
    with connect(f"{scheme}{zero}", settings=STARTING) as client:
        for call in (lambda: client.get("job"), lambda: list(client.jobs()), client.ask):
            with pytest.raises(WriterUnavailable, match="no jobs there yet") as raised:
                call()
            assert f"actorstate serve {scheme}{zero}" in raised.value.hint
        assert not zero.exists()


@pytest.mark.parametrize("how", ["argument", "settings", "environment"])
def test_a_server_starts_a_writer_although_it_must_not(how: str, zero: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "environment":
        monkeypatch.setenv("ACTORSTATE_AUTOSTART", "0")
    settings = ClientSettings(timeout_s=0.3, autostart=how != "settings")
    with (
        connect(zero, autostart=how != "argument", settings=settings) as client,
        pytest.raises(WriterUnavailable) as raised,
    ):
        client.create("job")
    assert f"actorstate serve {zero}" in raised.value.hint
    assert not zero.exists()


@pytest.mark.parametrize("program", ["", "/usr/sbin/uwsgi", "/opt/app/frozen"])
def test_a_program_that_is_no_python_is_started_as_one(
    program: str, zero: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", program)
    with (
        ends_within(STARTING.timeout_s / 2),
        connect(zero, settings=STARTING) as client,
        pytest.raises(WriterUnavailable, match="Python") as raised,
    ):
        client.create("job")
    assert f"actorstate serve {zero}" in raised.value.hint


def test_why_a_start_failed_is_only_in_a_log_and_tried_again_by_each_call(
    zero: Path, tmp_path: Path, as_python: Pythons
) -> None:
    counter = tmp_path / "starts"
    as_python(COUNTED.replace("{counter}", str(counter)))
    zero.mkdir()
    with sqlite3.connect(zero / "jobs.sqlite") as database:
        database.execute("PRAGMA user_version = 999")
    database.close()
    with connect(zero, settings=STARTING) as client, ends_within(STARTING.timeout_s / 2):
        for number in range(5):
            with pytest.raises(WriterUnavailable, match="could not be started") as raised:
                client.create(f"job-{number}")
        assert "a file of another program" in raised.value.message
    assert len(counter.read_text().splitlines()) == 1
    assert "a file of another program" in (private_folder(zero) / "writer.log").read_text()


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo 'libpython is missing' >&2; exit 127\n", "libpython is missing"),
        ("exit 1\n", "it said nothing"),
        ("kill -9 $$\n", "it said nothing"),
    ],
)
def test_an_interpreter_that_cannot_begin_says_so_to_nobody(
    script: str, told: str, zero: Path, as_python: Pythons
) -> None:
    as_python(script)
    with connect(zero, settings=STARTING) as client, pytest.raises(WriterUnavailable, match=told) as raised:
        client.create("job")
    assert f"actorstate serve {zero}" in raised.value.hint


def test_a_missing_interpreter_is_an_error_of_the_operating_system(
    zero: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python-uninstalled"))
    with connect(zero, settings=STARTING) as client, pytest.raises(WriterUnavailable, match="No such file"):
        client.create("job")


def test_a_start_outlasts_the_deadline_of_the_call(zero: Path, tmp_path: Path, as_python: Pythons) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    as_python(GATED.replace("{gate}", str(gate)))
    with connect(zero, settings=ClientSettings(timeout_s=0.5)) as client:
        with ends_within(0.5), pytest.raises(WriterUnavailable, match="being started"):
            client.create("job")
        with gate.open("w") as opened:
            gate.unlink()
            opened.write("go\n")
        with connect(zero, settings=STARTING) as patient:
            assert patient.create("job").id == "job"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a directory away")
def test_root_starts_a_writer_in_the_directory_of_somebody_else(zero: Path, writers: Writers) -> None:
    writer = writers(zero).start()
    with connect(zero) as client:
        client.create("job")
    writer.kill()
    os.chown(private_folder(zero), 65534, 65534)
    with connect(zero, settings=STARTING) as client, pytest.raises(WriterUnavailable) as raised:
        client.get("job")
    assert f"actorstate serve {zero}" in raised.value.hint
    assert raised.value.hint.startswith("start it as its owner: sudo -u ")
    assert lock_holder(zero) is None


def test_a_stopped_writer_is_taken_for_none(zero: Path, writers: Writers) -> None:
    writer = writers(zero).start()
    with connect(zero, settings=ClientSettings(timeout_s=1.0)) as client:
        client.create("job")
        writer.stop()
        with pytest.raises(ActorStateError):
            client.create("new")
        assert serving(zero) == [writer.pid]
        writer.go_on()
        assert client.get("job").id == "job"


# --- many at once -------------------------------------------------------------------------------------------------


def test_clients_that_find_nobody_at_once_start_a_launcher_each(
    zero: Path, tmp_path: Path, as_python: Pythons, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = tmp_path / "starts"
    ours, python = sys.executable, as_python(COUNTED.replace("{counter}", str(counter)))
    monkeypatch.setattr(sys, "executable", ours)
    rivals = [Child(join_directory, "they take turns", python) for _ in range(4)]
    try:
        play_round(ready(rivals), zero)
    finally:
        for rival in rivals:
            rival.__exit__()
    assert len(counter.read_text().splitlines()) == 1


NIGHTLY = pytest.param(200, marks=[pytest.mark.slow, pytest.mark.nightly, pytest.mark.timeout(1800)])


@pytest.mark.parametrize("turns", ["they take turns", "they do not"])
@pytest.mark.parametrize("rounds", [1, pytest.param(10, marks=pytest.mark.slow), NIGHTLY])
def test_of_eight_that_start_at_once_two_serve_or_one_is_left_out(
    rounds: int, turns: str, zero: Path, tmp_path: Path
) -> None:
    rivals = [Child(join_directory, turns) for _ in range(8)]
    try:
        for number in range(rounds):
            play_round(ready(rivals) if not number else rivals, tmp_path / f"jobs-{number}")
    finally:
        for rival in rivals:
            rival.__exit__()


def ready(rivals: list[Child]) -> list[Child]:
    for rival in rivals:
        rival.expect("ready")
    return rivals


def play_round(rivals: list[Child], directory: Path) -> None:
    directory.mkdir()
    for rival in rivals:
        rival.say(str(directory))
    pids = {int(str(rival.read())) for rival in rivals}
    assert len(pids) == 1
    assert serving(directory) == list(pids) == [lock_holder(directory)]
    assert [child for rival in rivals for child in children(rival.pid)] == []
    with connect(directory, autostart=False, settings=STARTING) as client:
        assert client.get("job").progress.processed == len(rivals)
    kill(pids.pop())


def join_directory(turns: str, python: str = sys.executable) -> None:
    """Adds one to the job of each directory that it is told, and says who serves it.

    Without turns, each client's own launcher stands for election, as when the one whose turn it is was stopped.
    """
    start.TURN_S = 0.0 if turns == "they do not" else WITHIN_S
    sys.executable = python
    tell("ready")
    for directory in iter(hear, ""):
        with connect(directory, settings=STARTING) as client:
            client.create("job")
            with client.attach("job") as run:
                run.progress(succeeded=1)
            tell(pid_of(client))


# --- on the command line ------------------------------------------------------------------------------------------


def typed(*words: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "actorstate", *map(str, words)]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=WITHIN_S, stdin=subprocess.DEVNULL
    )


def test_a_command_needs_a_running_writer(zero: Path, writers: Writers) -> None:
    writer = writers(zero).start()
    with connect(zero) as client:
        client.create("job")
    assert writer.terminate() == 0
    for words in (["jobs", zero], ["get", zero, "job"], ["pause", zero, "job"]):
        done = typed(*words)
        assert (done.returncode, "job" in done.stdout) == (0, True), done
    assert serving(zero) == [read_endpoint(zero).pid]


def test_json_files_are_served_by_nobody_until_somebody_types_serve(zero: Path) -> None:
    zero.mkdir()
    assert typed("jobs", f"json://{zero}").returncode == 3
    assert list(zero.iterdir()) == []
    old = {"id": "old", "jobType": "item_migration", "status": "paused", "startedAt": "2026-01-01T00:00:00.000Z"}
    (zero / "old.json").write_text(json.dumps(old))
    assert [job["id"] for job in json.loads(typed("jobs", f"json://{zero}", "--json").stdout)] == ["old"]
    assert typed("serve", f"json://{zero}", "--detach", "--take-over").returncode == 0
    with connect(f"json://{zero}", settings=STARTING) as client:
        client.create("job")
    assert (zero / "job.json").exists()


@pytest.mark.parametrize("existing", [False, True], ids=["no such directory", "another directory"])
def test_a_command_begins_a_directory_of_a_mistyped_name(*, existing: bool, zero: Path) -> None:
    if existing:
        zero.mkdir()
    for words in (["jobs", zero], ["get", zero, "job"], ["pause", zero, "job"], ["delete", zero, "job"]):
        done = typed(*words)
        assert done.returncode == 3, done
        assert f"actorstate serve {zero}" in done.stderr
    assert list(zero.iterdir()) == [] if existing else not zero.exists()


def test_doctor_starts_a_writer_or_calls_its_rest_a_fault(zero: Path, writers: Writers) -> None:
    writer = writers(zero).start()
    assert writer.terminate() == 0
    done = typed("doctor", zero)
    assert done.returncode == 0, done
    assert "the next client starts one" in done.stdout
    writer.start().kill()
    assert typed("doctor", zero).returncode == 1
    assert serving(zero) == []


def test_serve_detached_comes_back_before_it_serves(zero: Path) -> None:
    first, second = typed("serve", zero, "--detach"), typed("serve", zero, "--detach")
    assert first.returncode == 0, first
    assert second.returncode == 4
    assert f"kill {lock_holder(zero)}" in second.stderr
    with connect(zero, autostart=False, settings=ClientSettings(timeout_s=2.0)) as client:
        client.create("job")
    log = (private_folder(zero) / "writer.log").read_text()
    assert "is the writer" not in log, "a lost election is no news for the winner's log"


def test_a_writer_that_dies_before_it_serves_takes_its_last_words_along(zero: Path) -> None:
    with Child(start_one_that_dies, zero) as child:
        message = str(child.read())
        child.ends_well()
    assert "ended before it served" in message
    assert "the last words" in message
    assert "of an earlier life" not in message


def start_one_that_dies(directory: str) -> None:
    def die(_ready: object) -> int:
        print("the last words", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    log = private_folder(Path(directory)) / "writer.log"
    log.parent.mkdir(parents=True)
    log.write_text("words of an earlier life\n")
    try:
        detached(Path(directory), die)
    except WriterUnavailable as error:
        tell(error.message)


def test_a_log_grows_without_end(zero: Path) -> None:
    log = private_folder(zero) / "writer.log"
    log.parent.mkdir(parents=True, mode=0o700)
    log.write_text("x" * 2_000_000)
    assert typed("serve", zero, "--detach").returncode == 0
    assert log.stat().st_size < 10_000
    assert log.with_name("writer.log.1").stat().st_size == 2_000_000
