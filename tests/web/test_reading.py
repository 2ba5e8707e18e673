"""What GET answers: the newest state, once; nothing where nothing changed; the truth when the writer is away."""

import json
import shutil
import threading
import time

import pytest

from actorstate.client.sync import connect
from tests.support.web import act, ask, header, served, told


@pytest.fixture
def client(directory, writer):
    with connect(directory, autostart=False) as client:
        yield client


@pytest.fixture
def application(directory, client):
    with served(directory) as application:
        yield application


@pytest.fixture(scope="module")
def unspoilt(shared_writer):
    """An application whose one job, import-42, is never changed."""
    with connect(shared_writer.directory, autostart=False) as client:
        client.create("import-42")
    with served(shared_writer.directory) as application:
        yield application


def tag(application, job):
    return header(ask(application, f"/api/jobs/{job}"), "ETag")


def recorded(application):
    """What is asked of the writer from now on."""
    calls = []
    flights = application._flights_here()
    call = flights._call
    flights._call = lambda body, timeout_s: (calls.append(body), call(body, timeout_s))[1]
    return calls


def test_a_job_is_told_whole_and_named_by_epoch_and_revision(application, client):
    client.create("import-42", total=10, meta={"source": "crm"})
    response = ask(application, "/api/jobs/import-42")
    assert response.status == 200
    assert header(response, "ETag") == '"1-1"'
    assert header(response, "Cache-Control") == "private, no-cache"
    job = told(response)
    assert (job["id"], job["revision"], job["meta"]) == ("import-42", 1, {"source": "crm"})
    assert "last_beat_s" not in job, "it changes without a revision: under an ETag it would be kept for ever"


@pytest.mark.parametrize("sent", ['"1-1"', "*", 'W/"1-1"', '"9-9", W/"1-1"'])
def test_what_the_reader_has_is_not_sent_again(unspoilt, sent):
    response = ask(unspoilt, "/api/jobs/import-42", {"if-none-match": sent})
    assert (response.status, response.body) == (304, b"")
    assert header(response, "ETag") == '"1-1"'
    assert not header(response, "Content-Type")


def test_a_change_is_never_answered_with_not_modified(application, client):
    client.create("import-42")
    before = tag(application, "import-42")
    client.pause("import-42")
    response = ask(application, "/api/jobs/import-42", {"if-none-match": before})
    assert (response.status, told(response)["status"]) == (200, "paused")


def test_a_held_request_comes_back_with_the_news(application, client):
    client.create("import-42")
    seen = tag(application, "import-42")
    answers = []
    asking = threading.Thread(
        target=lambda: answers.append(ask(application, "/api/jobs/import-42?wait=20", {"if-none-match": seen}))
    )
    asking.start()
    while not application._router._reading._waiting:
        asking.join(0.01)
    client.pause("import-42")
    asking.join(20)
    assert [(answer.status, told(answer)["status"]) for answer in answers] == [(200, "paused")]
    assert not application._router._reading._waiting


def test_more_held_requests_than_threads_can_bear_are_answered_at_once(directory, client):
    client.create("import-42")
    with served(directory, max_waiting=0) as application:
        seen = tag(application, "import-42")
        calls = recorded(application)
        response = ask(application, "/api/jobs/import-42?wait=60", {"if-none-match": seen})
        assert (response.status, header(response, "Retry-After")) == (304, "1"), "nothing slows its reader down"
        assert not any(body.wait_s for body in calls)


def test_a_held_request_without_news_is_not_modified(directory, client):
    client.create("import-42")
    with served(directory, max_wait_s=0.05) as application:
        seen = tag(application, "import-42")
        assert ask(application, "/api/jobs/import-42?wait=60", {"if-none-match": seen}).status == 304


def test_a_held_request_ends_at_shutdown(application, client):
    client.create("import-42")
    seen = tag(application, "import-42")
    calls = recorded(application)
    answers = []
    asking = threading.Thread(
        target=lambda: answers.append(ask(application, "/api/jobs/import-42?wait=20", {"if-none-match": seen}))
    )
    asking.start()
    while not any(getattr(body, "wait_s", 0.0) for body in calls):
        asking.join(0.01)
    application.end_streams()
    asking.join(20)
    assert [answer.status for answer in answers] == [304]
    assert sum(getattr(body, "wait_s", 0.0) for body in calls) <= 2.0, "it was held to its end"


