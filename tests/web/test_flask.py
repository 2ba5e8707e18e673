"""Behind a host's own login, under a prefix: the blueprint is the same application, and the host keeps the door."""

import flask
import pytest

from actorstate.client.sync import connect
from actorstate.web.flask import blueprint
from actorstate.web.settings import WebSettings


@pytest.fixture
def host(shared_writer):
    with connect(shared_writer.directory, autostart=False) as client:
        client.create("import-42", total=10)
        app = flask.Flask("host")
        app.secret_key = "test"
        settings = WebSettings(control=lambda _request: flask.session.get("user"))

        @app.before_request
        def login():
            if flask.request.headers.get("X-User"):
                flask.session["user"] = flask.request.headers["X-User"]
            return None if "user" in flask.session else ("log in first", 401)

        app.register_blueprint(blueprint(client, settings), url_prefix="/admin/jobs")
        yield app.test_client()


def test_nobody_gets_past_the_hosts_login(host):
    for path in ("/admin/jobs/", "/admin/jobs/api/jobs/import-42", "/admin/jobs/static/page.js"):
        assert host.get(path).status_code == 401
    assert host.post("/admin/jobs/api/jobs/import-42/pause", headers={"X-Actorstate": "1"}).status_code == 401


def test_the_page_and_its_files_are_found_under_the_prefix(host):
    host.get("/admin/jobs/", headers={"X-User": "anna"})
    assert b"static/page.js" in host.get("/admin/jobs/").data
    for path in ("static/page.js", "api/jobs", "api/jobs/import-42", "healthz"):
        assert host.get(f"/admin/jobs/{path}").status_code == 200, path
    there = host.get("/admin/jobs", follow_redirects=False)
    assert there.status_code == 308
    assert there.headers["Location"].endswith("/admin/jobs/")
    first = host.get("/admin/jobs/api/jobs/import-42")
    seen = {"If-None-Match": first.headers["ETag"]}
    assert host.get("/admin/jobs/api/jobs/import-42", headers=seen).status_code == 304


def test_the_hosts_user_is_who_asked(host):
    answer = host.post("/admin/jobs/api/jobs/import-42/pause", headers={"X-User": "anna", "X-Actorstate": "1"})
    assert answer.json["control"]["by"] == "anna"
    host.post("/admin/jobs/api/jobs/import-42/resume", headers={"X-Actorstate": "1"})


def test_a_path_that_is_no_text_is_the_callers_mistake(host):
    user = {"X-User": "anna"}
    assert host.get("/admin/jobs/api/jobs/%ff", headers=user).status_code in {400, 404}
    assert host.get("/admin/jobs/static/%c0%ae%c0%ae/", headers=user).status_code == 404
    assert host.put("/admin/jobs/nope", headers=user).status_code == 404
    assert host.put("/admin/jobs/api/jobs/import-42", headers=user).status_code == 405
