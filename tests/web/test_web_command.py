"""`actorstate web` as people type it: it says where it is, serves, and ends when it is told to."""

import json
import re
import select
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest

from actorstate.client.sync import connect

WITHIN_S = 30.0


@contextmanager
def web(directory, *options):
    command = [sys.executable, "-m", "actorstate", "web", str(directory), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            readable, _, _ = select.select([process.stdout], [], [], WITHIN_S)
            yield process, process.stdout.readline() if readable else ""
        finally:
            process.kill()


def url_in(line):
    return re.search(r"http://\S+", line)[0]


def fetched(url, **headers):
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=WITHIN_S) as answer:
        return answer.status, answer.headers, answer.read()


@pytest.fixture(scope="module")
def directory(shared_writer):
    with connect(shared_writer.directory, autostart=False) as client:
        client.create("import-42", total=10)
    return shared_writer.directory


def test_it_says_where_it_is_serves_there_and_ends_at_sigterm(directory):
    with web(directory, "--port", "0") as (process, line):
        assert "read-only" in line
        status, _, body = fetched(url_in(line))
        assert (status, b"<!doctype html>" in body) == (200, True)
        _, headers, body = fetched(url_in(line) + "api/jobs/import-42")
        assert json.loads(body)["id"] == "import-42"
        with pytest.raises(urllib.error.HTTPError, match="304"):
            fetched(url_in(line) + "api/jobs/import-42", **{"If-None-Match": headers["ETag"]})
        process.send_signal(signal.SIGTERM)
        assert process.wait(WITHIN_S) == 0
        assert process.stderr.read() == ""


def test_ctrl_c_ends_it_without_a_traceback(directory):
    with web(directory, "--port", "0", "--json") as (process, line):
        assert json.loads(line)["url"].startswith("http://127.0.0.1:")
        process.send_signal(signal.SIGINT)
        assert process.wait(WITHIN_S) in {0, 130}
        assert "Traceback" not in process.stderr.read()


def test_a_name_that_was_made_to_lead_here_neither_reads_nor_controls(directory):
    with web(directory, "--port", "0", "--control", "--allow-host", "jobs.example") as (_process, line):
        path = url_in(line) + "api/jobs/import-42/pause"

        def post(host):
            request = urllib.request.Request(
                path, b"{}", {"X-Actorstate": "1", "Host": host, "Origin": f"http://{host}"}
            )
            try:
                with urllib.request.urlopen(request, timeout=WITHIN_S) as answer:
                    return answer.status
            except urllib.error.HTTPError as error:
                return error.code

        assert post("evil.example") == 421
        assert post("jobs.example") == 200
        assert post(url_in(line)[7:-1]) == 200
        with pytest.raises(urllib.error.HTTPError, match="421"):
            fetched(url_in(line) + "api/jobs", Host="evil.example:80")


def test_it_serves_on_a_unix_socket(directory, tmp_path):
    place = tmp_path / "web.sock"
    with web(directory, "--unix", str(place)) as (_process, line):
        assert f"unix:{place}" in line
        with socket.socket(socket.AF_UNIX) as reader:
            reader.settimeout(WITHIN_S)
            reader.connect(str(place))
            reader.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            assert reader.recv(100).startswith(b"HTTP/1.0 200 OK")


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (("/nowhere/jobs",), 3, "check the path"),
        (("--port", "70000"), 4, "65535"),
        (("--port", "taken"), 4, "port TAKEN: Address already in use"),
        (("--host", "999.1.1.1"), 4, "999.1.1.1, port 8137"),
        (("--unix", "/nowhere/web.sock"), 4, "/nowhere/web.sock"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_served(directory, options, status, words):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        arguments = [port if option == "taken" else option for option in options]
        arguments = arguments if arguments[0].startswith("/") else [str(directory), *arguments]
        command = [sys.executable, "-m", "actorstate", "web", *arguments]
        result = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_S)
    assert result.returncode == status, result.stderr
    assert words.replace("TAKEN", port) in result.stderr
    assert "Traceback" not in result.stderr
