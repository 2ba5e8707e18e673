"""The writer as a whole: its bounds, its fairness, and what it does when one job or the disk misbehaves."""

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace as with_settings
from pathlib import Path
from typing import cast

import pytest
from msgspec.structs import replace

from actorstate.client.sync import connect
from actorstate.config import ClientSettings, WriterSettings
from actorstate.core.messages.replies import Answer, NotModified, Refused
from actorstate.core.messages.requests import CreateJob, DeleteJob, FinishJob, Get, ListJobs
from actorstate.endpoint import boot_id
from actorstate.errors import Busy, WriterUnavailable
from actorstate.store.contract import JobCommit
from actorstate.telemetry import Listener
from actorstate.writer.server import TICK_S
from tests.support.inprocess import BESIDE, PATIENCE_S, WriterThread, held, recorded
from tests.support.wire import Producer, Wire, applied_in, asked, code_in, document_in, join, read
from tests.support.writer import listening


@pytest.mark.parametrize("bound", ["max_mailbox", "max_waiting"])
def test_a_full_mailbox_answers_busy_and_loses_nothing(bound: str, tmp_path: Path) -> None:
    settings = with_settings(BESIDE, **{bound: 4})
    with WriterThread(tmp_path, settings) as writer, Wire(writer.endpoint) as wire:
        producer, report = Producer(), join(wire, "job")
        requests = producer.changes([report] * 11)
        with held("commit.started") as gate:
            wire.send(requests[0])
            gate.wait_reached()
            wire.send(*requests[1:])
            busy = [wire.wait(request.id).answer for request in requests[5:]]
            assert wire.document("job").progress.processed == 0
        assert [answer.code for answer in refused(busy) if answer.details["retry_after_s"]] == ["busy"] * 6
        for request in requests[:5]:
            applied_in(wire.wait(request.id).answer)
        assert wire.document("job").progress.processed == 5
        for request in requests:
            applied_in(wire.ask(request))
        assert wire.document("job").progress.processed == 11


def refused(answers: list[Answer]) -> list[Refused]:
    return [answer for answer in answers if isinstance(answer, Refused)]


def test_a_request_whose_sender_has_given_up_is_dropped(tmp_path: Path) -> None:
    with WriterThread(tmp_path) as writer, Wire(writer.endpoint) as wire:
        producer, report = Producer(), join(wire, "job")
        past = time.monotonic() - 0.001
        wire.send(replace(producer.change(report), boot=boot_id(), expires_at=past))
        wire.send(replace(read(2, Get("job")), boot=boot_id(), expires_at=past))
        assert wire.document("job").progress.processed == 0
        assert wire.hear(0.05) == []
        applied_in(wire.ask(replace(producer.change(report), boot="another boot", expires_at=past)))
        applied_in(wire.ask(replace(producer.change(report), boot=boot_id(), expires_at=past + 3_600.0)))
        assert wire.document("job").progress.processed == 2


def test_a_flooded_job_does_not_keep_another_one_waiting(tmp_path: Path) -> None:
    settings = with_settings(BESIDE, max_mailbox=5_000)
    with WriterThread(tmp_path, settings) as writer, Wire(writer.endpoint) as flood, Wire(writer.endpoint) as other:
        loud, quiet = join(flood, "loud"), join(other, "quiet")
        with held("commit.started") as gate, recorded("commit.started") as commits:
            flood.send(Producer().change(loud, number=1))
            gate.wait_reached()
            flood.send(*Producer().changes([loud] * 1_000))
            flood.send(*[request for _ in range(4) for request in Producer().changes([loud] * 900)])
            flood.document("loud")
            request = Producer().change(quiet)
            other.send(request)
            other.document("quiet")
            assert asked(other).waiting == 1_000 + 4 * 900 + 1
            gate.opened.set()
            applied_in(other.wait(request.id).answer)
    turn = next(place for place, commit in enumerate(commits) if "quiet" in jobs_in(commit))
    assert turn <= 1, f"the single change waited for {turn} commits"


def jobs_in(commit: dict[str, object]) -> set[str]:
    return {part.job for part in cast("list[JobCommit]", commit["parts"])}


