"""The writer's numbers: those of what happened, in the form that Prometheus reads, the same from every web worker."""

import re
import sqlite3
import threading
from contextlib import closing

import pytest
from prometheus_client.parser import text_string_to_metric_families

from actorstate.client.sync import connect
from actorstate.config import ClientSettings, WriterSettings
from actorstate.core.messages.requests import DeleteJob
from actorstate.endpoint import read_endpoint
from actorstate.errors import DiskFull
from tests.support.inprocess import WriterThread, failing, recorded
from tests.support.legacy import a_job, written
from tests.support.web import ask, header, served, told
from tests.support.wire import Producer, Wire, applied_in, code_in, join

COUNTS = {
    "up", "epoch", "disk_full", "jobs", "attached_jobs", "attached_workers", "resident_jobs", "damaged_jobs",
    "feed_topics", "commit_changes", "mailboxes_envelopes", "mailboxes_envelopes_max", "writer_info",
}  # fmt: skip
"""Names without a unit: they count things, or are truths."""


def families(application):
    """What a Prometheus server makes of the answer; it refuses a line that is not of its format."""
    return list(text_string_to_metric_families(ask(application, "/metrics").body.decode()))


def numbers(application):
    """Each sample by its name and labels."""
    return {
        (sample.name.removeprefix("actorstate_"), *sample.labels.values()): sample.value
        for family in families(application)
        for sample in family.samples
    }


def test_a_number_is_not_that_of_what_happened(directory, writer):
    with Wire(read_endpoint(directory)) as wire, served(directory) as one, served(directory) as other:
        producer, report = Producer(), join(wire, "job")
        first = producer.change(report)
        applied_in(wire.ask(first))
        applied_in(wire.ask(first))  # a resend: answered as before
        applied_in(wire.ask(producer.change(report)))
        assert code_in(wire.ask(producer.change(DeleteJob("job")))) == "illegal_transition"
        found, again = numbers(one), numbers(other)
    assert found["repeated_requests_total",] == 1
    assert found["requests_total", "Report"] == 3
    assert found["refusals_total", "illegal_transition"] == 1
    assert found["changes_total",] == found["commit_changes_sum",] == 4  # create, attach, two reports
    assert found["commits_total",] == found["commit_changes_count",] == found["sync_seconds_count",] == 4
    assert found["commit_changes_bucket", "1"] == found["commit_changes_bucket", "+Inf"] == 4
    assert 0 < found["sync_seconds_sum",] <= found["commit_seconds_sum",]
    assert found["jobs", "running"] == found["attached_jobs", "healthy"] == 1
    assert (found["up",], found["epoch",], found["mailboxes_envelopes",]) == (1, 1, 0)
    assert found["mailboxes_envelopes_max",] >= 1
    assert min(found["store_bytes",], found["disk_free_bytes",], found["start_time_seconds",]) > 4096
    assert not any(found[name,] for name in ("disk_full", "damaged_jobs", "damage_found_total", "feed_lag_seconds_sum"))
    moving = {"uptime_seconds", "requests_total", "disk_free_bytes", "attached_jobs"}
    differ = {key[0] for key in found if found[key] != again.get(key)}
    assert differ <= moving, "web workers count by themselves"


def test_prometheus_would_read_something_else(shared_writer):
    with served(shared_writer.directory) as application:
        assert header(ask(application, "/metrics"), "Content-Type").startswith("text/plain; version=0.0.4")
        found = families(application)
    assert len({family.name for family in found}) == len(found) > 35
    for family in found:
        name = family.name.removeprefix("actorstate_")
        assert re.fullmatch(r"actorstate_[a-z]+(_[a-z]+)*", family.name)
        assert family.documentation.endswith("."), name
        assert family.type in {"counter", "gauge", "histogram"}, name
        if family.type != "counter":  # whose samples alone have the _total, as the parser has seen to
            assert name in COUNTS or name.endswith(("_seconds", "_bytes")), f"{name} has no unit"


def test_the_jobs_that_are_followed_are_others_than_those_that_are_stored(directory, writer, start_writer):
    with connect(directory, autostart=False) as client:
        with served(directory) as application:
            client.create("before")
            assert numbers(application)["jobs", "pending"] == 1  # from here on they are followed
        for number, act in enumerate((client.complete, client.pause, client.cancel, client.delete)):
            client.create(f"job-{number}")
            act(f"job-{number}")
        client.retry("job-0")
        client.create("job-3", kind="again")
        client.delete("before")
        with client.attach("job-3"), served(directory) as application:
            followed = numbers(application)
            writer.kill()
            start_writer()
            counted = numbers(application)
    named = {"jobs", "attached_jobs"}
    assert {key: found for key, found in counted.items() if key[0] in named} == {
        key: found for key, found in followed.items() if key[0] in named
    }
    assert (followed["jobs", "running"], followed["jobs", "paused"], followed["jobs", "cancelled"]) == (1, 1, 1)
    assert counted["epoch",] == 2


