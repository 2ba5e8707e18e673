"""uWSGI without its fork hooks, and Celery's prefork pool: clients made and used before the fork work after it."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from actorstate.client.sync import connect
from tests.support.gunicorn import ROOT, WITHIN_S, WSGI, WebServer, end, right, wait_served

pytestmark = pytest.mark.nightly
UWSGI = Path(sys.executable).with_name("uwsgi")


@pytest.fixture
def client(directory, writer):
    with connect(directory, autostart=False) as client:
        client.create("import-42", total=10)
        yield client


@pytest.mark.skipif(not UWSGI.exists(), reason="needs uwsgi: pip install uwsgi")
@pytest.mark.parametrize("options", [(), ("--enable-threads", "--threads", "4"), ("--lazy-apps",)])
def test_uwsgi_without_fork_hooks_answers_every_request(directory, client, tmp_path, options):
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    command = [
        str(UWSGI), "--http-socket", f"127.0.0.1:{port}", "--master", "-p", "2", "--need-app", "--die-on-term",
        "--disable-logging", "--home", sys.prefix, "--module", WSGI, *options,
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JOBS": str(directory), "USED": "1"}
    with (tmp_path / "web.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        server = WebServer(process, port, tmp_path / "web.log")
        wait_served(server)
        assert server.refreshed(1_000, 16, right) == {"right": 1_000}
    finally:
        end(process)


def test_tasks_of_celerys_forked_workers_count_exactly(directory, client, tmp_path):
    pytest.importorskip("celery")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JOBS": str(directory), "BROKER": str(tmp_path / "broker")}
    program = [sys.executable, "-W", "ignore", "-m", "celery", "-A", "tests.support.celeryapp"]
    options = [
        "worker",
        "-P",
        "prefork",
        "-c",
        "4",
        "--without-gossip",
        "--without-mingle",
        "--without-heartbeat",
        "-E",
    ]
    with (tmp_path / "celery.log").open("wb") as log:
        worker = subprocess.Popen([*program, *options], stdout=log, stderr=log, env=environment, cwd=tmp_path)
    try:
        send = "from tests.support.celeryapp import count\nfor _ in range(40): count.delay(5)"
        subprocess.run([sys.executable, "-W", "ignore", "-c", send], env=environment, check=True, timeout=WITHIN_S)
        state = client.get("import-42")
        while state.progress.processed < 200:
            newer = client.wait("import-42", after=state.revision, timeout_s=WITHIN_S)
            assert newer.revision > state.revision, (tmp_path / "celery.log").read_text()
            state = newer
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(WITHIN_S) == 0, "the worker hangs at its end"
    finally:
        worker.kill()
        worker.wait()
    assert client.get("import-42").progress.succeeded == 200
    assert not (tmp_path / "celery.log").read_text().count("Traceback")
