"""Requests made up from the description, thousands of them: no answer that it does not tell of, and none is a 500."""

import subprocess
import sys

import pytest

from actorstate.client.sync import connect
from tests.support.gunicorn import gunicorn

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
    "unsupported_method,allow_header_conformance,missing_required_header"
)


def requests_made_up(directory, tmp_path, examples):
    pytest.importorskip("schemathesis")
    with connect(directory, autostart=False) as client:
        for number in range(3):
            client.create(f"import-{number}", total=10)
    with gunicorn(
        directory, tmp_path / "web.log", "-k", "gthread", "--threads", "8", app="tests.support.webapp:controlled"
    ) as server:
        command = [
            sys.executable, "-m", "schemathesis.cli", "run", f"http://127.0.0.1:{server.port}/api/openapi.json",
            "-c", CHECKS, "--max-examples", str(examples), "--phases", "coverage,fuzzing", "--warnings", "off",
            "--exclude-path-regex", "events",  # without streams here it says 503, as described
        ]  # fmt: skip
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)


@pytest.mark.slow
def test_requests_made_up_from_the_description_are_answered_as_described(directory, writer, tmp_path):
    result = requests_made_up(directory, tmp_path, examples=5)
    assert result.returncode == 0, result.stdout[-4000:]


@pytest.mark.nightly
def test_thousands_of_them_as_well(directory, writer, tmp_path):
    result = requests_made_up(directory, tmp_path, examples=400)
    assert result.returncode == 0, result.stdout[-4000:]
