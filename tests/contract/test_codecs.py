"""The wire is plain msgpack: what msgspec writes `msgpack` reads and writes again, and the other way round."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast, get_args

import msgpack
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actorstate.core import codec
from actorstate.core.messages.payload import pack, unpack
from actorstate.core.messages.replies import (
    Answer,
    Change,
    ChangeBody,
    JobExpired,
    JobRestored,
    JobsChanged,
    Keyframe,
    Reply,
    WorkerJudged,
)
from actorstate.core.messages.requests import Body, ChangeRequest, CreateJob, Get, Heartbeat, Request, RestoreJob
from actorstate.errors import BadMessage, CorruptJob
from tests.support.core import JOB, START, a_job, attach
from tests.support.messages import documents, messages

Decode = Callable[[bytes], Any]
BODIES: tuple[type[Any], ...] = get_args(Body)
ANSWERS: tuple[type[Any], ...] = get_args(Answer)
CHANGES: tuple[type[Any], ...] = get_args(ChangeBody)
times = st.datetimes(timezones=st.just(UTC))
MESSAGES: dict[str, tuple[st.SearchStrategy[Any], Decode]] = {
    **{
        f"request {body.__name__}": (
            st.builds(Request, st.integers(1, 2**63 - 1), messages(body), st.binary(max_size=16)),
            codec.decode_request,
        )
        for body in BODIES
    },
    "any request": (messages(Request), codec.decode_request),
    **{
        f"reply {answer.__name__}": (
            st.lists(st.builds(Reply, st.integers(0, 2**63), st.integers(0, 99), messages(answer)), max_size=3),
            codec.decode_replies,
        )
        for answer in ANSWERS
    },
    "replies": (st.lists(messages(Reply), max_size=3), codec.decode_replies),
    **{
        f"change {body.__name__}": (
            st.builds(Change, st.integers(1, 2**53), st.integers(0, 99), times, messages(body)),
            codec.decode_change,
        )
        for body in CHANGES
    },
    "any change": (messages(Change), codec.decode_change),
    "fact": (messages(JobsChanged), codec.decode_jobs_changed),
    "document": (documents(), codec.decode_document),
    "keyframe": (messages(Keyframe), codec.decode_keyframe),
}
quick = settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


def plain(packed: bytes) -> Any:
    """What a reader without our types sees; only timestamps (ext -1) are more than msgpack's own types."""
    return msgpack.unpackb(packed, timestamp=0, strict_map_key=False, ext_hook=_no_extension)


def packed_by_msgpack(value: object) -> bytes:
    """Its packb is typed as if it might return None."""
    return cast("bytes", msgpack.packb(value, datetime=True))


def canonical(packed: bytes) -> bytes:
    """The shortest form. msgspec gives a struct of over 15 fields a map16 header, however few of them it writes."""
    return packed_by_msgpack(plain(packed))


def _no_extension(code: int, data: bytes) -> None:
    pytest.fail(f"extension type {code} on the wire: {data!r}")


@pytest.mark.parametrize("name", MESSAGES)
@quick
@given(data=st.data())
def test_msgpack_reads_something_else(name: str, data: st.DataObject) -> None:
    strategy, decode = MESSAGES[name]
    message = data.draw(strategy)
    packed = codec.encode(message)
    rewritten = canonical(packed)
    assert plain(rewritten) == plain(packed)
    assert codec.encode(decode(packed)) == packed
    assert canonical(codec.encode(decode(rewritten))) == rewritten


@pytest.mark.parametrize("name", MESSAGES)
@quick
@given(data=st.data())
def test_a_message_written_by_msgpack_is_another_message(name: str, data: st.DataObject) -> None:
    strategy, decode = MESSAGES[name]
    message = data.draw(strategy)
    native = msgpack.unpackb(codec.encode(message), timestamp=3, strict_map_key=False)
    theirs = packed_by_msgpack(native)
    assert theirs == canonical(theirs) == canonical(codec.encode(decode(theirs))) == canonical(codec.encode(message))