def test_idle_jobs_leave_memory_and_come_back_as_they_were(tmp_path: Path) -> None:
    settings = with_settings(BESIDE, idle_after_s=0.05)
    names = [f"job-{number:03}" for number in range(200)]
    with WriterThread(tmp_path, settings) as writer, Wire(writer.endpoint) as wire:
        producer, report = Producer(), join(wire, "held-by-a-worker")
        requests = producer.changes([CreateJob(name, total=7) for name in names])
        with evicted(set(names)) as gone:
            wire.send(*requests)
            told = [applied_in(wire.wait(request.id).answer) for request in requests]
            assert gone.wait(PATIENCE_S)
        assert asked(wire).resident == 1  # the one with a worker stays
        assert [wire.document(name).progress.total for name in names] == [7] * len(names)
        assert [applied_in(wire.ask(request)) for request in requests] == told
        assert {wire.document(name).revision for name in names} == {1}
        applied_in(wire.ask(producer.change(report)))


@contextmanager
def evicted(jobs: set[str]) -> Generator[threading.Event]:
    """An event that is set once all these actors have left memory."""
    gone, left = threading.Event(), set(jobs)

    def note(_name: str, fields: dict[str, object]) -> None:
        left.discard(str(fields["job"]))
        if not left:
            gone.set()

    with listening(note, "actor.evicted"):
        yield gone


def test_reading_all_jobs_keeps_memory_within_its_bound(tmp_path: Path) -> None:
    settings = with_settings(BESIDE, max_resident=50)
    with WriterThread(tmp_path, settings) as writer, Wire(writer.endpoint) as wire:
        producer = Producer()
        for start in range(0, 1_000, 250):
            wire.send(*producer.changes([CreateJob(f"job-{number:04}") for number in range(start, start + 250)]))
        for number in range(1, 1_001):
            applied_in(wire.wait(number).answer)
    with WriterThread(tmp_path, settings) as writer, Wire(writer.endpoint) as wire:
        for number in range(1_000):
            assert wire.document(f"job-{number:04}").revision == 1
            assert number % 50 or asked(wire).resident <= 100
        wire.ask(read(1, ListJobs(limit=1_000)))
        assert asked(wire).resident <= 100


def test_a_writer_that_is_told_to_stop_commits_and_answers_all_that_it_accepted(tmp_path: Path) -> None:
    with WriterThread(tmp_path) as writer, Wire(writer.endpoint) as wire:
        producer, reports = Producer(), [join(wire, "one"), join(wire, "two")]
        with held("commit.started") as gate:
            wire.send(producer.change(reports[0]))
            gate.wait_reached()
            wire.send(*producer.changes(reports * 300))
            assert asked(wire).waiting == 600
            writer.stop()
            late = producer.change(reports[0])
            assert code_in(wire.ask(late)) == "busy"
        told = [applied_in(wire.wait(number).answer) for number in range(1, late.id)]
        assert len(told) == 601
    with WriterThread(tmp_path) as writer, Wire(writer.endpoint) as wire:
        assert [wire.document(name).progress.processed for name in ("one", "two")] == [301, 300]
        applied_in(wire.ask(late))


def test_an_unexpected_error_in_one_actor_costs_only_that_request_and_at_last_that_job(tmp_path: Path) -> None:
    with WriterThread(tmp_path, WriterSettings()) as writer, Wire(writer.endpoint) as wire:
        producer, bad, good = Producer(), join(wire, "bad"), join(wire, "good")
        applied_in(wire.ask(producer.change(bad)))

        def trip(_name: str, fields: dict[str, object]) -> None:
            if fields["job"] == "bad":
                raise ZeroDivisionError("injected: a defect in one actor")

        with listening(trip, "actor.asked"):
            for code in ("actor_failed",) * 3 + ("job_parked",) * 2:
                wire.send(one := producer.change(bad), other := producer.change(good))
                assert code_in(wire.wait(one.id).answer) == code
                applied_in(wire.wait(other.id).answer)
                assert wire.document("bad").progress.processed == 1
        assert code_in(wire.ask(producer.change(bad))) == "job_parked"
        assert wire.document("good").progress.processed == 5
    with WriterThread(tmp_path, WriterSettings()) as writer, Wire(writer.endpoint) as wire:
        applied_in(wire.ask(producer.change(bad)))
        assert wire.document("bad").progress.processed == 2


