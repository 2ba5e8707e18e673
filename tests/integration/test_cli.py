"""The command line as people and scripts use it: real processes, a real writer, pipes and a pseudo-terminal."""

import fcntl
import itertools
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from actorstate.cli.asjson import line
from actorstate.cli.doctor import file_system
from actorstate.cli.views import clean, percent, span
from actorstate.client.sync import Client, connect
from actorstate.core.messages.document import Progress
from actorstate.core.plain import as_plain
from actorstate.endpoint import WriterLock

DEADLINE_S = 60.0


def actorstate(*arguments: str | Path, **options: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "actorstate", *map(str, arguments)]
    options = {"stdin": subprocess.DEVNULL, "timeout": DEADLINE_S, **options}
    return subprocess.run(command, capture_output=True, text=True, **options)


@contextmanager
def started(*arguments: str | Path) -> Iterator["subprocess.Popen[str]"]:
    """A command that runs on; killed when the block ends."""
    command = [sys.executable, "-m", "actorstate", *map(str, arguments)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


numbers = itertools.count(1)


@pytest.fixture
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Of the writer that the test asks for, else of one that the tests of this file share."""
    if {"writer", "start_writer"} & set(request.fixturenames):
        return tmp_path / "jobs"
    return request.getfixturevalue("shared_writer").directory


@pytest.fixture
def client(request: pytest.FixtureRequest, directory: Path) -> Iterator[Client]:
    if "start_writer" in request.fixturenames:
        request.getfixturevalue("writer")
    with connect(directory) as client:
        yield client


@pytest.fixture
def job(client: Client) -> str:
    """A job with something in every corner, and no worker."""
    job = f"import-{next(numbers)}"
    client.create(job, kind=f"orders-of-{job}", total=100, labels={"team": "night"}, meta={"raw": b"\x00\xff"})
    with client.attach(job, worker="w-1") as run:
        run.phase("copying\x1b[2J\nrows")
        run.progress(succeeded=40, skipped=1)
        run.failed("row-7", ValueError("bad \x1b[31mrow"), category="validation")
        run.step("read", "done", data={"files": 3})
        run.checkpoint({"offset": 42, "rate": float("nan"), "raw": b"\x01"})
    return job


# --- exit statuses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        pytest.param(["jobs", "{dir}"], 0, id="jobs"),
        pytest.param(["jobs", "{dir}", "--status", "failed"], 0, id="an empty list is an answer"),
        pytest.param(["get", "{dir}", "{job}"], 0, id="get"),
        pytest.param(["get", "{dir}", "no-such-job"], 1, id="get an unknown job"),
        pytest.param(["watch", "{dir}", "no-such-job"], 1, id="watch an unknown job"),
        pytest.param(["pause", "{dir}", "{job}"], 0, id="pause"),
        pytest.param(["pause", "{dir}", "no-such-job"], 4, id="pause an unknown job"),
        pytest.param(["resume", "{dir}", "not an id"], 4, id="a bad id"),
        pytest.param(["retry", "{dir}", "{job}"], 4, id="retry a job that has not ended"),
        pytest.param(["retry", "{dir}", "no-such-job"], 4, id="retry an unknown job"),
        pytest.param(["approve", "{dir}", "{job}"], 4, id="approve what nobody has asked"),
        pytest.param(["throttle", "{dir}", "{job}", "2.5"], 0, id="throttle"),
        pytest.param(["throttle", "{dir}", "{job}", "off"], 0, id="throttle off"),
        pytest.param(["throttle", "{dir}", "{job}", "0"], 2, id="throttle to nothing"),
        pytest.param(["throttle", "{dir}", "{job}", "nan"], 2, id="throttle to no number"),
        pytest.param(["throttle", "{dir}", "{job}"], 2, id="throttle to what"),
        pytest.param(["delete", "{dir}", "{job}"], 0, id="delete"),
        pytest.param(["delete", "{dir}", "no-such-job"], 4, id="delete an unknown job"),
        pytest.param(["doctor", "{dir}"], 0, id="doctor"),
        pytest.param(["serve", "{dir}"], 4, id="a second writer"),
        pytest.param(["jobs", "{dir}/nowhere"], 3, id="no such directory"),
        pytest.param(["jobs", "/usr"], 3, id="a directory without a writer"),
        pytest.param([], 2, id="no command"),
        pytest.param(["fly"], 2, id="no such command"),
        pytest.param(["get", "{dir}"], 2, id="no job"),
        pytest.param(["jobs", "{dir}", "--status", "running!"], 2, id="no such status"),
        pytest.param(["jobs", "{dir}", "--stat", "running"], 2, id="an abbreviated option"),
        pytest.param(["jobs", "{dir}", "--timeout", "-1"], 2, id="a timeout in the past"),
        pytest.param(["jobs", "{dir}", "--timeout", "nan"], 2, id="a timeout that is no number"),
        pytest.param(["--help"], 0, id="help"),
        pytest.param(["--version"], 0, id="version"),
    ],
)
def test_exit_status(arguments, status, directory, job):
    result = actorstate(*(part.format(dir=directory, job=job) for part in arguments))
    assert result.returncode == status, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    if status:
        assert result.stderr.startswith("actorstate: ")


def test_a_finished_job_refuses_with_a_typed_error(client, job, directory):
    client.complete(job)
    result = actorstate("cancel", directory, job)
    assert result.returncode == 4
    assert f"actorstate get {directory} {job}" in result.stderr, "the hint can be pasted"


def test_an_error_tells_what_to_type_next(tmp_path):
    directory = tmp_path / "jobs"
    result = actorstate("get", directory, "import-1")
    assert result.returncode == 3
    assert result.stderr.splitlines() == [
        f"actorstate: there is no directory {directory}",
        f"  check the path; to begin a new one: actorstate serve {directory}",
    ]


def test_a_wrong_option_names_the_help_of_its_command(tmp_path):
    result = actorstate("jobs", tmp_path, "--staus", "running")
    assert result.stderr.splitlines()[0] == "actorstate: unrecognized arguments: --staus running"
    assert result.stderr.splitlines()[-1] == "  see: actorstate jobs --help"


def test_a_directory_whose_writer_has_ended_is_not_waited_for(writer, directory, job):
    writer.kill()
    begin = time.monotonic()
    result = actorstate("get", directory, job)
    assert result.returncode == 3
    assert f"actorstate serve {directory}" in result.stderr
    assert time.monotonic() - begin < 5


def test_the_timeout_is_kept_when_the_writer_is_stopped(writer, directory, job):
    writer.process.send_signal(signal.SIGSTOP)
    begin = time.monotonic()
    result = actorstate("get", directory, job, "--timeout", "0.7")
    took = time.monotonic() - begin
    assert result.returncode == 3
    assert took < 4


# --- JSON --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["get", "pause", "resume", "cancel"])
def test_json_of_a_job(command, directory, job):
    told = json.loads(actorstate(command, directory, job, "--json").stdout)
    assert told["id"] == job
    assert told["progress"] | {"processed": 42, "failed": 1, "percent": 42.0} == told["progress"]
    assert told["meta"] == {"raw": "AP8="}
    assert told["checkpoints"]["default"]["data"] == {"offset": 42, "rate": None, "raw": "AQ=="}
    assert told["steps"][0]["data"] == {"files": 3}
    assert told["created_at"].endswith("Z")
    assert datetime.fromisoformat(told["created_at"]).utcoffset() is not None


def test_json_of_the_other_commands(directory, job):
    mine = ["--kind", f"orders-of-{job}", "--json"]
    assert [told["id"] for told in json.loads(actorstate("jobs", directory, *mine).stdout)] == [job]
    assert json.loads(actorstate("jobs", directory, "--kind", "other", "--json").stdout) == []
    report = json.loads(actorstate("doctor", directory, "--json").stdout)
    assert report["ok"] is True
    assert any(finding["facts"].get("commits", 0) > 0 for finding in report["findings"])
    assert json.loads(actorstate("delete", directory, job, "--json").stdout) == {"job": job, "deleted": True}


def test_json_of_serve(start_writer):
    told = json.loads(start_writer("--json").ready)
    assert {"directory", "epoch", "pid", "requests", "changes"} <= set(told)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["get", "{dir}", "no-such-job"], "job_not_found"),
        (["pause", "{dir}", "no-such-job"], "job_not_found"),
        (["get", "{dir}", "not an id"], "bad_job_id"),
        (["serve", "{dir}"], "writer_running"),
        (["jobs", "{dir}/nowhere"], "writer_unavailable"),
        (["get", "{dir}"], "usage"),
        (["jobs", "{dir}", "--timeout", "soon"], "usage"),
    ],
)
def test_json_of_an_error_is_on_standard_output(arguments, code, directory, job):
    result = actorstate(*(part.format(dir=directory, job=job) for part in arguments), "--json")
    error = json.loads(result.stdout)["error"]
    assert error["code"] == code
    assert set(error) == {"code", "message", "hint", "retryable", "details"}
    assert error["hint"]


def test_json_of_watch_is_an_object_a_line(client, directory, job):
    with started("watch", directory, job, "--json") as watching:
        first = json.loads(watching.stdout.readline())
        assert first["status"] == "running"
        client.complete(job)
        rest = [json.loads(text) for text in watching.stdout]
        assert watching.wait(DEADLINE_S) == 0
        assert rest[-1]["status"] == "completed"
        revisions = [first["revision"], *(told["revision"] for told in rest)]
        assert revisions == sorted(set(revisions))


def test_json_survives_what_users_save():
    deep: object = "bottom"
    for _ in range(500):
        deep = [deep]
    told = json.loads(line(as_plain({"deep": deep, "inf": float("inf"), "key": {b"\xff": 1}, "odd": "\ud800"})))
    assert told["inf"] is None
    assert told["key"] == {"/w==": 1}


# --- what people see ---------------------------------------------------------------------------------------------


def test_a_jobs_text_cannot_move_the_cursor(directory, job):
    for command in ("get", "jobs"):
        shown = actorstate(command, directory, *([job] if command == "get" else [])).stdout
        assert job in shown
        assert "\x1b" not in shown
    assert "copying\N{REPLACEMENT CHARACTER}[2J" in actorstate("get", directory, job).stdout


def test_jobs_in_a_pipe_are_columns_without_gaps(directory, job):
    head, line = actorstate("jobs", directory, "--kind", f"orders-of-{job}").stdout.splitlines()
    assert len(head.split()) == len(line.split())
    assert line.split()[:6] == [job, f"orders-of-{job}", "running", "-", "42.0%", "42/100"]


def test_control_shows_what_became_of_the_job(directory, job):
    paused = actorstate("pause", directory, job, "--by", "ann", "--wait")
    assert paused.returncode == 0
    assert "paused" in paused.stdout
    shown = actorstate("get", directory, job).stdout
    assert "pause done by ann" in shown
    assert actorstate("resume", directory, job, "--wait").returncode == 0
    assert "cancelled" in actorstate("cancel", directory, job, "--wait").stdout


def test_control_with_a_worker_that_does_not_follow_is_not_done(client, directory, job):
    with client.attach(job, worker="busy"):
        result = actorstate("pause", directory, job, "--wait", "--timeout", "1")
    assert result.returncode == 1
    assert "busy" in result.stdout


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled"])
def test_watch_ends_with_the_job_and_says_how(end, client, directory, job):
    with started("watch", directory, job) as watching:
        assert "running" in watching.stdout.readline()
        {"completed": client.complete, "failed": lambda job: client.fail(job, "no\nmore"), "cancelled": client.cancel}[
            end
        ](job)
        out, err = watching.communicate(timeout=DEADLINE_S)
        assert watching.returncode == (0 if end == "completed" else 1)
        assert end in out.splitlines()[-1]
        assert not err


def test_watch_outlives_its_writer(writer, start_writer, client, directory, job):
    with started("watch", directory, job) as watching:
        assert watching.stdout.readline()
        writer.kill()
        assert "no writer answers" in watching.stderr.readline()
        start_writer()
        assert "the writer answers again" in watching.stderr.readline()
        client.complete(job)
        out, _ = watching.communicate(timeout=DEADLINE_S)
        assert watching.returncode == 0
        assert "completed" in out


def test_watch_gives_up_after_its_timeout(writer, directory, job):
    with started("watch", directory, job, "--timeout", "1") as watching:
        assert watching.stdout.readline()
        writer.kill()
        _, err = watching.communicate(timeout=DEADLINE_S)
        assert watching.returncode == 3
        assert "actorstate serve" in err


def control_terminal() -> None:
    """In the child: a session of its own, whose terminal sends Ctrl-C to it as a signal."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def on_a_terminal(*arguments: str | Path, until: str, then: object = None) -> tuple[int, str]:
    """Runs a command on a pseudo-terminal; calls `then` once `until` is on the screen."""
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"}
    command = [sys.executable, "-m", "actorstate", *map(str, arguments)]
    process = subprocess.Popen(
        command,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment,
        preexec_fn=control_terminal,  # noqa: PLW1509 - this process has no threads of its own
    )
    os.close(slave)
    seen, deadline = "", time.monotonic() + DEADLINE_S
    try:
        while time.monotonic() < deadline:
            if not select.select([master], [], [], 1.0)[0]:
                continue
            try:
                chunk = os.read(master, 65536).decode(errors="replace")
            except OSError:  # the other end is closed: the process has ended
                break
            seen += chunk
            if until in seen and then is not None:
                then(process, master)
                then = None
        return process.wait(DEADLINE_S), seen
    finally:
        process.kill()
        process.wait()
        os.close(master)


def test_watch_on_a_terminal_draws_a_bar(client, directory, job):
    pytest.importorskip("rich")
    status, seen = on_a_terminal("watch", directory, job, until="42.0%", then=lambda *_: client.complete(job))
    assert status == 0
    assert "━" in seen
    assert "42 of 100 rows, 1 failed, 1 skipped" in seen
    assert "completed" in seen
    assert "\x1b[2J" not in seen, "the job's text must not clear the screen"
    assert "\x1b[?25h" in seen, "the cursor is shown again"


def test_jobs_on_a_terminal_is_a_table(directory, job):
    status, seen = on_a_terminal("jobs", directory, until=job)
    assert status == 0
    assert "STATUS" in seen


def test_ctrl_c_ends_watch_without_a_traceback(directory, job):
    for arguments in (["watch", directory, job], ["watch", directory, job, "--json"]):
        with started(*arguments) as watching:
            assert watching.stdout.readline()
            watching.send_signal(signal.SIGINT)
            _, err = watching.communicate(timeout=DEADLINE_S)
            assert watching.returncode == 130
            assert "Traceback" not in err


def test_ctrl_c_on_a_terminal_leaves_it_usable(directory, job):
    status, seen = on_a_terminal("watch", directory, job, until=job, then=lambda _, master: os.write(master, b"\x03"))
    assert status == 130
    assert "Traceback" not in seen


@pytest.mark.parametrize("key", [b"q", b"\x03"], ids=["q", "Ctrl-C"])
def test_top_on_a_terminal_cannot_be_left(writer, directory, job, key):
    pytest.importorskip("rich")
    status, seen = on_a_terminal("top", directory, until=job, then=lambda _, master: os.write(master, key))
    assert status == (0 if key == b"q" else 130)
    assert "STATUS" in seen
    assert "42.0%" in seen
    assert "Traceback" not in seen
    assert "\x1b[?25h" in seen, "the cursor is shown again"


def test_top_in_a_pipe_draws(writer, client, directory, job):
    with started("top", directory, "--every", "0.1") as lines, started("top", directory, "--json") as values:
        assert lines.stdout.readline().startswith("JOB")
        assert json.loads(values.stdout.readline())["id"] == job
        assert lines.stdout.readline().startswith(job)
        client.complete(job)
        assert "completed" in lines.stdout.readline()
        assert json.loads(values.stdout.readline())["status"] == "completed"
        for one in (lines, values):
            one.send_signal(signal.SIGINT)
            _, err = one.communicate(timeout=DEADLINE_S)
            assert one.returncode == 130
            assert "Traceback" not in err


def test_top_once_stays(directory, job, writer):
    once = actorstate("top", directory, "--once")
    assert (once.returncode, len(once.stdout.splitlines())) == (0, 2)
    writer.kill()
    once = actorstate("top", directory, "--once", "--timeout", "0.5")
    assert once.returncode == 3
    assert "actorstate serve" in once.stderr


def test_deleting_on_a_terminal_asks_first(client, directory, job):
    status, seen = on_a_terminal(
        "delete", directory, job, until="[y/N]", then=lambda _, master: os.write(master, b"\n")
    )
    assert status == 1
    assert "kept" in seen
    assert client.get(job).id == job
    status, _ = on_a_terminal("delete", directory, job, until="[y/N]", then=lambda _, master: os.write(master, b"y\n"))
    assert status == 0


def test_a_closed_pipe_is_no_error(client, directory):
    for number in range(150):
        client.create(f"job-{number}", kind="long", meta={"text": "x" * 1000})
    for options in ([], ["--json"]):
        with started("jobs", directory, "--kind", "long", *options) as listing:
            listing.stdout.close()
            err = listing.stderr.read()
            assert listing.wait(DEADLINE_S) == 141
            assert not err


def test_without_rich_a_terminal_gets_lines(tmp_path, client, directory, job, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\nfound = u.find_spec\n"
        "u.find_spec = lambda name, package=None: None if name == 'rich' else found(name, package)\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    status, seen = on_a_terminal("watch", directory, job, until="42.0%", then=lambda *_: client.complete(job))
    assert status == 0
    assert "━" not in seen
    assert "completed" in seen


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (605, "10 min"), (3_900, "1 h 05 min"), (90_000, "1 d 1 h")],
)
def test_spans(seconds, said):
    assert span(seconds) == said