def test_a_held_request_of_a_finished_job_does_not_hang(application, client):
    client.create("import-42")
    client.complete("import-42")
    seen = tag(application, "import-42")
    calls = recorded(application)
    assert ask(application, "/api/jobs/import-42?wait=60", {"if-none-match": seen}).status == 304
    assert len(calls) <= 1, "it was asked for again and again"


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/api/jobs/nope", 404, "job_not_found"),
        ("/api/jobs/-nope", 400, "bad_job_id"),
        ("/api/jobs/nope/items", 404, "job_not_found"),
        ("/api/jobs/import-42/nope", 404, "no_such_page"),
        ("/static/nope.js", 404, "no_such_page"),
        ("/static/__init__.py", 404, "no_such_page"),
        ("/api/jobs?status=odd", 400, "bad_request"),
        ("/api/jobs?limit=0", 400, "bad_request"),
        ("/api/jobs?limit=1001", 400, "bad_request"),
        ("/api/jobs?limit=٣", 400, "bad_request"),
        ("/api/jobs?kind=" + "x" * 129, 400, "bad_request"),
        ("/api/jobs?after=" + "x" * 129, 400, "bad_request"),
        ("/api/jobs/import-42?wait=61", 400, "bad_request"),
        ("/api/jobs/import-42?wait=nan", 400, "bad_request"),
        ("/api/jobs/import-42?wait=-1", 400, "bad_request"),
        ("/api/jobs/import-42?at=9999-12-31T23:59:59-23:59", 400, "bad_request"),
        ("/api/jobs/import-42?at=0001-01-01T00:00:00+23:59", 400, "bad_request"),
        ("/api/jobs/import-42/items?outcome=odd", 400, "bad_request"),
        ("/api/jobs/import-42/items?category=" + "x" * 129, 400, "bad_request"),
    ],
)
def test_what_is_wrong_is_told_as_a_problem(unspoilt, path, status, code):
    response = ask(unspoilt, path)
    assert (response.status, told(response)["code"]) == (status, code)
    assert header(response, "Content-Type") == "application/problem+json"
    assert told(response)["status"] == status


def test_jobs_come_in_pages_the_newest_first(application, client):
    for number in range(5):
        client.create(f"import-{number}")
    first = told(ask(application, "/api/jobs?limit=2"))
    second = told(ask(application, f"/api/jobs?limit=2&after={first['after']}"))
    third = told(ask(application, f"/api/jobs?limit=2&after={second['after']}"))
    ids = [job["id"] for page in (first, second, third) for job in page["jobs"]]
    assert ids == ["import-4", "import-3", "import-2", "import-1", "import-0"]
    assert third["after"] is None


def test_a_list_is_filtered_and_not_sent_twice(application, client):
    client.create("import-1", kind="orders")
    client.create("import-2", kind="crm")
    client.pause("import-2")
    response = ask(application, "/api/jobs?status=paused&kind=crm")
    assert [job["id"] for job in told(response)["jobs"]] == ["import-2"]
    seen = {"if-none-match": header(response, "ETag")}
    assert ask(application, "/api/jobs?status=paused&kind=crm", seen).status == 304
    client.create("import-3", kind="crm")
    client.pause("import-3")
    until = time.monotonic() + 20.0
    while ask(application, "/api/jobs?status=paused&kind=crm", seen).status == 304:
        assert time.monotonic() < until, "a list is a quarter of a second old at most"


def test_head_tells_the_headers_alone(application, client):
    client.create("import-42")
    response = ask(application, "/api/jobs/import-42", method="HEAD")
    assert (response.status, response.body, header(response, "ETag")) == (200, b"", '"1-1"')


def test_another_method_is_told_what_there_is(unspoilt):
    response = ask(unspoilt, "/api/jobs", method="DELETE")
    assert (response.status, header(response, "Allow")) == (405, "GET, HEAD")
    response = ask(unspoilt, "/api/jobs/import-42/pause", method="PUT")
    assert (response.status, header(response, "Allow")) == (405, "POST")


def test_every_answer_forbids_to_guess_and_to_embed(unspoilt):
    for path in ("/", "/api/jobs", "/nope", "/static/page.js"):
        response = ask(unspoilt, path)
        assert header(response, "X-Content-Type-Options") == "nosniff", path
    assert "'unsafe" not in header(ask(unspoilt, "/"), "Content-Security-Policy")
    assert header(ask(unspoilt, "/"), "Content-Security-Policy").startswith("default-src 'none'")