def test_an_error_between_two_changes_of_one_commit_spares_the_others(tmp_path: Path) -> None:
    with WriterThread(tmp_path) as writer, Wire(writer.endpoint) as wire:
        producer, report = Producer(), join(wire, "job")
        with held("commit.started") as gate:
            wire.send(producer.change(report))
            gate.wait_reached()
            wire.send(*producer.changes([report] * 9))
            wire.document("job")
            with listening(every_third_fails(), "actor.asked"):
                gate.opened.set()
                told = [wire.wait(number).answer for number in range(1, 11)]
        codes = [answer.code if isinstance(answer, Refused) else "applied" for answer in told]
        assert codes == ["applied", *["applied", "applied", "actor_failed"] * 3]
        assert wire.document("job").progress.processed == 7
        for number in range(1, 11):
            applied_in(wire.ask(producer.change(report, number=number)))
        assert wire.document("job").progress.processed == 10


def every_third_fails() -> Listener:
    calls = 0

    def trip(_name: str, _fields: dict[str, object]) -> None:
        nonlocal calls
        calls += 1
        if calls % 3 == 0:
            raise ZeroDivisionError("injected: a defect in one actor")

    return trip


@pytest.mark.slow
def test_a_full_line_when_health_is_judged_does_not_end_the_writer(tmp_path: Path) -> None:
    settings = with_settings(BESIDE, max_waiting=1, late_after_s=0.05)
    with WriterThread(tmp_path, settings) as writer, Wire(writer.endpoint) as wire:
        producer, report = Producer(), join(wire, "job")
        reports = [report, join(wire, "another")]
        with held("commit.started") as gate:
            wire.send(producer.change(reports[0]))
            gate.wait_reached()
            wire.send(producer.change(reports[0]))
            assert wire.hear(2.5 * TICK_S) == []
        assert wire.wait(1).id == 1
        revision = wire.document("another").revision
        late = document_in(wire.ask(read(9, Get("another", newer_than=revision, wait_s=30.0))))
        assert late.health == "late"


def test_a_run_outlives_a_writer_that_is_busy_for_longer_than_a_call(tmp_path: Path) -> None:
    settings = with_settings(BESIDE, max_waiting=1)
    with (
        WriterThread(tmp_path, settings) as writer,
        Wire(writer.endpoint) as wire,
        connect(tmp_path, settings=ClientSettings(timeout_s=0.3)) as client,
    ):
        producer, report = Producer(), join(wire, "job")
        with client.attach("job") as run:
            with held("commit.started") as gate:
                wire.send(producer.change(report))
                gate.wait_reached()
                wire.send(producer.change(report))
                wire.document("job")
                run.progress(succeeded=5)
                with pytest.raises((Busy, WriterUnavailable)):
                    run.flush()
                assert wire.hear(0.5) == []
            run.progress(succeeded=1)
            run.flush()
        assert client.get("job").progress.processed == 8


def test_readers_above_the_bound_of_those_who_wait_are_answered_at_once(tmp_path: Path) -> None:
    settings = with_settings(BESIDE, max_waiters=3)
    with WriterThread(tmp_path, settings) as writer, Wire(writer.endpoint) as wire:
        producer, report = Producer(), join(wire, "job")
        wire.send(*[read(number, Get("job", newer_than=2, wait_s=60.0)) for number in range(11, 16)])
        assert [wire.wait(number).answer for number in (14, 15)] == [NotModified(2)] * 2
        assert wire.hear(0.05) == []
        wire.send(producer.change(report))
        news = [document_in(wire.wait(number).answer) for number in (11, 12, 13)]
        assert [document.progress.processed for document in news] == [1, 1, 1]
        wire.send(read(21, Get("job", newer_than=3, wait_s=60.0)))
        assert wire.hear(0.05)[0].id == 1
        applied_in(wire.ask(producer.change(report)))
        assert document_in(wire.wait(21).answer).progress.processed == 2


def test_who_waits_for_news_of_a_job_learns_of_its_end_and_of_its_removal(tmp_path: Path) -> None:
    with WriterThread(tmp_path) as writer, Wire(writer.endpoint) as wire:
        owner = Producer()
        applied_in(wire.ask(owner.change(CreateJob("job"))))
        wire.send(read(11, Get("job", newer_than=1, wait_s=60.0)))
        applied_in(wire.ask(owner.change(FinishJob("job", "completed"))))
        assert document_in(wire.wait(11).answer).status == "completed"
        assert wire.ask(read(12, Get("job", newer_than=2, wait_s=60.0))) == NotModified(2)
        applied_in(wire.ask(owner.change(CreateJob("other"))))
        wire.send(read(13, Get("other", newer_than=1, wait_s=60.0)))
        applied_in(wire.ask(owner.change(DeleteJob("other"))))
        assert code_in(wire.wait(13).answer) == "job_not_found"