@pytest.mark.parametrize(
    ("at", "length"),
    [
        (datetime(1970, 1, 1, tzinfo=UTC), 4),
        (datetime(2106, 2, 7, 6, 28, 15, tzinfo=UTC), 4),
        (datetime(2106, 2, 7, 6, 28, 16, tzinfo=UTC), 8),
        (datetime(2024, 1, 1, microsecond=1, tzinfo=UTC), 8),
        (datetime(2514, 5, 30, 1, 53, 3, 999_999, tzinfo=UTC), 8),
        (datetime(2514, 5, 30, 1, 53, 4, tzinfo=UTC), 12),
        (datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), 12),
        (datetime(1, 1, 1, tzinfo=UTC), 12),
        (datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), 12),
    ],
    ids=str,
)
def test_a_time_is_no_timestamp_or_the_wrong_one(at: datetime, length: int) -> None:
    ours = codec.encode(Change(1, 1, at, attach()))
    theirs = packed_by_msgpack(at)
    assert packed_by_msgpack("at") + theirs in ours
    assert msgspec.msgpack.decode(theirs) == at
    extension = msgpack.Timestamp.from_datetime(at).to_bytes()
    assert len(extension) == length
    assert theirs.endswith(b"\xff" + extension)


numbers = st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats()
payloads = st.recursive(
    st.none() | numbers | st.text() | st.binary() | times,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(max_examples=60)
@given(payloads)
def test_a_saved_value_is_read_differently_by_msgspec(value: object) -> None:
    packed = pack(value)
    assert msgspec.msgpack.encode(msgspec.msgpack.decode(packed)) == packed
    assert pack(unpack(packed)) == packed
    assert canonical(packed) == packed


def test_a_reader_s_view_differs_from_the_document() -> None:
    document = a_job()
    state = codec.decode_state(codec.encode(document), {"w": 0.5})
    assert state.last_beat_s == {"w": 0.5}
    seen = msgspec.structs.asdict(state)
    assert {name: seen[name] for name in document.__struct_fields__} == msgspec.structs.asdict(document)


def framed(**fields: object) -> bytes:
    """A request for a job's state, with `fields` beside or instead of its own."""
    return packed_by_msgpack({"id": 1, "body": {"type": "Get", "job": JOB}} | fields)


def short(value: object) -> str:
    return repr(value)[:60]


def refused(**fields: object) -> None:
    with pytest.raises(BadMessage):
        codec.decode_request(framed(**fields))


def test_the_frame_of_these_tests_is_refused_anyway() -> None:
    assert codec.decode_request(framed()) == Request(1, Get(JOB))


@pytest.mark.parametrize("extra", [{"x": 1}, {"priority": None}, {"ID": 1}])
def test_an_unknown_field_is_passed_over(extra: dict[str, object]) -> None:
    refused(**extra)
    refused(body={"type": "Get", "job": JOB} | extra)


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "Get",
        {},
        {"job": JOB},
        {"type": "get", "job": JOB},
        {"type": "Nothing", "job": JOB},
        {"type": "Get"},
        {"type": "Get", "job": None},
        {"type": "Get", "job": JOB.encode()},
        {"type": "Get", "job": 1},
        {"type": "Get", "job": JOB, "newer_than": -1},
        {"type": "Get", "job": JOB, "newer_than": 1.0},
        {"type": "Get", "job": JOB, "newer_than": True},
        {"type": "Get", "job": JOB, "wait_s": 61.0},
        {"type": "Get", "job": JOB, "wait_s": float("nan")},
        {"type": "Get", "job": JOB, "wait_s": -1.0},
        {"type": "ListJobs", "limit": 0},
        {"type": "ListJobs", "limit": 1001},
        {"type": "ListJobs", "after": "x" * 129},
        {"type": "ListItems", "job": JOB, "limit": 1001},
        {"type": "ListItems", "job": JOB, "outcome": "lost"},
        {"type": "RetryItems", "job": JOB, "keys": ["k"] * 1001},
        {"type": "RetryItems", "job": JOB, "taken": 5},
        {"type": "Heartbeat", "job": JOB, "worker": "", "incarnation": 1},
        {"type": "Heartbeat", "job": JOB, "worker": "x" * 129, "incarnation": 1},
        {"type": "Heartbeat", "job": JOB, "worker": "w", "incarnation": 2**53 + 1},
        {"type": "FinishJob", "job": JOB, "status": "cancelled"},
        {"type": "FinishJob", "job": JOB, "status": "failed", "reason": "x" * 2001},
        {"type": "ControlJob", "job": JOB, "intent": "stop"},
        {"type": "CreateJob", "job": JOB, "labels": {"k": 1}},
        {"type": "CreateJob", "job": JOB, "labels": {str(n): "x" for n in range(65)}},
        {"type": "CreateJob", "job": JOB, "meta": {"k": b"x" * (256 * 1024 + 1)}},
        {"type": "CreateJob", "job": JOB, "meta": {"k": "text"}},
    ],
    ids=short,
)
def test_a_body_out_of_bounds_is_accepted(body: object) -> None:
    refused(body=body)