def test_the_page_needs_nothing_from_elsewhere_and_no_inline_script(unspoilt):
    page = ask(unspoilt, "/").body.decode()
    assert "<script>" not in page
    assert " style=" not in page
    assert "<style" not in page
    for name in ("page.js", "list.js", "job.js", "dom.js", "text.js", "page.css", "icon.svg"):
        response = ask(unspoilt, f"/static/{name}")
        assert response.status == 200, name
        assert b"innerHTML" not in response.body
        assert b"https://" not in response.body
        assert ask(unspoilt, f"/static/{name}", {"if-none-match": header(response, "ETag")}).status == 304


# --- the writer is away ------------------------------------------------------------------------------------------


def test_the_last_known_state_is_shown_and_marked_while_the_writer_is_away(directory, client, writer):
    client.create("import-42", total=10)
    with served(directory, timeout_s=0.3, fresh_s=0.0) as application:
        ask(application, "/api/jobs/import-42")
        writer.kill()
        response = ask(application, "/api/jobs/import-42", {"if-none-match": '"1-1"'})
        assert (response.status, told(response)["id"]) == (200, "import-42")
        assert header(response, "X-Actorstate-Stale") == "1"
        assert header(response, "Cache-Control") == "no-store"
        assert not header(response, "ETag"), "a browser would keep it, and not see that it is stale"


def test_the_last_known_list_is_shown_and_marked_while_the_writer_is_away(directory, client, writer):
    client.create("import-42", total=10)
    with served(directory, timeout_s=0.3, fresh_s=0.0) as application:
        before = ask(application, "/api/jobs?kind=job")
        writer.kill()
        response = ask(application, "/api/jobs?kind=job")
        assert (response.status, response.body) == (200, before.body)
        assert (header(response, "X-Actorstate-Stale"), header(response, "ETag")) == ("1", "")
        assert ask(application, "/api/jobs?kind=other").status == 503, "of this one nothing is known"


def test_a_reader_is_never_shown_less_than_it_has_seen_elsewhere(directory, client, writer):
    client.create("import-42", total=10)
    with served(directory, timeout_s=0.3, fresh_s=0.0) as application:
        ask(application, "/api/jobs/import-42")
        writer.kill()
        response = ask(application, "/api/jobs/import-42", {"if-none-match": '"1-2"'})
        assert response.status == 503


@pytest.mark.parametrize("settings", [{"stale": False}, {}])
def test_without_a_state_to_show_readers_are_told_to_come_again(directory, client, writer, settings):
    client.create("import-42")
    with served(directory, timeout_s=0.3, fresh_s=0.0, **settings) as application:
        if settings:
            ask(application, "/api/jobs/import-42")
        writer.kill()
        for path in ("/api/jobs/import-42", "/api/jobs", "/readyz", "/api/migration/items/import-42"):
            response = ask(application, path)
            assert (response.status, header(response, "Retry-After")) == (503, "1"), path
            assert str(directory) not in response.body.decode(), "a stranger learns where it lies"
        assert ask(application, "/healthz").status == 200


def test_an_outage_costs_one_wait_not_one_for_each_reader(directory, client, writer):
    client.create("import-42")
    with served(directory, timeout_s=0.5, fresh_s=0.0) as application:
        ask(application, "/api/jobs/import-42")
        writer.kill()
        calls = recorded(application)
        for _ in range(20):
            assert header(ask(application, "/api/jobs/import-42"), "X-Actorstate-Stale") == "1"
        assert len(calls) <= 2, "each of the refreshes waited for the dead writer"


def test_a_directory_that_was_begun_anew_is_not_answered_from_memory(directory, client, start_writer, writer):
    client.create("import-42", total=10)
    for _ in range(3):
        client.pause("import-42")
        client.resume("import-42")
    with served(directory) as application:
        assert told(ask(application, "/api/jobs/import-42"))["revision"] > 1
        writer.terminate()
        shutil.rmtree(directory)
        start_writer()
        with connect(directory, autostart=False) as other:
            other.create("import-42", total=99)
        application.close()
        assert told(ask(application, "/api/jobs/import-42"))["progress"]["total"] == 99


def test_a_deleted_job_is_forgotten(application, client):
    client.create("import-42")
    assert ask(application, "/api/jobs/import-42").status == 200
    client.delete("import-42")
    until = time.monotonic() + 20.0
    while ask(application, "/api/jobs/import-42").status == 200:
        assert time.monotonic() < until, "the feed has told of it"


