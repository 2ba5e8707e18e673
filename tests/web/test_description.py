"""Requests made up from the description, thousands of them: no answer that it does not tell of, and none is a 500."""

import re
import subprocess
import sys

import pytest

from actorstate.client.sync import connect
from actorstate.web.openapi import described
from tests.support.gunicorn import gunicorn

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
    "unsupported_method,allow_header_conformance,missing_required_header"
)
EXAMPLES = {"fuzzing": 8, "coverage,fuzzing": 25}
SERVERS = {
    "wsgi": ("controlled", ("-k", "gthread", "--threads", "8")),
    "asgi": ("brief", ("-k", "asgi")),
}
ALL = ("import-0", "import-1", "import-2", "")
"""Jobs that are open, failed and waiting for an answer; and ids that are made up, which lead to 404 alone."""


def requests_made_up(directory, folder, kind, jobs, phases):
    """The results for each of the jobs, and which operations were answered how."""
    pytest.importorskip("schemathesis")
    with connect(directory, autostart=False) as client:
        for job in filter(None, ALL):
            client.create(job, total=10)
            with client.attach(job) as worker:
                worker.failed("row-1", "no e-mail address", category="validation")
        client.fail("import-1", "no")
        client.delete("import-2")
        client.create("import-2", needs_approval=True)
    app, options = SERVERS[kind]
    left_out = (
        ("--exclude-path-regex", "events$") if kind == "wsgi" else ()
    )  # 503 without a thread for it, as described
    log = ("--access-logfile", str(folder / "accesses"), "--access-logformat", "%(s)s %(m)s %(U)s")
    with gunicorn(directory, folder / "web.log", *options, *log, app=f"tests.support.webapp:{app}") as server:
        command = [
            sys.executable, "-m", "schemathesis.cli", "run", f"http://127.0.0.1:{server.port}/api/openapi.json",
            "-c", CHECKS, "--max-examples", str(EXAMPLES[phases]), "--phases", phases, "--warnings", "off",
            *left_out,
        ]  # fmt: skip
        results = []
        for job in jobs:
            (folder / "schemathesis.toml").write_text(f'[parameters]\n"path.id" = "{job}"\n' if job else "")
            results.append(subprocess.run(command, capture_output=True, text=True, cwd=folder))
    return results, (folder / "accesses").read_text().splitlines()


def never_done(accesses):
    """Operations of the description that were not once answered as their callers hope."""
    done = {line.split(" ", 1)[1] for line in accesses if line[0] == "2" or line[:3] == "304"}
    operations = [(method.upper(), path) for path, methods in described()["paths"].items() for method in methods]
    shapes = {each: f"{each[0]} {re.sub('{id}', '[^/]+', each[1])}" for each in operations}
    return {each for each, shape in shapes.items() if not any(re.fullmatch(shape, one) for one in done)}


@pytest.mark.slow
def test_requests_made_up_from_the_description_are_answered_as_described(directory, writer, tmp_path):
    (result,), accesses = requests_made_up(directory, tmp_path, "asgi", ["import-0"], "fuzzing")
    assert result.returncode == 0, result.stdout[-4000:]
    assert {path for method, path in never_done(accesses) if method == "GET"} == set()


@pytest.mark.nightly
@pytest.mark.parametrize("kind", SERVERS)
def test_a_thousand_of_them_as_well(directory, writer, tmp_path, kind):
    results, accesses = requests_made_up(directory, tmp_path, kind, ALL, "coverage,fuzzing")
    for result in results:
        assert result.returncode == 0, result.stdout[-4000:]
    left_out = {("GET", "/api/jobs/{id}/events")} if kind == "wsgi" else set()
    assert never_done(accesses) == left_out
