"""Increments sum exactly, whatever is lost, repeated, delayed or killed on the way."""

import json
import random
from dataclasses import dataclass
from pathlib import Path

import pytest
from msgspec.structs import replace

from actorstate.client.sync import Client, connect
from actorstate.core.messages.replies import Answer, Applied, Refused
from actorstate.core.messages.requests import (
    Attach,
    ChangeRequest,
    ControlJob,
    Counts,
    CreateJob,
    DeleteJob,
    Detach,
    FinishJob,
    Get,
    Heartbeat,
    Report,
    Request,
)
from actorstate.core.receipts import MAX_IN_FLIGHT, MAX_PRODUCERS
from tests.support.increments import PATIENT, acknowledged, begin, crew
from tests.support.inprocess import WriterThread
from tests.support.wire import Producer, Wire, applied_in, code_in, document_in, join, read
from tests.support.writer import WriterProcess, Writers, slow, writers

__all__ = ["writers"]

PROCESSES, EACH = 4, 250
TOTAL = PROCESSES * EACH
SEED = 20_251_122


def wait_processed(client: Client, job: str, at_least: int) -> None:
    """Returns once so many rows are committed; on the way no state may be older than the one before."""
    state = client.get(job)
    while state.progress.processed < at_least:
        newer = client.wait(job, after=state.revision)
        assert newer.revision > state.revision
        assert newer.progress.processed >= state.progress.processed
        state = newer


@pytest.mark.parametrize("rounds", [2, slow(18)])
def test_increments_of_four_processes_sum_exactly_when_the_writer_is_killed(rounds: int, writers: Writers) -> None:
    writer, moments = writers().start(), random.Random(SEED + rounds)
    directory = writer.directory
    with connect(directory, settings=PATIENT) as client, crew(PROCESSES, "writer", directory, EACH) as them:
        for number in range(rounds):
            job, moment = f"job-{number}", moments.randrange(1, TOTAL)
            print(f"{job}: the writer is killed after row {moment} (seed {SEED + rounds})")
            client.create(job, total=TOTAL)
            begin(them, job)
            wait_processed(client, job, moment)
            writer.restart()
            assert acknowledged(them) == TOTAL
            assert client.get(job).progress.processed == TOTAL


def test_the_same_load_on_a_file_that_is_read_changed_and_replaced_loses_updates(tmp_path: Path) -> None:
    kept: list[int] = []
    with crew(PROCESSES, "file", tmp_path, EACH) as them:
        for number in range(10):
            path = tmp_path / f"job-{number}.json"
            path.write_text(json.dumps({"processed": 0}))
            begin(them, path.stem)
            assert acknowledged(them) == TOTAL
            kept.append(json.loads(path.read_bytes())["processed"])
            if kept[-1] < TOTAL:
                break
    print(f"kept of {TOTAL}: {kept}")
    assert min(kept) < TOTAL, "the load is too gentle to show anything"


@pytest.mark.parametrize("size", [300, slow(1_000)])
def test_a_request_sent_five_times_in_any_order_over_three_restarts_counts_once(size: int, writers: Writers) -> None:
    writer = writers().start()
    order = random.Random(SEED)
    with Wire(writer.endpoint) as wire:
        report = join(wire, "job")
    producer = Producer()
    requests = producer.changes([report] * size)
    copies = [request for request in requests for _ in range(order.randrange(1, 6))]
    order.shuffle(copies)
    answers: dict[int, set[Applied]] = {request.id: set() for request in requests}
    share = len(copies) // 4 + 1
    for start in range(0, len(copies), share):
        for number, answer in answers_over_sockets(writer, copies[start : start + share], order):
            answers[number].add(applied_in(answer))
        writer.restart()
    with Wire(writer.endpoint) as wire:
        assert wire.document("job").progress.processed == size
    assert all(len(told) == 1 for told in answers.values())
    assert len({applied for told in answers.values() for applied in told}) == size


def answers_over_sockets(
    writer: WriterProcess, requests: list[Request], order: random.Random
) -> list[tuple[int, Answer]]:
    """Sends each over one of four sockets, fewer at a time than a mailbox holds, and returns what each was answered."""
    wires = [Wire(writer.endpoint) for _ in range(4)]
    told: list[tuple[int, Answer]] = []
    for start in range(0, len(requests), 400):
        sent = [(order.choice(wires), request) for request in requests[start : start + 400]]
        for wire, request in sent:
            wire.send(request)
        told += [(request.id, wire.wait(request.id).answer) for wire, request in sent]
    for wire in wires:
        wire.close()
    return told