def test_a_defect_is_logged_and_told_without_a_traceback(application, caplog, monkeypatch):
    monkeypatch.setattr(application._router, "_routes", None)
    response = ask(application, "/api/jobs")
    assert (response.status, told(response)["code"]) == (500, "defect")
    assert b"Traceback" not in response.body
    assert "Traceback" in caplog.text


# --- events ------------------------------------------------------------------------------------------------------


def pieces(application, response):
    return application._pieces(response.stream)


def test_events_carry_each_state_under_its_tag_and_end_with_the_job(directory, client):
    client.create("import-42")
    with served(directory, max_streams=1, stream_every_s=0.0) as application:
        response = ask(application, "/api/jobs/import-42/events")
        assert header(response, "Content-Type") == "text/event-stream"
        stream = pieces(application, response)
        assert next(stream).startswith(b'id: 1-1\ndata: {"id":"import-42"')
        client.complete("import-42")
        rest = b"".join(stream)
        assert b'"status":"completed"' in rest
        ended = rest.rpartition(b"id: ")[2].split(b"\n")[0].decode()
        again = ask(application, "/api/jobs/import-42/events", {"last-event-id": ended})
        assert again.status == 204, "the browser would come back for ever"


def test_a_reader_that_comes_back_is_not_told_again_what_it_has(directory, client):
    client.create("import-42")
    with served(directory, max_streams=1, stream_every_s=0.0) as application:
        response = ask(application, "/api/jobs/import-42/events", {"last-event-id": "1-1"})
        stream = pieces(application, response)
        assert next(stream) == b"retry: 1000\n\n"
        client.pause("import-42")
        assert any(b'"status":"paused"' in piece for piece in stream)


def test_streams_end_at_shutdown_and_no_new_one_begins(directory, client):
    client.create("import-42")
    with served(directory, max_streams=2, stream_every_s=0.0) as application:
        stream = pieces(application, ask(application, "/api/jobs/import-42/events"))
        next(stream)
        application.end_streams()
        assert len(list(stream)) <= 1
        assert ask(application, "/api/jobs/import-42/events").status == 503


def test_a_stream_ends_by_itself_so_that_no_shutdown_waits_for_it(directory, client):
    client.create("import-42")
    with served(directory, max_streams=1, stream_s=0.0) as application:
        assert list(pieces(application, ask(application, "/api/jobs/import-42/events"))) == []


def test_one_stream_too_many_is_refused_and_a_closed_one_makes_room(directory, client):
    client.create("import-42")
    with served(directory, max_streams=1) as application:
        stream = pieces(application, ask(application, "/api/jobs/import-42/events"))
        next(stream)
        assert ask(application, "/api/jobs/import-42/events").status == 503
        stream.close()
        assert ask(application, "/api/jobs/import-42/events").status == 200


# --- the older tool ------------------------------------------------------------------------------------------------


def test_the_older_tools_page_finds_its_names(application, client):
    with client.run("import-42", total=8, meta={"mode": "upsert"}) as job:
        job.progress(succeeded=6)
        job.failed("4711", ValueError("no e-mail"), category="validation")
        job.failed("4712", TimeoutError("slow"), category="network")
    older = told(ask(application, "/api/migration/items/import-42"))
    assert (older["jobId"], older["status"], older["mode"]) == ("import-42", "completed", "upsert")
    progress = {name: older["progress"][name] for name in ("total", "processed", "successful", "failed", "percent")}
    assert progress == {"total": 8, "processed": 8, "successful": 6, "failed": 2, "percent": 100}
    assert older["errorsByCategory"]["network"] == {"count": 1, "percentage": 50, "shouldRetry": True}
    assert older["errorsByCategory"]["validation"]["shouldRetry"] is False
    assert [error["itemId"] for error in older["errors"]] == ["4711", "4712"]
    assert older["retryAttempts"] == 0
    assert older["startedAt"].endswith("Z")
    assert "T" in older["completedAt"]


def test_the_older_tools_page_stops_asking_for_a_job_that_is_not_there(unspoilt):
    response = ask(unspoilt, "/api/migration/items/nope")
    assert response.status == 404
    assert told(response) == {"error": "Job not found", "message": "there is no job 'nope'"}


def test_the_older_tools_page_sees_a_retry_and_what_was_before(application, client):
    client.create("import-42", total=8)
    with client.attach("import-42") as job:
        job.progress(succeeded=5)
    client.fail("import-42", "out of patience")
    client.retry("import-42")
    older = told(ask(application, "/api/migration/items/import-42"))
    assert older["retryAttempts"] == 1
    assert older["preRetrySnapshot"]["successful"] == 5
    assert older["status"] in {"planning", "in_progress"}