@pytest.mark.parametrize(
    "fields",
    [
        {"counts": {"succeeded": -1}},
        {"counts": {"succeeded": 2**53 + 1}},
        {"counts": {"succeeded": 1.5}},
        {"counts": {"by_category": {"": 1}}},
        {"counts": {"by_category": {str(n): 1 for n in range(65)}}},
        {"throttled_s": float("nan")},
        {"throttled_s": float("inf")},
        {"throttled_s": -0.5},
        {"errors": [{"key": "k", "message": "m"}] * 51},
        {"items": [{"key": "k", "outcome": "failed"}] * 1001},
        {"items": [{"key": "k", "outcome": "retrying"}]},
        {"items": [{"key": "k" * 257, "outcome": "failed"}]},
        {"items": [{"key": "k", "outcome": "failed", "error": "x" * 2001}]},
        {"items": [{"key": "k", "outcome": "failed", "attempts": 9}]},
        {"errors": [{"key": "k" * 257, "message": "m"}]},
        {"errors": [{"key": "k", "message": "m", "at": 5}]},
        {"steps": [{"name": "s", "status": "done"}] * 257},
        {"steps": [{"name": "s", "status": "ended"}]},
        {"tracks": {str(n): {"counted": 1, "done": 1} for n in range(1001)}},
        {"tracks": {"t": {"counted": 1}}},
        {"tracks": {"t": {"counted": 1, "done": 1, "done_key": b"x" * 1025}}},
        {"checkpoints": {str(n): b"" for n in range(65)}},
        {"acknowledged": "yes"},
        {"total": -1},
        {"phase": "x" * 2001},
    ],
    ids=short,
)
def test_a_report_out_of_bounds_is_accepted(fields: dict[str, object]) -> None:
    refused(body={"type": "Report", "job": JOB, "worker": "w", "incarnation": 1} | fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"id": 0},
        {"id": -1},
        {"id": 2**63},
        {"id": "1"},
        {"producer": b"x" * 17},
        {"producer": "x"},
        {"acked": -1},
        {"sent_ago_s": float("nan")},
        {"sent_ago_s": -1.0},
        {"sent_ago_s": 1e300},
        {"expires_at": float("nan")},
        {"expires_at": -1.0},
        {"ttl_s": float("nan")},
        {"boot": "x" * 129},
    ],
    ids=repr,
)
def test_an_envelope_out_of_bounds_is_accepted(fields: dict[str, object]) -> None:
    refused(**fields)


def test_leftover_bytes_are_passed_over() -> None:
    for frame in (framed() + b"\xc0", framed() * 2, b"", framed()[:-1]):
        with pytest.raises(BadMessage):
            codec.decode_request(frame)


def test_a_writer_s_own_finding_is_accepted_from_outside() -> None:
    refused(body=msgspec.to_builtins(WorkerJudged(JOB, "w", 1, "dead")))


@pytest.mark.parametrize("decode", [codec.decode_replies, codec.decode_document, codec.decode_jobs_changed])
def test_a_client_takes_a_request_for_an_answer(decode: Decode) -> None:
    with pytest.raises(BadMessage):
        decode(framed())


@pytest.mark.parametrize("decode", [codec.decode_change, codec.decode_keyframe])
def test_a_store_takes_a_request_for_its_own(decode: Decode) -> None:
    with pytest.raises(CorruptJob):
        decode(framed())


def test_a_change_that_is_no_request_is_asked_for() -> None:
    assert set(get_args(ChangeRequest)) == set(CHANGES) - {WorkerJudged, JobExpired, JobRestored} | {RestoreJob}
    assert set(BODIES) - set(CHANGES) >= {Get, Heartbeat}
    assert CreateJob in CHANGES
    assert START.tzinfo is UTC
