"""What the log of a real writer says of its life, one line an event, and what it keeps to itself."""

import json
import re
from pathlib import Path

import pytest

from actorstate import telemetry
from actorstate.client.sync import connect
from actorstate.endpoint import read_endpoint
from actorstate.errors import JobNotFound
from actorstate.writer.log import LEVELS, MAX_LINES, REFUSALS_S, WINDOW_S, Log
from tests.conftest import StartWriter
from tests.support.wire import Producer, Wire, applied_in, join

FIELD = r"([a-z_]+)=(\"(?:\\.|[^\"])*\"|\S+)"
LINE = re.compile(rf"\d{{4}}-\d\d-\d\dT[\d:.]+Z (?P<level>[A-Z]+) (?P<event>[a-z_]+\.[a-z_]+)(?P<fields>( {FIELD})*)")


def lines(log: Path) -> list[dict[str, str]]:
    """Each line's level, event and fields; fails for a line that is none."""
    found = []
    for text in log.read_text().splitlines():
        line = LINE.fullmatch(text)
        assert line, text
        fields = dict(re.findall(FIELD, line["fields"]))
        found.append({"level": line["level"], "event": line["event"], **fields})
    return found


def live(directory: Path) -> None:
    """Hundreds of messages that are as they should be, and a few that are not."""
    with Wire(read_endpoint(directory)) as wire:
        producer, report = Producer(), join(wire, "job")
        applied_in(wire.ask(producer.change(report)))
        many = producer.changes([report] * 300)
        wire.send(*many)
        for request in many:
            applied_in(wire.wait(request.id).answer)
    with connect(directory, autostart=False) as client:
        for number in range(50):
            with pytest.raises(JobNotFound):
                client.get(f"nowhere-{number}")


def test_a_life_is_told_by_each_message_or_not_at_all(directory: Path, start_writer: StartWriter) -> None:
    first = start_writer()
    live(directory)
    first.kill()
    told = lines(first.log)
    assert [line["event"] for line in told] == ["writer.started", "request.refused"], "one line a refused request"
    assert (told[0]["epoch"], told[0]["pid"], told[0]["level"]) == ("1", str(first.process.pid), "INFO")
    assert (told[1]["code"], told[1]["error"]) == ("job_not_found", "\"there is no job 'nowhere-0'\"")
    second = start_writer("--take-over")
    second.terminate()
    log = second.log.read_text().partition("actorstate: no other writer runs\n")[2]
    second.log.write_text(log)
    told = lines(second.log)
    assert [line["event"] for line in told] == ["writer.was_killed", "writer.started", "writer.ended"]
    assert told[0]["pid"] == str(first.process.pid)
    assert (told[2]["reason"], told[2]["commits"], told[2]["epoch"]) == ("SIGTERM", "0", "2")


def test_json_lines_are_not_json(directory: Path, start_writer: StartWriter) -> None:
    first = start_writer("--log-format", "json")
    second = start_writer("--take-over", "--json", "--log-format", "json", "--idle-exit", "0.1")
    assert second.process.wait(30) == 0
    told = [json.loads(line) for line in second.log.read_text().splitlines()]
    assert [line["event"] for line in told] == [
        "writer.was_killed",
        "writer.started",
        "writer.took_over",
        "writer.ended",
    ]
    assert told[2]["killed"] == first.process.pid
    assert told[3]["reason"] == "nobody needed it"
    assert all(line["at"].endswith("Z") and line["level"] in {"INFO", "WARNING"} for line in told)


def test_a_log_is_flooded_by_a_broken_job(caplog: pytest.LogCaptureFixture) -> None:
    clock = [0.0]
    with caplog.at_level("INFO"), Log(lambda: clock[0]).listening():
        for _ in range(1_000):
            telemetry.event("store.damage_found", job="job", what="item")
            telemetry.event("request.refused", code="busy", error="one")
            telemetry.event("request.refused", code="job_not_found", error="two")
        assert len(caplog.records) == MAX_LINES + 2
        clock[0] = WINDOW_S
        telemetry.event("store.damage_found", job="job", what="item")
        assert vars(caplog.records[-1])["fields"]["left_out"] == 1_000 - MAX_LINES
        clock[0] = REFUSALS_S
        telemetry.event("request.refused", code="busy", error="one")
        assert vars(caplog.records[-1])["fields"]["left_out"] == 999
    assert vars(caplog.records[-1])["fields"] == {"code": "job_not_found", "left_out": 999}, "left out in silence"


def test_an_event_has_a_level_and_nobody_tells_it() -> None:
    package = Path(telemetry.__file__).parent
    source = "".join(path.read_text() for path in package.rglob("*.py") if path.name not in {"log.py", "meter.py"})
    assert {name for name in LEVELS if f'"{name}"' not in source} == set()