# --- the description -----------------------------------------------------------------------------------------------


def test_the_description_names_each_route_and_no_other(unspoilt):
    description = json.loads(ask(unspoilt, "/api/openapi.json").body)
    described = {(method.upper(), path) for path, one in description["paths"].items() for method in one}
    routes = {(route.method, route.path) for route in unspoilt._router._routes}
    assert described == {(method, path) for method, path in routes if not path.startswith("/static") and path != "/"}


# --- the past ------------------------------------------------------------------------------------------------------


def test_a_job_is_shown_as_it_was(application, client):
    client.create("import-42", total=10)
    client.pause("import-42")
    then = client.get("import-42").updated_at
    client.resume("import-42")
    assert told(ask(application, "/api/jobs/import-42?at=1"))["status"] == "pending"
    response = ask(application, "/api/jobs/import-42?at=2")
    assert (told(response)["status"], header(response, "ETag")) == ("paused", '"1-2"')
    at_time = told(ask(application, f"/api/jobs/import-42?at={then.isoformat()}"))
    assert at_time["revision"] == 2
    for wrong in ("9", "0", "yesterday", "2026-11-23T02:00:00", "99999999999999999"):
        assert ask(application, f"/api/jobs/import-42?at={wrong}").status == 400, wrong


def test_history_comes_in_pages_the_newest_first(application, client):
    client.create("import-42", total=10)
    for _ in range(3):
        client.pause("import-42", by="anna")
        client.resume("import-42")
    pages, before = [], None
    while True:
        page = told(ask(application, f"/api/jobs/import-42/history?limit=3{f'&before={before}' if before else ''}"))
        pages += [change["revision"] for change in page["changes"]]
        if (before := page["before"]) is None:
            break
    assert pages == list(range(client.get("import-42").revision, 0, -1))
    assert ask(application, "/api/jobs/import-42/history?limit=501").status == 400
    assert ask(application, "/api/jobs/nope/history").status == 404


def test_failed_items_of_one_kind_come_in_pages_and_are_retried(directory, client):
    with client.run("import-42", total=9) as job:
        for number in range(4):
            job.failed(f"row-{number}", TimeoutError("slow"), category="network")
        job.failed("row-9", ValueError("no e-mail"), category="validation")
    with served(directory, control=lambda _request: "anna") as application:
        first = told(ask(application, "/api/jobs/import-42/items?outcome=failed&category=network&limit=3"))
        rest = told(
            ask(application, f"/api/jobs/import-42/items?outcome=failed&category=network&after={first['after']}")
        )
        assert [item["key"] for item in first["items"] + rest["items"]] == [f"row-{number}" for number in range(4)]
        assert rest["after"] is None
        again = told(act(application, "/api/jobs/import-42/retry", {"where": "network"}))
        assert (again["progress"]["retrying"], again["progress"]["failed"]) == (4, 1)


def test_a_mistyped_directory_does_not_look_like_an_outage(tmp_path, caplog):
    with served(tmp_path / "jbos", timeout_s=0.1) as application:
        response = ask(application, "/api/jobs")
        ask(application, "/api/jobs/import-42")
    assert (response.status, told(response)["code"]) == (503, "writer_unavailable")
    assert "a directory that there is not" in told(response)["detail"]
    assert str(tmp_path) not in told(response)["detail"]
    assert [str(tmp_path / "jbos") in record.getMessage() for record in caplog.records] == [True]


def test_a_check_of_the_host_that_fails_takes_nothing_from_those_who_look(shared_writer, caplog):
    def broken(_request):
        raise KeyError("user")

    with served(shared_writer.directory, control=broken) as application:
        assert told(ask(application, "/api/about"))["controls"] is False
    assert "KeyError" in caplog.text


def test_a_server_without_event_streams_says_so_for_good(unspoilt):
    response = ask(unspoilt, "/api/jobs/nope/events")
    assert (response.status, told(response)["code"]) == (501, "no_event_streams")


@pytest.mark.parametrize(
    ("host", "status"),
    [("evil.example", 421), ("[::1", 421), ("", 421), ("LOCALHOST:80", 200), ("127.0.0.1:80", 200), ("[::1]:80", 200)],
)
def test_a_name_that_is_not_this_servers_reads_nothing(shared_writer, host, status):
    with served(shared_writer.directory, hosts=("localhost",)) as application:
        assert ask(application, "/api/jobs", {"host": host}).status == status