@pytest.mark.parametrize("event", ["commit.started", "store.written", "commit.synced"])
@pytest.mark.parametrize("beside", ["", slow(":beside")])
def test_a_resend_after_a_kill_between_commit_and_reply_counts_once(event: str, beside: str, writers: Writers) -> None:
    healthy = writers().start()
    with Wire(healthy.endpoint) as wire:
        report = join(wire, "job")
    healthy.kill()
    producer = Producer()
    doomed = writers(fault=f"kill@{event}:1{beside}").start()
    with Wire(doomed.endpoint) as wire:
        wire.send(producer.change(report))
        assert doomed.wait_end() == -9
        assert wire.hear(0.05) == []
    healthy.start()
    with Wire(healthy.endpoint) as wire:
        before = wire.document("job")
        assert before.progress.processed == (1 if event == "commit.synced" else 0)
        applied = applied_in(wire.ask(producer.change(report, number=1, sent_ago_s=1.0)))
        assert wire.document("job").progress.processed == 1
        assert wire.document("job").revision == applied.revision
        assert applied_in(wire.ask(producer.change(report, number=1, sent_ago_s=2.0))) == applied


def test_a_request_below_the_floor_is_never_applied(writers: Writers) -> None:
    writer = writers().start()
    producer = Producer()
    with Wire(writer.endpoint) as wire:
        report = join(wire, "job")
        late = producer.change(report)
        producer.floor = 2
        applied_in(wire.ask(producer.change(report)))
        assert code_in(wire.ask(late)) == "outcome_unknown"
    writer.restart()
    with Wire(writer.endpoint) as wire:
        assert code_in(wire.ask(late)) == "outcome_unknown"
        assert wire.document("job").progress.processed == 1


def test_a_client_with_too_many_unanswered_changes_waits_and_loses_none(tmp_path: Path) -> None:
    producer = Producer()
    with WriterThread(tmp_path) as writer, Wire(writer.endpoint) as wire:
        report = join(wire, "job")
        for request in producer.changes([report] * MAX_IN_FLIGHT):
            applied_in(wire.ask(request))
        one_more = producer.change(report)
        assert code_in(wire.ask(one_more)) == "busy"
        assert wire.document("job").progress.processed == MAX_IN_FLIGHT
        applied_in(wire.ask(replace(one_more, acked=2)))
        assert code_in(wire.ask(producer.change(report, number=1))) == "outcome_unknown"
        applied_in(wire.ask(producer.change(report, number=2)))
        assert wire.document("job").progress.processed == MAX_IN_FLIGHT + 1


def test_a_resend_of_a_forgotten_sender_is_refused_and_not_applied(tmp_path: Path) -> None:
    forgotten = Producer()
    with WriterThread(tmp_path / "jobs") as writer, Wire(writer.endpoint) as wire:
        report = join(wire, "job", producer=Producer())
        applied_in(wire.ask(forgotten.change(report)))
        crowd = [Producer().change(report, number=n) for n in range(10, MAX_PRODUCERS + 4_000)]
        for start in range(0, len(crowd), 256):
            chunk = crowd[start : start + 256]
            wire.send(*chunk)
            for request in chunk:
                applied_in(wire.wait(request.id).answer)
        counted = wire.document("job").progress.processed
        assert counted == len(crowd) + 1
        assert code_in(wire.ask(forgotten.change(report, number=1, sent_ago_s=3_000.0))) == "outcome_unknown"
    with WriterThread(tmp_path / "jobs") as writer, Wire(writer.endpoint) as wire:
        assert code_in(wire.ask(forgotten.change(report, number=1, sent_ago_s=3_000.0))) == "outcome_unknown"
        assert wire.document("job").progress.processed == counted
        stranger = Producer()
        assert code_in(wire.ask(stranger.change(report, sent_ago_s=3_000.0))) == "outcome_unknown"
        applied_in(wire.ask(stranger.change(report)))
        applied_in(wire.ask(Producer().change(report, sent_ago_s=1e-6)))
        assert wire.document("job").progress.processed == counted + 2