def test_percent_never_says_all_of_less_than_all():
    assert percent(Progress(total=100_000, processed=99_999)) == "99.9%"
    assert percent(Progress(total=0)) == "100.0%"
    assert percent(Progress()) == "-"
    assert clean("a\r\x9b31mb") == "a\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}31mb"


# --- serve -------------------------------------------------------------------------------------------------------


def test_serve_says_when_it_is_ready_and_drains_on_sigterm(writer, directory):
    assert writer.ready == f"actorstate: serving {directory} (epoch 1, pid {writer.process.pid})"
    assert writer.terminate() == 0


def test_serve_serves_although_nobody_reads_its_first_line(tmp_path):
    directory = tmp_path / "jobs"
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "actorstate", "serve", str(directory)]
    process = subprocess.Popen(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    try:
        with connect(directory) as client:
            wait_until((directory / ".actorstate" / "endpoint").exists)
            assert client.ask().pid == process.pid
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0
        told = process.stderr.read()
        assert "writer.ended reason=SIGTERM" in told
        assert len(told.splitlines()) == 2, told
    finally:
        process.kill()
        process.communicate()


def test_the_ages_of_health_can_be_set(start_writer, directory):
    start_writer("--late-after", "0.2", "--dead-after", "0.5")
    with connect(directory) as client:
        client.create("import-1")
        child = subprocess.run(
            [sys.executable, "-c", ATTACH_AND_DIE, str(directory)], capture_output=True, text=True, timeout=DEADLINE_S
        )
        assert child.returncode == -signal.SIGKILL, child.stderr
        state = client.get("import-1")
        while state.health != "dead":
            state = client.wait("import-1", after=state.revision, timeout_s=DEADLINE_S)
    assert "dead" in actorstate("jobs", directory, "--health", "dead").stdout


ATTACH_AND_DIE = """
import os, signal, sys
from actorstate.client.sync import connect
block = connect(sys.argv[1]).attach("import-1")
block.__enter__()
os.kill(os.getpid(), signal.SIGKILL)
"""


def wait_until(condition) -> None:
    """Polls a condition that no event tells."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        select.select([], [], [], 0.02)


# --- doctor ------------------------------------------------------------------------------------------------------


def findings(directory: Path, *options: str) -> tuple[int, dict[str, dict[str, str]]]:
    result = actorstate("doctor", directory, "--json", *options)
    assert "Traceback" not in result.stderr
    report = json.loads(result.stdout)
    assert report["ok"] is (result.returncode == 0)
    worst = sorted(report["findings"], key=lambda finding: ["ok", "note", "wrong"].index(finding["level"]))
    return result.returncode, {finding["name"]: finding for finding in worst}


def test_doctor_finds_a_running_writer_well(writer, directory):
    status, found = findings(directory)
    assert status == 0
    assert str(writer.process.pid) in found["lock"]["message"]
    assert found["writer"]["facts"]["pid"] == writer.process.pid
    assert found["writer"]["facts"]["epoch"] == 1
    assert {finding["level"] for finding in found.values()} <= {"ok", "note"}


def test_doctor_names_the_next_command_when_no_writer_runs(writer, directory, job):
    writer.terminate()
    before = {path: path.read_bytes() for path in directory.iterdir() if path.is_file()}
    status, found = findings(directory)
    assert status == 1
    assert found["lock"]["next"] == f"actorstate serve {directory}"
    assert found["database"]["level"] == "ok"
    assert "1 jobs read" in found["database"]["message"]
    assert {path: path.read_bytes() for path in directory.iterdir() if path.is_file()} == before


def test_doctor_sees_a_stopped_writer(writer, directory):
    writer.process.send_signal(signal.SIGSTOP)
    status, found = findings(directory, "--timeout", "0.5")
    assert status == 1
    assert found["lock"]["next"].startswith(f"kill -CONT {writer.process.pid} ")
    assert found["writer"]["level"] == "wrong"


def test_doctor_sees_a_holder_that_serves_nothing(tmp_path):
    directory = tmp_path / "jobs"
    lock = WriterLock(directory)
    lock.acquire()
    try:
        status, found = findings(directory, "--timeout", "0.5")
    finally:
        lock.release()
    assert status == 1
    assert found["writer"]["level"] == "wrong"


def test_doctor_reports_a_flipped_byte_and_touches_nothing(writer, client, directory, job):
    writer.terminate()
    path = directory / "jobs.sqlite"
    content = bytearray(path.read_bytes())
    at = content.rfind(b"offset")
    assert at > 0
    content[at] ^= 0x20
    path.write_bytes(content)
    status, found = findings(directory)
    assert status == 1
    assert "does not match its digest" in found["database"]["message"]
    assert found["database"]["next"].startswith(f"cp -a {directory}")
    assert path.read_bytes() == content


def test_doctor_reports_a_log_that_lost_its_end(writer, client, directory, job):
    writer.kill()
    log = directory / "jobs.sqlite-wal"
    content = bytearray(log.read_bytes())
    content[len(content) // 2] ^= 1
    log.write_bytes(content)
    head = directory / ".actorstate" / "head"
    head.write_text(json.dumps({"commits": 10_000, "chain": "00" * 16}))
    status, found = findings(directory)
    assert status == 1
    assert found["database"]["level"] == "wrong"
    assert "actorstate-doctor-" not in json.dumps(found), "the paths are those of the directory, not of the copy"
    assert log.read_bytes() == content
    refused = actorstate("serve", directory)
    assert refused.returncode == 4
    assert "Traceback" not in refused.stderr


def test_doctor_reports_a_database_that_is_none(writer, directory):
    writer.terminate()
    (directory / "jobs.sqlite").write_bytes(b"not a database" * 1000)
    status, found = findings(directory)
    assert status == 1
    assert found["database"]["level"] == "wrong"


def test_doctor_reports_open_permissions(writer, directory):
    (directory / "jobs.sqlite").chmod(0o644)
    directory.chmod(0o777)
    status, found = findings(directory)
    assert status == 1
    assert found["permissions"]["next"].startswith("chmod ")


def test_doctor_without_a_directory(tmp_path):
    directory = tmp_path / "jobs"
    status, found = findings(directory)
    assert status == 1
    assert list(found) == ["directory"]
    directory.write_text("a file")
    assert "is a file" in findings(directory)[1]["directory"]["message"]


def test_doctor_reads_the_mount_table():
    table = (
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "30 22 0:26 / /mnt/with\\040space rw shared:1 - nfs4 server:/x rw\n"
        "31 22 0:27 / /tmp rw - tmpfs tmpfs rw\n"
    )
    assert file_system(Path("/var/lib"), table) == "ext4"
    assert file_system(Path("/mnt/with space/jobs"), table) == "nfs4"
    assert file_system(Path("/tmp/jobs"), table) == "tmpfs"
    assert file_system(Path("/tmpfoo"), table) == "ext4"


# --- start-up ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.alone
def test_start_up_costs_much_more_than_its_imports(directory, writer):
    commands = {
        "imports": ["-c", "import zmq, msgspec"],
        "help": ["-m", "actorstate", "--help"],
        "jobs": ["-m", "actorstate", "jobs", str(directory)],
    }
    best = dict.fromkeys(commands, 1e9)
    for _ in range(15):
        for name, arguments in commands.items():
            begin = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            best[name] = min(best[name], time.perf_counter() - begin)
    ratios = {name: round(took / best["imports"], 2) for name, took in best.items()}
    print(f"best of 15: imports {best['imports'] * 1000:.0f} ms; ratios {ratios}")
    assert max(ratios.values()) <= 2.5, ratios


def test_help_imports_neither_rich_nor_the_writer(directory):
    program = (
        "import sys; from actorstate.cli.main import build_parser; build_parser(['jobs']); "
        "print(sorted(m for m in sys.modules if m.split('.')[0] == 'rich' or m.startswith('actorstate.writer')))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stdout == "[]\n", result.stdout + result.stderr