@pytest.mark.slow  # damaged files are looked at again for 1.6 s
def test_damaged_files_leave_no_trace_in_the_numbers(directory, start_writer):
    (directory / ".backups").mkdir(parents=True)
    whole = written(a_job("cut-off"))
    (directory / "cut-off.json").write_bytes(whole[:200])
    (directory / ".backups" / "cut-off.backup.json").write_bytes(whole)
    (directory / "lost.json").write_bytes(whole[:200])
    start_writer(at=f"json://{directory}")
    with served(f"json://{directory}") as application:
        found = numbers(application)
    assert (found["recovered_jobs_total",], found["second_copies_used_total",]) == (1, 1)
    assert found["quarantined_files_total",] == len(list(directory.glob("*.corrupted.*"))) == 1
    assert (found["unreadable_files_total",], found["damage_found_total",], found["damaged_jobs",]) == (2, 1, 1)
    assert found["jobs", "paused"] == 1
    assert found["store_bytes",] == 2 * (directory / "cut-off.json").stat().st_size


def test_a_damaged_job_is_left_out_in_silence(directory, writer, start_writer):
    with connect(directory, autostart=False) as client:
        for job in ("a-whole", "b-damaged"):
            client.create(job)
    writer.terminate()
    with closing(sqlite3.connect(directory / "jobs.sqlite", isolation_level=None)) as database:
        for table in ("changes", "keyframes"):
            database.execute(f"UPDATE {table} SET body = x'00' WHERE job = 'b-damaged'")
    start_writer()
    with served(directory) as application:
        assert numbers(application)["damaged_jobs",] == 0, "nobody has met it yet"
        page = told(ask(application, "/api/jobs"))
        assert ([job["id"] for job in page["jobs"]], page["damaged"]) == (["a-whole"], ["b-damaged"])
        for _ in range(2):
            assert told(ask(application, "/api/jobs/b-damaged"))["code"] == "corrupt_job"
        found = numbers(application)
    assert (found["damaged_jobs",], found["refusals_total", "corrupt_job"]) == (1, 2)


def test_a_full_disk_looks_like_a_ready_writer(directory):
    hasty = ClientSettings(timeout_s=0.3)
    with (
        WriterThread(directory) as writer,
        connect(directory, settings=hasty) as client,
        served(directory) as application,
    ):
        client.create("job")
        with recorded("disk.filled", "disk.freed") as heard:
            with failing("store.written", DiskFull("injected: no space left")):
                for _ in range(3):
                    with pytest.raises(DiskFull):
                        client.pause("job")
                response = ask(application, "/readyz")
                assert (response.status, told(response)["code"]) == (503, "disk_full")
                assert ask(application, "/api/jobs/job").status == 200, "reads go on"
                assert numbers(application)["disk_full",] == 1
            ready_again(writer)
            found = numbers(application)
            assert ask(application, "/readyz").status == 200
    assert [one["event"] for one in heard] == ["disk.filled", "disk.freed"], "told again for each change or tick"
    assert found["disk_full",] == 0
    assert found["refused_commits_total",] >= 3
    assert found["refusals_total", "disk_full"] >= 3
    assert found["changes_total",] == 1


def ready_again(writer):
    """Returns once the writer itself has seen that there is space: nobody asks for a change."""
    ticks = threading.Semaphore(0)
    writer.server.on_tick = lambda _last_commit: ticks.release()
    for _ in range(2):
        assert ticks.acquire(timeout=30.0)


def test_a_feed_without_readers_has_a_lag_and_one_with_readers_has_none(directory, writer):
    with connect(directory, autostart=False) as client, served(directory) as application:
        client.create("job")
        assert numbers(application)["feed_lag_seconds_count",] == 0
        with client.mirror() as mirror:
            mirror.get("job")
            client.pause("job")
            client.resume("job")
            found = numbers(application)
    assert found["feed_topics",] == 1
    assert found["feed_lag_seconds_count",] == 2
    assert 0 < found["feed_lag_seconds_sum",] < found["uptime_seconds",]


def test_forgotten_history_is_not_counted(directory):
    settings = WriterSettings(history_changes=1)
    with (
        WriterThread(directory, settings) as writer,
        connect(directory) as client,
        recorded("history.forgotten") as heard,
    ):
        client.create("job")
        for _ in range(3):
            client.complete("job")  # each end of a job is a keyframe
            client.retry("job")
        ready_again(writer)
        with served(directory) as application:
            assert numbers(application)["forgotten_changes_total",] == sum(one["number"] for one in heard) > 0


def test_a_writer_that_is_down_is_a_number_too(directory, writer):
    with served(directory, timeout_s=0.5) as application:
        writer.kill()
        response = ask(application, "/metrics")
        assert (response.status, numbers(application)) == (200, {("up",): 0})
