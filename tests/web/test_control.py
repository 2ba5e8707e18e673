"""What POST answers: nothing without the host's word, nothing from another site, and then what was asked for."""

import socket
import zlib

import pytest
from gunicorn.config import Config
from gunicorn.http.parser import RequestParser
from gunicorn.http.wsgi import create

from actorstate.client.sync import connect
from actorstate.config import ClientSettings
from tests.support.web import OURS, act, ask, header, served, told


@pytest.fixture(scope="module")
def directory(shared_writer):
    return shared_writer.directory


@pytest.fixture
def client(directory):
    with connect(directory, autostart=False) as client:
        yield client


@pytest.fixture
def job(client, request):
    """A job of the test's own."""
    job = f"job-{zlib.crc32(request.node.name.encode())}"
    client.create(job, total=10)
    return job


def anna(_request):
    return "anna"


def test_controls_are_off_unless_the_host_switches_them_on(directory, client, job):
    with served(directory) as application:
        response = act(application, f"/api/jobs/{job}/pause")
        assert (response.status, told(response)["code"]) == (403, "not_allowed")
        assert told(ask(application, "/api/about"))["controls"] is False
    assert client.get(job).status == "pending"


def test_who_was_asked_for_a_pause_is_remembered(directory, client, job):
    with served(directory, control=anna) as application:
        response = act(application, f"/api/jobs/{job}/pause")
        assert (response.status, told(response)["status"]) == (200, "paused")
        assert header(response, "ETag") == f'"1-{told(response)["revision"]}"'
        assert told(ask(application, "/api/about"))["by"] == "anna"
    assert client.get(job).control.by == "anna"


@pytest.mark.parametrize(
    "headers",
    [
        {"x_actorstate": ""},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://jobs.example.evil.example"},
        {"origin": "http://jobs.example:81"},
        {"origin": "http://jobs.example", "host": ""},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
    ],
)
def test_another_site_cannot_control_jobs_with_this_sites_cookies(directory, client, job, headers):
    with served(directory, control=anna) as application:
        assert act(application, f"/api/jobs/{job}/cancel", **headers).status == 403
    assert client.get(job).status == "pending"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "https://jobs.example"},
        {"sec_fetch_site": "same-origin", "origin": "http://jobs.example"},
        {"origin": "https://front.example"},
    ],
)
def test_the_own_page_and_named_origins_can(directory, client, job, headers):
    with served(directory, control=anna, origins=("https://front.example",)) as application:
        assert act(application, f"/api/jobs/{job}/cancel", **headers).status == 200
    assert client.get(job).status == "cancelled"


def test_whom_the_hosts_check_refuses_changes_nothing(directory, client, job):
    def nobody(_request):
        return None

    with served(directory, control=nobody) as application:
        assert act(application, f"/api/jobs/{job}/pause").status == 403
        assert told(ask(application, "/api/about"))["controls"] is False
    assert client.get(job).status == "pending"


def test_the_hosts_check_sees_the_request(directory, client, job):
    seen = []

    def check(request):
        seen.append((request.method, request.path, request.headers["host"]))
        return ""

    with served(directory, control=check) as application:
        assert act(application, f"/api/jobs/{job}/pause").status == 200
    assert seen == [("POST", f"/api/jobs/{job}/pause", "jobs.example")]


def test_every_action_does_what_it_says(directory, client, job):
    with served(directory, control=anna) as application:
        said = [told(act(application, f"/api/jobs/{job}/{action}"))["status"] for action in ("pause", "resume")]
        assert said == ["paused", "pending"]
        assert told(act(application, f"/api/jobs/{job}/cancel"))["status"] == "cancelled"
        again = told(act(application, f"/api/jobs/{job}/retry", {"from_start": True}))
        assert (again["status"], again["attempt"]) == ("pending", 2)
        client.create("ask-1", needs_approval="delete 12 groups?")
        other = act(application, "/api/jobs/ask-1/approve", {"question": "delete all groups?"})
        assert (other.status, told(other)["code"]) == (409, "illegal_transition")
        approved = told(act(application, "/api/jobs/ask-1/approve", {"question": "delete 12 groups?"}))
        assert approved["approvals"][0]["approved_by"] == "anna"


@pytest.mark.parametrize(
    ("action", "body", "status", "code"),
    [
        ("retry", b"", 409, "illegal_transition"),
        ("retry", b'{"from_start": 1}', 400, "bad_request"),
        ("approve", b'{"question": 1}', 400, "bad_request"),
        ("pause", b'{"by": "mallory"}', 400, "bad_request"),
        ("pause", b"[]", 400, "bad_request"),
        ("pause", b"{", 400, "bad_request"),
        ("pause", b"\xff", 400, "bad_request"),
        ("pause", b"[" * 15_000, 400, "bad_request"),
        ("pause", b" " * 16_385, 413, "too_large"),
    ],
)
def test_what_cannot_be_done_is_told_and_changes_nothing(directory, client, job, action, body, status, code):
    with served(directory, control=anna) as application:
        response = ask(application, f"/api/jobs/{job}/{action}", OURS, "POST", body)
        assert (response.status, told(response)["code"]) == (status, code)
    assert client.get(job).revision == 1


def test_a_change_that_nobody_answered_is_not_called_refused(start_writer, tmp_path):
    writer = start_writer(at=tmp_path / "jobs")
    with served(writer.directory, control=anna, timeout_s=0.3) as application:
        application._client.transport.settings = ClientSettings(timeout_s=3_600.0, autostart=False)
        with connect(writer.directory, autostart=False) as client:
            client.create("import-42")
        writer.kill()
        assert act(application, "/api/jobs/import-42/pause").status in {503, 504}


def test_a_job_that_is_not_there_cannot_be_controlled(directory):
    with served(directory, control=anna) as application:
        assert act(application, "/api/jobs/nope/pause").status == 404


def environ_of(sent):
    """The WSGI environ that gunicorn makes of these bytes."""
    settings, place = Config(), ("127.0.0.1", 80)
    request = next(RequestParser(settings, iter([sent]), place))
    with socket.socket() as unused:
        return create(request, unused, place, place, settings)[1]


@pytest.mark.parametrize(
    ("body", "status"),
    [(b'{"from_start": true}', "200 OK"), (b"no json", "400 Bad Request"), (b" " * 20_000, "413")],
    ids=["right", "no json", "too large"],
)
def test_a_body_in_chunks_is_read_like_any_other(directory, client, job, body, status):
    """It has no Content-Length: taken for empty, a retry would keep a checkpoint that it was told to drop."""
    with client.attach(job) as worker:
        worker.checkpoint({"row": 5})
    client.cancel(job)
    head = f"POST /api/jobs/{job}/retry HTTP/1.1\r\nHost: a\r\nX-Actorstate: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
    environ = environ_of(head.encode() + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
    with served(directory, control=anna) as application:
        answers = []
        application(environ, lambda line, _headers: answers.append(line))
        assert answers[0].startswith(status)
        assert bool(client.get(job).checkpoints) == (status != "200 OK")
        application(environ | {"wsgi.input_terminated": False}, lambda line, _headers: answers.append(line))
        assert answers[1].startswith("411")
