"""Propose, commit, confirm, reply, publish: nobody is told what is not on the disk."""

import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq
from msgspec.structs import replace

from actorstate.config import WriterSettings
from actorstate.core import codec
from actorstate.core.messages.replies import Applied, Beaten, JobsChanged, Listed, NotModified
from actorstate.core.messages.requests import CreateJob, FinishJob, Get, Heartbeat, ListJobs, Report, Request
from actorstate.endpoint import Endpoint, boot_id
from actorstate.errors import DiskFull
from tests.support.inprocess import BESIDE, COMMITTED, Announced, WriterThread, failing, held, recorded
from tests.support.wire import Producer, Wire, applied_in, code_in, document_in, join, read

IN_LOOP = WriterSettings(beside_above_s=10.0)


@contextmanager
def subscribed(endpoint: Endpoint) -> Generator["zmq.Socket[bytes]"]:
    """The change feed, once its first beat has shown that it arrives."""
    context = zmq.Context()
    feed: zmq.Socket[bytes] = context.socket(zmq.SUB)
    feed.setsockopt(zmq.SUBSCRIBE, b"")
    feed.connect(endpoint.changes)
    try:
        assert feed.poll(60_000)
        assert not codec.decode_jobs_changed(feed.recv()).jobs
        yield feed
    finally:
        context.destroy(linger=0)


def next_change(feed: "zmq.Socket[bytes]", within_ms: int = 60_000) -> JobsChanged | None:
    """The next fact on the change feed, beats left out; None when there is none in time."""
    until = time.monotonic() + within_ms / 1000
    while feed.poll(max(0, int((until - time.monotonic()) * 1000))):
        changed = codec.decode_jobs_changed(feed.recv())
        if changed.jobs:
            return changed
    return None


def change_of(feed: "zmq.Socket[bytes]", job: str) -> int:
    """The revision that the feed tells next of this job."""
    while (changed := next_change(feed)) is not None:
        if job in changed.jobs:
            return changed.jobs[job]
    pytest.fail(f"the feed says nothing of {job}")


@pytest.mark.parametrize("event", ["commit.started", "store.written", COMMITTED])
def test_a_change_is_invisible_until_it_is_committed_and_confirmed(event: str, tmp_path: Path) -> None:
    with (
        WriterThread(tmp_path, store=Announced) as writer,
        Wire(writer.endpoint) as worker,
        Wire(writer.endpoint) as reader,
        subscribed(writer.endpoint) as feed,
    ):
        report = join(worker, "job")
        while change_of(feed, "job") < 2:
            pass
        before = reader.document("job")
        with held(event) as gate:
            request = Producer().change(report)
            worker.send(request)
            gate.wait_reached()
            reader.send(read(7, Get("job", newer_than=before.revision, wait_s=30.0)))
            look_at_the_old_state(reader, report, before.revision)
            assert (worker.hear(0.05), reader.hear(0.05), next_change(feed, 50)) == ([], [], None)
        assert applied_in(worker.wait(request.id).answer).revision == before.revision + 1
        assert change_of(feed, "job") == before.revision + 1
        assert document_in(reader.wait(7).answer).progress.processed == 1


def look_at_the_old_state(reader: Wire, report: Report, revision: int) -> None:
    """Every kind of read, many times, is answered with the committed state."""
    for number in range(100, 150):
        assert document_in(reader.ask(read(number, Get(report.job)))).revision == revision
        assert reader.ask(read(number, Get(report.job, newer_than=revision))) == NotModified(revision)
        beat = Heartbeat(report.job, report.worker, report.incarnation)
        assert reader.ask(read(number, beat)) == Beaten()
        listed = reader.ask(read(number, ListJobs(kind="job", after="i")))
        assert isinstance(listed, Listed)
        assert [codec.decode_document(packed).revision for packed in listed.documents] == [revision]


