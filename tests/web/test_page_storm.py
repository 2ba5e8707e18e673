"""A storm of refreshes in numbers, with and without nginx: what reaches the writer, and what its workers feel of it.

pytest -s -m nightly tests/web/test_page_storm.py
"""

import re
import shutil
import socket
import statistics
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from actorstate.client.sync import connect
from actorstate.config import ClientSettings
from tests.support.gunicorn import WITHIN_S, gunicorn

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(not (shutil.which("wrk") and shutil.which("nginx")), reason="needs wrk and nginx"),
]
DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
STORM_S, READERS = 6, 32
LATER = ("nice", "-n", "5")
"""As actorstate-web.service has it; whoever refreshes has processors of his own elsewhere."""


@contextmanager
def nginx(folder, upstream, port):
    """nginx with deploy/nginx.conf, its upstream and port replaced."""
    text = (DEPLOY / "nginx.conf").read_text()
    text = text.replace("unix:/run/actorstate-web/web.sock", f"127.0.0.1:{upstream}")
    text = text.replace("/var/cache/nginx/actorstate", f"{folder}/cache").replace(
        "listen 8080", f"listen 127.0.0.1:{port}"
    )
    (folder / "ours.conf").write_text(text)
    (folder / "nginx.conf").write_text(
        f"daemon off; user root; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;"
        f"events {{ worker_connections 1024; }} http {{ access_log off; include {folder}/ours.conf; }}"
    )
    with subprocess.Popen([*LATER, "nginx", "-c", str(folder / "nginx.conf")]) as process:
        try:
            yield
        finally:
            process.terminate()


def storm(url):
    """Requests a second that were answered with 200, and how many others."""
    result = subprocess.run(
        [*LATER, "wrk", "-t1", f"-c{READERS}", f"-d{STORM_S}s", url],
        capture_output=True,
        text=True,
        timeout=STORM_S + WITHIN_S,
    )
    wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", result.stdout)
    return float(re.search(r"Requests/sec:\s+([\d.]+)", result.stdout)[1]), int(wrong[1]) if wrong else 0


class Acks(threading.Thread):
    """A worker that saves a checkpoint after the other, and how long each took."""

    def __init__(self, directory):
        super().__init__()
        self.directory, self.ended, self.times_s = directory, threading.Event(), []

    def run(self):
        with (
            connect(self.directory, settings=ClientSettings(timeout_s=WITHIN_S)) as client,
            client.attach("import-42") as job,
        ):
            while not self.ended.is_set():
                began = time.monotonic()
                job.checkpoint({"after": len(self.times_s)})
                self.times_s.append(time.monotonic() - began)


@contextmanager
def acknowledged(directory, into):
    worker = Acks(directory)
    worker.start()
    yield
    worker.ended.set()
    worker.join(WITHIN_S)
    into.append(statistics.quantiles(worker.times_s, n=100)[98])


def test_a_storm_of_refreshes_reaches_neither_the_disk_nor_the_workers(directory, writer, tmp_path, unused_port):
    with connect(directory, autostart=False, settings=ClientSettings(timeout_s=WITHIN_S)) as client:
        client.create("import-42", total=1_000)
        web = gunicorn(directory, tmp_path / "web.log", "-k", "gthread", "--threads", "8", prefix=LATER)
        with web as server, nginx(tmp_path, server.port, unused_port):
            measured = measure(client, directory, server.port, unused_port)
    (plain, wrong), (cached, wrong_cached), reads, reads_cached, (calm, stormy, behind) = measured
    print(f"\n{plain:,.0f} pages/s, {wrong} wrong, {reads / STORM_S:,.0f} reads/s at the writer")
    print(
        f"with nginx {cached:,.0f} pages/s, {wrong_cached} wrong, {reads_cached / STORM_S:,.1f} reads/s at the writer"
    )
    print(f"ack p99 {calm * 1e3:.1f} ms calm, {stormy * 1e3:.1f} ms in one storm, {behind * 1e3:.1f} ms in the second")
    assert (wrong, wrong_cached) == (0, 0)
    assert reads_cached <= 20 * STORM_S
    assert min(stormy, behind) <= 3 * calm, "the workers feel the storm"


def measure(client, directory, port, nginx_port):
    p99_s = []
    with acknowledged(directory, p99_s):
        threading.Event().wait(STORM_S / 2)
    before = client.ask().reads
    with acknowledged(directory, p99_s):
        plain = storm(f"http://127.0.0.1:{port}/api/jobs/import-42")
    between = client.ask().reads
    with acknowledged(directory, p99_s):
        cached = storm(f"http://127.0.0.1:{nginx_port}/api/jobs/import-42")
    after = client.ask().reads
    return plain, cached, between - before, after - between, p99_s


@pytest.fixture
def unused_port():
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        return reserved.getsockname()[1]
