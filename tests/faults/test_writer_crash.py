"""What a writer has acknowledged outlives it, however it ends; what it has not may be said again."""

import random
import subprocess

import pytest
import zmq

from actorstate.client.sync import connect
from actorstate.core.messages.replies import Applied, Reply
from actorstate.core.messages.requests import Request
from tests.support.increments import PATIENT, acknowledged, begin, crew
from tests.support.wire import Producer, Wire, applied_in, join
from tests.support.writer import WriterProcess, Writers, slow, writers

__all__ = ["writers"]

SEED = 20_251_123
EXIT_STORE = 74
BURST = 400
"""Less than a mailbox holds, so that none is refused."""


@pytest.mark.slow
@pytest.mark.parametrize("event", ["commit.started", "store.written", "commit.synced"])
def test_a_kill_at_any_event_of_any_commit_loses_no_acknowledged_row(event: str, writers: Writers) -> None:
    rows, healthy = 4, writers().start()
    with Wire(healthy.endpoint) as wire:
        report = join(wire, "job")
    healthy.kill()
    for number in range(1, rows + 1):
        requests = Producer().changes([report] * rows)
        doomed = writers(fault=f"kill@{event}:{number}").start()
        assert acknowledged_until_it_ends(doomed, requests) == number - 1
        healthy.start()
        with Wire(healthy.endpoint) as wire:
            known = wire.document("job").progress.processed - (number - 1) * rows
            assert known == (number if event == "commit.synced" else number - 1)
            assert {type(wire.ask(request)) for request in requests} == {Applied}
            assert wire.document("job").progress.processed == number * rows
        healthy.kill()


def acknowledged_until_it_ends(writer: WriterProcess, requests: list[Request]) -> int:
    """Sends one request after the other until the writer ends without answering; how many it answered."""
    with Wire(writer.endpoint) as wire:
        for done, request in enumerate(requests):
            wire.send(request)
            if not is_answered(writer, wire):
                return done
            applied_in(wire.wait(request.id).answer)
    return len(requests)


def is_answered(writer: WriterProcess, wire: Wire) -> bool:
    """Waits for a reply or for the writer's end (of its standard output); whether it was a reply."""
    assert writer.process.stdout is not None
    poller = zmq.Poller()
    poller.register(wire.socket, zmq.POLLIN)
    poller.register(writer.process.stdout, zmq.POLLIN)
    return wire.socket in dict(poller.poll(60_000))


def applied_among(replies: list[Reply]) -> int:
    return sum(isinstance(reply.answer, Applied) for reply in replies)


def test_a_kill_in_the_middle_of_load_loses_no_acknowledged_row(writers: Writers) -> None:
    writer, moments = writers().start(), random.Random(SEED)
    with Wire(writer.endpoint) as wire:
        report = join(wire, "job")
    for number in range(5):
        requests, moment = Producer().changes([report] * BURST), moments.randrange(1, BURST)
        print(f"round {number}: the writer is killed after reply {moment} of {BURST} (seed {SEED})")
        with Wire(writer.endpoint) as wire:
            wire.send(*requests)
            for request in requests[:moment]:
                applied_in(wire.wait(request.id).answer)
            writer.kill()
            told = moment + applied_among(wire.hear(0.05))
        writer.start()
        with Wire(writer.endpoint) as wire:
            assert told <= wire.document("job").progress.processed - number * BURST <= BURST
            wire.send(*requests)
            assert {type(wire.wait(request.id).answer) for request in requests} == {Applied}
            assert wire.document("job").progress.processed == (number + 1) * BURST


@pytest.mark.slow
def test_a_kill_while_the_next_writer_starts_loses_nothing(writers: Writers) -> None:
    writer, moments = writers().start(), random.Random(SEED)
    with Wire(writer.endpoint) as wire:
        producer, report = Producer(), join(wire, "job")
        wire.send(*producer.changes([report] * BURST))
        applied_in(wire.wait(BURST).answer)
    writer.kill()
    for _ in range(10):
        patience_s = moments.uniform(0.0, 0.4)
        writer.launch()
        with pytest.raises(subprocess.TimeoutExpired):
            writer.process.wait(patience_s)
        writer.kill()
    writer.start()
    with Wire(writer.endpoint) as wire:
        assert wire.document("job").progress.processed == BURST


@pytest.mark.parametrize("beside", ["", ":beside"])
@pytest.mark.parametrize(("fault", "exits"), [("store_failed", {EXIT_STORE}), ("defect", {1, EXIT_STORE})])
def test_a_commit_that_fails_unexpectedly_ends_the_writer_without_an_acknowledgement(
    fault: str, exits: set[int], beside: str, writers: Writers
) -> None:
    healthy = writers().start()
    with Wire(healthy.endpoint) as wire:
        report = join(wire, "job")
    assert healthy.terminate() == 0
    request = Producer().change(report)
    broken = writers(fault=f"{fault}@commit.started:1{beside}").start()
    with Wire(broken.endpoint) as wire:
        wire.send(request)
        assert broken.wait_end() in exits
        assert wire.hear(0.05) == []
    healthy.start()
    with Wire(healthy.endpoint) as wire:
        assert wire.document("job").progress.processed == 0
        applied_in(wire.ask(request))


def test_sigterm_answers_all_that_it_commits_and_commits_all_that_it_answers(writers: Writers) -> None:
    writer = writers().start()
    with Wire(writer.endpoint) as wire:
        report = join(wire, "job")
    rows = 0
    for number in range(5):
        requests = Producer().changes([report] * BURST)
        with Wire(writer.endpoint) as wire:
            wire.send(*requests)
            wire.wait(1)
            assert writer.terminate() == 0
            rows += 1 + applied_among(wire.hear(0.05))
        writer.start()
        with Wire(writer.endpoint) as wire:
            assert wire.document("job").progress.processed == rows
            wire.send(*requests)
            assert {type(wire.wait(request.id).answer) for request in requests} == {Applied}
        rows = (number + 1) * BURST


@pytest.mark.parametrize("end", ["terminate", slow("kill")])
def test_clients_go_on_with_the_next_writer_without_loss(end: str, writers: Writers) -> None:
    writer = writers().start()
    total = 4 * 250
    with connect(writer.directory, settings=PATIENT) as client, crew(4, "writer", writer.directory, 250) as them:
        client.create("job", total=total)
        begin(them, "job")
        for rows in (total // 5, total // 2, total * 4 // 5):
            state = client.get("job")
            while state.progress.processed < rows:
                state = client.wait("job", after=state.revision)
            assert getattr(writer, end)() in {0, None}
            writer.start()
        assert acknowledged(them) == total
        assert client.get("job").progress.processed == total