@pytest.mark.parametrize("settings", [BESIDE, IN_LOOP], ids=["beside", "in the loop"])
def test_the_change_feed_has_every_commit_in_order_and_what_it_tells_can_be_read(
    settings: WriterSettings, tmp_path: Path
) -> None:
    with (
        WriterThread(tmp_path, settings) as writer,
        Wire(writer.endpoint) as wire,
        subscribed(writer.endpoint) as feed,
    ):
        reports = [join(wire, f"job-{number}") for number in range(3)]
        wire.send(*Producer().changes(reports * 50))
        seen, sequence = dict[str, int](), 0
        while seen != {"job-0": 52, "job-1": 52, "job-2": 52}:
            changed = next_change(feed)
            assert changed is not None
            assert changed.sequence == sequence + 1
            sequence = changed.sequence
            for job, revision in changed.jobs.items():
                assert revision > seen.get(job, 0)
                assert wire.document(job).revision >= revision
                seen[job] = revision


def test_a_loss_at_the_end_of_a_burst_is_never_seen(tmp_path: Path) -> None:
    with WriterThread(tmp_path) as writer, Wire(writer.endpoint) as wire, subscribed(writer.endpoint) as feed:
        join(wire, "job")
        while change_of(feed, "job") < 2:
            pass
        assert feed.poll(60_000)
        beat = codec.decode_jobs_changed(feed.recv())
        assert (beat.sequence, beat.jobs) == (2, {})


def test_a_feed_without_subscribers_loses_count(tmp_path: Path) -> None:
    with WriterThread(tmp_path) as writer, Wire(writer.endpoint) as wire:
        report = join(wire, "job")
        with subscribed(writer.endpoint) as feed:
            wire.ask(Producer().change(report))
            changed = next_change(feed)
    assert changed == JobsChanged(changed.epoch, 3, {"job": 3})


def test_what_arrives_during_a_commit_shares_the_next_one(tmp_path: Path) -> None:
    with WriterThread(tmp_path) as writer, Wire(writer.endpoint) as wire, recorded("commit.synced") as commits:
        reports = [join(wire, f"job-{number}") for number in range(5)]
        producer, before = Producer(), len(commits)
        with held("commit.started") as gate:
            wire.send(producer.change(reports[0]))
            gate.wait_reached()
            wire.send(*producer.changes(reports * 20))
            wire.document("job-0")
        told = [applied_in(wire.wait(number).answer) for number in range(1, producer.last + 1)]
        assert len(told) == 101
        assert len(commits) - before == 2


@pytest.mark.parametrize("settings", [BESIDE, IN_LOOP], ids=["beside", "in the loop"])
def test_a_commit_refused_by_a_full_disk_leaves_every_job_as_it_was(settings: WriterSettings, tmp_path: Path) -> None:
    producer = Producer()
    with WriterThread(tmp_path, settings) as writer, Wire(writer.endpoint) as wire:
        reports = [join(wire, f"job-{number}") for number in range(3)]
        before = [wire.document(report.job) for report in reports]
        requests = producer.changes([*reports * 3, CreateJob("new"), FinishJob("job-2", "completed")])
        with failing("commit.started", DiskFull("injected: no space left")), recorded("commit.synced") as commits:
            wire.send(*requests)
            assert {code_in(wire.wait(request.id).answer) for request in requests} == {"disk_full"}
            assert [wire.document(report.job) for report in reports] == before
            assert code_in(wire.ask(read(10**6, Get("new")))) == "job_not_found"
            assert commits == []
        told = [applied_in(wire.ask(replace(request, sent_ago_s=1.0))) for request in requests]
        assert [applied_in(wire.ask(request)) for request in requests] == told
        after = [wire.document(report.job) for report in reports]
        assert [document.progress.processed for document in after] == [3, 3, 3]
        assert [document.revision for document in after] == [5, 5, 6]
    with WriterThread(tmp_path, settings) as writer, Wire(writer.endpoint) as wire:
        assert [wire.document(report.job) for report in reports] == after
        assert [applied_in(wire.ask(request)) for request in requests] == told


