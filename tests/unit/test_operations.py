"""The client's calls without a socket: what they ask for, what they make of the replies, and where they stop."""

import pytest
from msgspec.structs import replace

from actorstate.client import operations
from actorstate.client.operations import Emit, Send
from actorstate.core import codec
from actorstate.core.messages.replies import Applied, Beaten, NotModified, Reply, found, listed
from actorstate.core.messages.requests import ControlJob, CreateJob, Get, ListJobs
from actorstate.errors import BadJobId, BadMessage, JobNotFound
from tests.support.core import JOB, a_job


def answered(answer, number=1):
    return Reply(number, 7, answer)


def state(revision=3, status="running"):
    return answered(found(codec.encode(replace(a_job(status), revision=revision)), {}))


def test_a_bad_id_is_sent():
    with pytest.raises(BadJobId):
        next(operations.get("not an id"))


def test_an_answer_of_another_type_is_taken_for_the_result():
    operation = operations.pause(JOB, by="me")
    assert next(operation) == Send(ControlJob(JOB, "pause", "me"))
    with pytest.raises(BadMessage, match="Beaten"):
        operation.send(answered(Beaten()))


def test_a_refusal_is_not_raised_where_the_operation_asked():
    operation = operations.get(JOB)
    next(operation)
    with pytest.raises(JobNotFound):
        operation.throw(JobNotFound("there is none"))


def test_create_returns_before_it_has_read_the_job():
    operation = operations.create(JOB, total=3)
    assert next(operation) == Send(CreateJob(JOB, total=3))
    assert operation.send(answered(Applied(1))) == Send(Get(JOB))
    with pytest.raises(StopIteration) as done:
        operation.send(state())
    assert done.value.value.id == JOB


def test_a_wait_for_a_finished_job_asks_for_ever():
    operation = operations.wait(JOB, after=9, timeout_s=600.0)
    assert isinstance(next(operation).body, Get)
    assert operation.send(answered(NotModified(9))) == Send(Get(JOB))
    assert operation.send(state(9, "completed")) == Send(Get(JOB))
    with pytest.raises(StopIteration):
        operation.send(state(9, "completed"))


def test_a_watch_tells_the_same_revision_twice_or_goes_on_after_the_end():
    stream = operations.watch(JOB)
    next(stream)
    assert stream.send(state(3)).item.revision == 3
    assert next(stream).body.newer_than == 3
    assert stream.send(state(4, "completed")).item.revision == 4
    with pytest.raises(StopIteration):
        next(stream)


def test_a_page_is_asked_for_before_its_items_are_wanted():
    stream = operations.jobs(kind="job")
    assert next(stream) == Send(ListJobs(kind="job"))
    packed = codec.encode(a_job())
    first = stream.send(answered(listed([packed, packed], [], "b")))
    assert isinstance(first, Emit)
    assert isinstance(next(stream), Emit)
    assert next(stream) == Send(ListJobs(kind="job", after="b"))
    with pytest.raises(StopIteration):
        stream.send(answered(listed([], [], "")))


def test_a_refusal_within_a_stream_is_raised_beside_it():
    told = []

    def stream():
        try:
            yield Send(Get(JOB))
        except JobNotFound as error:
            told.append(error)
        yield Emit("went on")

    step = operations.next_item(stream())
    next(step)
    with pytest.raises(StopIteration) as done:
        step.throw(JobNotFound("there is none"))
    assert done.value.value == Emit("went on")
    assert len(told) == 1
