"""A storm of refreshes is one question at a time, and nobody is given an answer older than his own question."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from actorstate.client.operations import Send
from actorstate.core.messages.replies import NotModified, Reply
from actorstate.core.messages.requests import ControlJob, Get
from actorstate.errors import JobNotFound, WriterUnavailable
from actorstate.web.flights import Flights
from tests.support.web import ALWAYS

PATIENCE_S = 20.0


class Writer:
    """Answers each request with the revision at the moment it was asked; holds the first until `gate` is opened."""

    def __init__(self):
        self.revision, self.asked = 1, 0
        self.reached, self.gate = threading.Event(), threading.Event()

    def __call__(self, _body, _timeout_s):
        self.asked += 1
        revision, first = self.revision, self.asked == 1
        self.reached.set()
        if first:
            assert self.gate.wait(PATIENCE_S)
        return Reply(1, 1, NotModified(revision))


def revision(flights, body):
    return flights.reply(Send(body)).answer.revision


def wait_until_queued(flights, number):
    """Until so many threads wait at the next flight: its leader and those who joined are told by their locks."""
    body = Get("import-42")
    while body not in flights._next:
        threading.Event().wait(0.001)
    waiters = flights._next[body].landed._cond._waiters
    while len(waiters) < number - 1:
        threading.Event().wait(0.001)


def test_who_comes_during_a_question_is_not_given_its_older_answer():
    writer = Writer()
    flights = Flights(writer, ALWAYS)
    with ThreadPoolExecutor(20) as pool:
        first = pool.submit(revision, flights, Get("import-42"))
        assert writer.reached.wait(PATIENCE_S)
        writer.revision = 2  # somebody else has seen it by now
        rest = [pool.submit(revision, flights, Get("import-42")) for _ in range(15)]
        wait_until_queued(flights, 15)
        writer.gate.set()
        assert first.result(PATIENCE_S) == 1
        assert {each.result(PATIENCE_S) for each in rest} == {2}
    assert writer.asked == 2, "each refresh reached the writer"
    assert not flights._next
    assert not flights._under_way


def test_held_reads_of_one_revision_are_one():
    writer = Writer()
    flights = Flights(writer, ALWAYS)
    held = Get("import-42", newer_than=1, wait_s=20.0)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(revision, flights, held)
        assert writer.reached.wait(PATIENCE_S)
        rest = [pool.submit(revision, flights, held) for _ in range(5)]
        while len(flights._under_way[held].landed._cond._waiters) < 5:
            threading.Event().wait(0.001)
        writer.gate.set()
        assert [each.result(PATIENCE_S) for each in (first, *rest)] == [1] * 6
    assert writer.asked == 1


def test_different_questions_do_not_wait_for_each_other():
    writer = Writer()
    flights = Flights(writer, ALWAYS)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(revision, flights, Get("import-42"))
        assert writer.reached.wait(PATIENCE_S)
        assert revision(flights, Get("import-43")) == 1
        assert not first.done()
        writer.gate.set()
        first.result(PATIENCE_S)


def test_changes_are_never_merged():
    writer = Writer()
    writer.gate.set()
    flights = Flights(writer, ALWAYS)
    for _ in range(3):
        revision(flights, ControlJob("import-42", "pause"))
    assert writer.asked == 3


def test_a_refusal_is_told_to_all_who_asked_and_to_nobody_later():
    answers = [JobNotFound("no"), Reply(1, 1, NotModified(1))]

    def call(_body, _timeout_s):
        answer = answers.pop(0)
        if isinstance(answer, JobNotFound):
            raise answer
        return answer

    flights = Flights(call, ALWAYS)
    with pytest.raises(JobNotFound):
        revision(flights, Get("import-42"))
    assert revision(flights, Get("import-42")) == 1


def test_a_thread_that_is_killed_in_its_question_leaves_nobody_waiting():
    writer = Writer()

    def call(body, timeout_s):
        writer(body, timeout_s)
        if writer.asked == 1:
            raise SystemExit
        return Reply(1, 1, NotModified(7))

    flights = Flights(call, ALWAYS)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(revision, flights, Get("import-42"))
        assert writer.reached.wait(PATIENCE_S)
        second = pool.submit(revision, flights, Get("import-42"))
        wait_until_queued(flights, 1)
        writer.gate.set()
        with pytest.raises(SystemExit):
            first.result(PATIENCE_S)
        assert second.result(PATIENCE_S) == 7


def test_during_an_outage_one_asks_for_all():
    asked = []

    def call(body, _timeout_s):
        asked.append(body)
        raise WriterUnavailable("away")

    flights = Flights(call, ALWAYS)
    for _ in range(50):
        with pytest.raises(WriterUnavailable):
            revision(flights, Get("import-42"))
    assert len(asked) <= 2