def test_a_full_disk_refuses_all_of_one_batch_and_nothing_of_the_others(tmp_path: Path) -> None:
    producer = Producer()
    with WriterThread(tmp_path) as writer, Wire(writer.endpoint) as wire, recorded("commit.refused") as refused:
        reports = [join(wire, f"job-{number}") for number in range(4)]
        with held("commit.started") as gate:
            wire.send(producer.change(reports[0]))
            gate.wait_reached()
            wire.send(*producer.changes(reports * 10))
            wire.document("job-0")
            with failing("commit.started", DiskFull("injected: no space left")):
                gate.opened.set()
                told = [wire.wait(number).answer for number in range(1, 42)]
        assert isinstance(told[0], Applied)
        assert {code_in(answer) for answer in told[1:]} == {"disk_full"}
        assert len(refused) == 1
        assert [wire.document(report.job).progress.processed for report in reports] == [1, 0, 0, 0]
        for report in reports:
            applied_in(wire.ask(producer.change(report)))
        assert [wire.document(report.job).progress.processed for report in reports] == [2, 1, 1, 1]


def test_what_was_refused_because_of_a_change_that_was_never_written_is_taken_later(tmp_path: Path) -> None:
    producer = Producer()
    with WriterThread(tmp_path) as writer, Wire(writer.endpoint) as wire:
        report = join(wire, "job")
        with held("commit.started") as gate:
            wire.send(producer.change(report))
            gate.wait_reached()
            end, late = producer.changes([FinishJob("job", "completed"), report])
            wire.send(end, late)
            wire.document("job")
            with failing("commit.started", DiskFull("injected: no space left")):
                gate.opened.set()
                assert [code_in(wire.wait(request.id).answer) for request in (end, late)] == ["disk_full"] * 2
        applied_in(wire.ask(replace(late, sent_ago_s=1.0)))
        assert wire.document("job").progress.processed == 2
        applied_in(wire.ask(end))


def test_time_that_passed_before_a_refused_commit_still_counts(tmp_path: Path) -> None:
    with WriterThread(tmp_path) as writer, Wire(writer.endpoint) as wire:
        producer, report = Producer(), join(wire, "job")
        applied_in(wire.ask(producer.change(report)))
        began = time.monotonic()
        assert wire.hear(0.3) == []
        passed_s = time.monotonic() - began
        with failing("commit.started", DiskFull("injected: no space left")):
            assert code_in(wire.ask(producer.change(report))) == "disk_full"
        applied_in(wire.ask(producer.change(report)))
        assert wire.document("job").rate.active_s >= passed_s


def test_a_request_that_expired_while_it_waited_for_the_disk_is_never_applied(tmp_path: Path) -> None:
    with WriterThread(tmp_path) as writer, Wire(writer.endpoint) as wire:
        producer, report = Producer(), join(wire, "job")
        with held("commit.started") as gate:
            wire.send(producer.change(report))
            gate.wait_reached()
            wire.send(expiring(producer.change(report), 0.1))
            wire.document("job")
            assert wire.hear(0.2) == []
        applied_in(wire.wait(1).answer)
        applied_in(wire.ask(producer.change(report)))
        assert wire.document("job").progress.processed == 2


def expiring(request: Request, in_s: float) -> Request:
    """The same, of a sender of this boot that gives up so soon."""
    return replace(request, boot=boot_id(), expires_at=time.monotonic() + in_s)


def test_a_list_does_not_end_at_a_job_between_commit_and_confirmation(tmp_path: Path) -> None:
    with WriterThread(tmp_path, store=Announced) as writer, Wire(writer.endpoint) as wire:
        applied_in(wire.ask(Producer().change(CreateJob("b"))))
        with held(COMMITTED) as gate:
            wire.send(Producer().change(CreateJob("a"), number=5))
            gate.wait_reached()
            assert "b" in listed(wire, limit=1)
        applied_in(wire.wait(5).answer)


def listed(wire: Wire, limit: int) -> list[str]:
    """The ids of all jobs, page by page."""
    found: list[str] = []
    after = ""
    for number in range(10**6, 10**6 + 100):
        page = wire.ask(read(number, ListJobs(after=after, limit=limit)))
        assert isinstance(page, Listed)
        found += [codec.decode_document(packed).id for packed in page.documents]
        after = page.after
        if not after:
            break
    return found