def test_a_new_client_whose_first_message_died_with_the_writer_is_served(writers: Writers) -> None:
    writer = writers().start()
    with Wire(writer.endpoint) as wire:
        report = join(wire, "job")
    producer = Producer()
    writer.stop()
    with Wire(writer.endpoint) as wire:
        wire.send(producer.change(report))
        writer.kill()
    writer.start()
    with Wire(writer.endpoint) as wire:
        applied_in(wire.ask(producer.change(report, number=1, sent_ago_s=30.0)))
        assert wire.document("job").progress.processed == 1


def test_a_report_or_beat_that_races_the_end_of_a_job_never_revives_it(writers: Writers) -> None:
    writer = writers().start()
    order = random.Random(SEED)
    with Wire(writer.endpoint) as worker, Wire(writer.endpoint) as owner:
        for start in range(0, 1_000, 100):
            names = [f"job-{number}" for number in range(start, start + 100)]
            race(worker, owner, names, order)


def race(worker: Wire, owner: Wire, names: list[str], order: random.Random) -> None:
    """Ends each job while its worker reports and beats; whatever comes first, each stays completed."""
    reports = attach_all(worker, names)
    producer = Producer()
    ends = {name: producer.change(FinishJob(name, "completed")) for name in names}
    messages = [(owner, end) for end in ends.values()]
    for report in reports:
        messages += [(worker, producer.change(report)) for _ in range(2)]
        messages += [(worker, read(10**6 + n, beat_of(report))) for n in range(producer.last, producer.last + 2)]
    order.shuffle(messages)
    for wire, request in messages:
        wire.send(request)
    told = {request.id: wire.wait(request.id).answer for wire, request in messages}
    for name, report in zip(names, reports, strict=True):
        end = f"completed at {applied_in(told[ends[name].id]).revision} with []"
        assert looks(worker, name) == end
        assert code_in(worker.ask(producer.change(report))) == "job_finished"
        assert code_in(worker.ask(read(10**6, beat_of(report)))) == "job_finished"
        assert looks(worker, name) == end


def looks(wire: Wire, job: str) -> str:
    """The job's status, revision and workers in a word; or why it is not there."""
    answer = wire.ask(read(10**7, Get(job)))
    if isinstance(answer, Refused):
        return answer.code
    document = document_in(answer)
    return f"{document.status} at {document.revision} with {sorted(document.workers)}"


def beat_of(report: Report) -> Heartbeat:
    return Heartbeat(report.job, report.worker, report.incarnation)


def attach_all(wire: Wire, names: list[str]) -> list[Report]:
    """Creates the jobs with a worker each; their reports."""
    producer = Producer()
    for name in names:
        wire.send(*producer.changes([CreateJob(name), Attach(name, "worker", "host", 1)]))
    told = [applied_in(wire.wait(number).answer) for number in range(1, producer.last + 1)]
    row = Counts(succeeded=1)
    return [Report(name, "worker", one.incarnation, counts=row) for name, one in zip(names, told[1::2], strict=True)]


@dataclass(frozen=True, slots=True)
class Overtaken:
    """A request that changed nothing when it was answered, and what others did before its copy arrived."""

    before: tuple[ChangeRequest, ...]
    request: ChangeRequest
    after: tuple[ChangeRequest, ...]


OVERTAKEN = {
    "a refused attach": Overtaken(
        before=(Attach("job", "holder", "host", 1, exclusive=True),),
        request=Attach("job", "other", "host", 2, exclusive=True),
        after=(Detach("job", "holder", 1),),
    ),
    "a pause of a paused job": Overtaken(
        before=(ControlJob("job", "pause"),),
        request=ControlJob("job", "pause"),
        after=(ControlJob("job", "resume"),),
    ),
    "a creation of what was there": Overtaken(before=(), request=CreateJob("job"), after=(DeleteJob("job"),)),
}


@pytest.mark.parametrize("case", OVERTAKEN.values(), ids=OVERTAKEN.keys())
def test_a_late_copy_of_a_request_that_changed_nothing_changes_nothing_either(
    case: Overtaken, writers: Writers
) -> None:
    writer = writers().start()
    owner, asker = Producer(), Producer()
    with Wire(writer.endpoint) as wire:
        for body in (CreateJob("job"), *case.before):
            applied_in(wire.ask(owner.change(body)))
        wire.ask(asker.change(case.request))
        for body in case.after:
            applied_in(wire.ask(owner.change(body)))
        before = looks(wire, "job")
        wire.ask(asker.change(case.request, number=1, sent_ago_s=1.0))
        assert looks(wire, "job") == before
