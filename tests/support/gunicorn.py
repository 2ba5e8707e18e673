"""Real web servers in processes of their own, and readers that refresh as fast as they can."""

import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WITHIN_S = 30.0
WSGI, ASGI = "tests.support.webapp:wsgi", "tests.support.webapp:asgi"


class WebServer:
    """A server of `tests.support.webapp` on a loopback port."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
        self.process, self.port, self.log = process, port, log
        self.path = "/api/jobs/import-42"

    def signal(self, number: int) -> None:
        """To its main process."""
        self.process.send_signal(number)

    def get(self, path: str, **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
        """One request over a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WITHIN_S)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def refreshed(self, requests: int, readers: int, look: Callable[[int, bytes], str]) -> Counter[str]:
        """So many requests for `path` by so many readers at once; what `look` says of each answer, counted."""

        def one(_number: int) -> str:
            try:
                status, _, body = self.get(self.path)
            except (OSError, http.client.HTTPException) as error:
                return f"no answer: {error!r}"
            return look(status, body)

        with ThreadPoolExecutor(readers) as pool:
            return Counter(pool.map(one, range(requests)))


def right(status: int, body: bytes) -> str:
    """Whether the answer is the job, whole."""
    return "right" if status == 200 and json.loads(body)["id"] == "import-42" else f"{status} {body[:200]!r}"


@contextmanager
def gunicorn(
    directory: Path, log: Path, *options: str, app: str = WSGI, prefix: tuple[str, ...] = ()
) -> Iterator[WebServer]:
    """A gunicorn with 2 workers; ended with the block, by SIGKILL if it does not go by itself."""
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
        reserved.set_inheritable(True)
        command = [
            *prefix,
            sys.executable, "-m", "gunicorn", "-w", "2", "--bind", f"fd://{reserved.fileno()}", "--no-control-socket",
            "--graceful-timeout", "20", "--log-level", "info", *options, app,
        ]  # fmt: skip
        environment = os.environ | {"PYTHONPATH": str(ROOT), "JOBS": str(directory), "PYTHONWARNINGS": "ignore"}
        with log.open("wb") as errors:
            process = subprocess.Popen(
                command, stdout=errors, stderr=errors, env=environment, pass_fds=[reserved.fileno()], cwd=ROOT,
                start_new_session=True,
            )  # fmt: skip
    server = WebServer(process, port, log)
    try:
        wait_served(server)
        yield server
    finally:
        end(process)


def wait_served(server: WebServer) -> None:
    """Until it answers; its backlog holds the first request until a worker is ready."""
    until = time.monotonic() + WITHIN_S
    while time.monotonic() < until and server.process.poll() is None:
        try:
            if server.get("/healthz")[0] == 200:
                return
        except OSError:
            continue
    pytest.fail(f"no web server: {server.log.read_text()}")


def end(process: "subprocess.Popen[bytes]") -> None:
    """SIGTERM, and SIGKILL for all of its group when that takes too long."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    descriptor = os.pidfd_open(process.pid)
    try:
        if not select.select([descriptor], [], [], WITHIN_S)[0]:
            os.killpg(process.pid, signal.SIGKILL)
    finally:
        os.close(descriptor)
        process.wait()
