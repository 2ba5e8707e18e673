"""Real web servers, their clients made at import: every request is answered and right, whatever ends or begins anew."""

import shutil
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from actorstate.client.sync import connect
from tests.support.gunicorn import ASGI, WITHIN_S, WSGI, WebServer, gunicorn, right
from tests.support.nginx import nginx

pytestmark = pytest.mark.slow

KINDS = {
    "sync": (WSGI, "-k", "sync"),
    "gthread": (WSGI, "-k", "gthread", "--threads", "8"),
    "gevent": (WSGI, "-k", "gevent"),
    "uvicorn": (ASGI, "-k", "uvicorn_worker.UvicornWorker"),
    "asgi": (ASGI, "-k", "asgi"),
}


def kinds(*everyday):
    """The kinds of servers as cases; those that are not named are left to the night."""
    return [pytest.param(kind, marks=() if kind in everyday else pytest.mark.nightly) for kind in KINDS]


@pytest.fixture
def client(directory, writer):
    with connect(directory, autostart=False) as client:
        client.create("import-42", total=10)
        yield client


@pytest.mark.parametrize("kind", kinds("sync", "gthread", "gevent", "asgi"))
@pytest.mark.parametrize(
    "preload", [("--preload",), pytest.param((), marks=pytest.mark.nightly)], ids=["preload", "apart"]
)
def test_a_thousand_requests_are_right_and_none_hangs(directory, client, tmp_path, kind, preload, monkeypatch):
    monkeypatch.setenv("USED", "1")
    app, *options = KINDS[kind]
    with gunicorn(directory, tmp_path / "web.log", *options, *preload, app=app) as server:
        assert server.refreshed(1_000, 16, right) == {"right": 1_000}


@pytest.mark.parametrize("kind", [each for each in kinds("gthread") if each.values != ("uvicorn",)])
def test_workers_that_are_replaced_lose_no_request(directory, client, tmp_path, kind):
    app, *options = KINDS[kind]
    ages = ("--max-requests", "100", "--max-requests-jitter", "20", "--preload")
    with gunicorn(directory, tmp_path / "web.log", *options, *ages, app=app) as server:
        answers = server.refreshed(600, 8, right)
        server.signal(signal.SIGHUP)
        answers += server.refreshed(400, 8, right)
    assert answers == {"right": 1_000}


@pytest.mark.nightly
@pytest.mark.skipif(shutil.which("nginx") is None, reason="needs nginx")
def test_nginx_hides_the_connections_that_uvicorns_worker_resets_at_its_end(directory, client, tmp_path):
    """By itself it closes what it has accepted and not read (github.com/Kludex/uvicorn/pull/3124)."""
    app, *options = KINDS["uvicorn"]
    ages = ("--max-requests", "100", "--max-requests-jitter", "20")
    with (
        gunicorn(directory, tmp_path / "web.log", *options, *ages, app=app) as server,
        nginx(tmp_path, server.port) as port,
    ):
        before = WebServer(server.process, port, server.log)
        before.path = "/static/page.js"  # kept by no cache of nginx
        answers = before.refreshed(600, 8, lambda status, _body: str(status))
        server.signal(signal.SIGHUP)
        answers += before.refreshed(400, 8, lambda status, _body: str(status))
    assert answers == {"200": 1_000}


@pytest.mark.parametrize("kind", kinds("gthread"))
def test_every_request_is_answered_while_the_writer_is_killed_under_them(
    directory, client, tmp_path, kind, start_writer, writer
):
    app, *options = KINDS[kind]

    def answered(status, body):
        return "right" if status == 200 and b'"import-42"' in body else str(status)

    with gunicorn(directory, tmp_path / "web.log", *options, app=app) as server, ThreadPoolExecutor(1) as pool:
        reading = threading.Event()

        def look(status, body):
            reading.set()
            return answered(status, body)

        storm = pool.submit(server.refreshed, 1_500, 8, look)
        assert reading.wait(WITHIN_S)
        writer.kill()
        start_writer()
        answers = storm.result(4 * WITHIN_S)
        assert server.refreshed(50, 8, answered) == {"right": 50}
    assert answers.keys() <= {"right", "503"}, answers
    assert answers.total() == 1_500


@pytest.mark.parametrize("kind", [each for each in kinds() if each.values != ("sync",)])
def test_a_reload_does_not_wait_for_held_readers(directory, client, tmp_path, kind):
    """A held request of a killed worker is the one thing that may break: its reader asks again."""
    app, *options = KINDS[kind]
    with gunicorn(directory, tmp_path / "web.log", *options, app=app) as server, ThreadPoolExecutor(4) as pool:
        _, headers, _ = server.get("/api/jobs/import-42")
        held = [
            pool.submit(server.get, "/api/jobs/import-42?wait=5", **{"If-None-Match": headers["ETag"]})
            for _ in range(4)
        ]
        server.signal(signal.SIGHUP)
        assert {each.result(WITHIN_S)[0] for each in held} <= {304}
        assert server.refreshed(20, 4, right) == {"right": 20}


@pytest.mark.parametrize("kind", ["asgi", pytest.param("uvicorn", marks=pytest.mark.nightly)])
def test_open_event_streams_do_not_hold_up_a_shutdown(directory, client, tmp_path, kind):
    """They end in order; cut off by the graceful timeout, which is shorter than a stream's life, none would."""
    app, *options = KINDS[kind]
    with gunicorn(directory, tmp_path / "web.log", *options, app=app) as server:
        readers = [streaming(server.port) for _ in range(20)]
        server.signal(signal.SIGTERM)
        ends = [rest_of(reader) for reader in readers]
    assert {each[-5:] for each in ends} == {b"0\r\n\r\n"}


def streaming(port):
    """A connection that has got its first event."""
    reader = socket.create_connection(("127.0.0.1", port), timeout=WITHIN_S)
    reader.sendall(b"GET /api/jobs/import-42/events HTTP/1.1\r\nHost: web\r\n\r\n")
    got = b""
    while b'"revision"' not in got:
        got += reader.recv(65_536)
    return reader


def rest_of(reader):
    """What comes until the server closes, or cuts off."""
    got = b""
    with reader:
        try:
            while piece := reader.recv(65_536):
                got += piece
        except ConnectionError:
            return b"cut off"
    return got
