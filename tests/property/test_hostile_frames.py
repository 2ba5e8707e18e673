"""What strangers send: a million damaged frames, and ten thousand nasty job ids. Each costs one typed refusal."""

import contextlib
import random
import resource
import string
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.structs import fields, replace

from actorstate.client.sync import connect
from actorstate.core import codec
from actorstate.core.messages.payload import pack
from actorstate.core.messages.replies import (
    Answer,
    Applied,
    Beaten,
    Found,
    JobsChanged,
    Listed,
    NotModified,
    Refused,
    Reply,
    WriterState,
)
from actorstate.core.messages.requests import (
    Ask,
    Body,
    ControlJob,
    Counts,
    CreateJob,
    DeleteJob,
    Detach,
    ErrorReport,
    FinishJob,
    Get,
    Heartbeat,
    ListJobs,
    Report,
    Request,
    StepReport,
    TrackPoint,
)
from actorstate.errors import ActorStateError, BadJobId, BadMessage, CorruptJob
from actorstate.store.sqlite import SqliteStore
from tests.support.core import EPOCH, JOB, P1, START, Rehearsal, attach, begun, moment
from tests.support.messages import messages
from tests.support.mutations import damaged
from tests.support.stores import commit_of, every_job, opened

Decode = Callable[[bytes], Any]
EXAMPLES: dict[object, Any] = {int: 1, float: 0.5, str: "x", bool: False}
SEED = 20_240_101
FULL_REPORT = Report(
    JOB,
    "w",
    1,
    counts=Counts(5, 1, 2, 3, 1_000_000, {"validation": 1}),
    total=2**40,
    tracks={"t": TrackPoint(7, 5, b"k7", b"k5")},
    checkpoints={"default": pack({"row": 5, "at": START})},
    phase="copying",
    steps=(StepReport("copy", "running", pack([1, 2.5, None])),),
    errors=(ErrorReport("row-9", "no such currency", "validation"),),
    error_count=1,
    meta={"source": pack("crm")},
    throttled_s=0.25,
    throttles=1,
)
BODIES: list[Body] = [
    Get(JOB, 3, 2.5),
    ListJobs("running", "job", "healthy", "a", 10),
    Ask(),
    Heartbeat(JOB, "w", 1),
    CreateJob(JOB, "job", 80_000, "rows", {"team": "x"}, {"m": pack(1)}),
    attach("v", exclusive=True),
    Detach(JOB, "w", 1),
    FULL_REPORT,
    Report(JOB, "w", 1, counts=Counts(succeeded=1)),
    FinishJob(JOB, "failed", "no more disk", "w", 1),
    ControlJob(JOB, "pause", "ops"),
    DeleteJob(JOB),
]
REQUESTS = [
    codec.encode(Request(number, body, P1, acked=number, sent_ago_s=0.5, boot="b", expires_at=99.5, ttl_s=2.5))
    for number, body in enumerate(BODIES, 100)
]


def a_full_job() -> Rehearsal:
    """A job with something in every field, a keyframe and changes since."""
    rehearsal = begun("w")
    rehearsal.say(FULL_REPORT, ControlJob(JOB, "pause"))
    while rehearsal.shelf.keyframe is None:
        rehearsal.say(FULL_REPORT)
    rehearsal.say(FULL_REPORT, FULL_REPORT)
    return rehearsal


def answers(document: bytes) -> list[Answer]:
    raw = Raw(document)
    state = WriterState(**{each.name: EXAMPLES.get(each.type, {"busy": 1}) for each in fields(WriterState)})
    refusal = Refused("busy", "no", "later", {"retry_after_s": 0.5, "job": JOB})
    return [Applied(5, 1), Beaten(), Found(raw, {"w": 0.5}), NotModified(5), Listed([raw], "a"), state, refusal]


def _streams() -> dict[str, tuple[Decode, list[bytes], type[ActorStateError]]]:
    job = a_full_job()
    document = job.actor.encoded()
    assert document is not None
    assert job.shelf.keyframe is not None
    replies = [codec.encode([Reply(7, EPOCH, answer, "pause")]) for answer in answers(document)]
    many = codec.encode([Reply(number, EPOCH, Beaten()) for number in range(9)])
    return {
        "requests": (codec.decode_request, REQUESTS, BadMessage),
        "replies": (codec.decode_replies, [*replies, many], BadMessage),
        "facts": (codec.decode_jobs_changed, [codec.encode(JobsChanged(EPOCH, 5, {JOB: 9}))], BadMessage),
        "documents": (codec.decode_document, [document], BadMessage),
        "changes": (codec.decode_change, list(begun("w", "v").shelf.changes) + job.shelf.changes, CorruptJob),
        "keyframes": (codec.decode_keyframe, [job.shelf.keyframe], CorruptJob),
    }


STREAMS = _streams()


@pytest.fixture(autouse=True)
def _two_gigabytes() -> Iterator[None]:
    """A frame that lies about a length must not make us allocate it: with this limit it would be a MemoryError."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**31, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def decoded(stream: str, count: int) -> Iterator[Any]:
    """The damaged frames that are valid all the same; anything but the typed refusal passes through and fails."""
    decode, frames, refusal = STREAMS[stream]
    for frame in damaged(frames, count, SEED):
        try:
            message = decode(frame)
        except refusal:
            continue
        yield message


def offer_all(count: int) -> Counter[str]:
    """Damaged requests, each to the same job: told by kind what became of them."""
    rehearsal = a_full_job()
    actor, now = rehearsal.actor, moment(rehearsal.seconds + 1)
    before, revision = actor.encoded(), actor.revision
    outcomes: Counter[str] = Counter()
    for request in decoded("requests", count):
        try:
            actor.propose(request, now, EPOCH)
            outcomes["accepted"] += 1
        except ActorStateError as error:
            outcomes[error.code] += 1
            assert actor.staged is None
        actor.abort()
    assert (actor.encoded(), actor.revision) == (before, revision)
    return outcomes


def check_outcomes(outcomes: Counter[str], count: int) -> None:
    """The loop reached what it is about: valid requests, of which some are accepted and some refused."""
    assert count / 40 < outcomes.total() < count
    assert outcomes["accepted"] > count / 100
    assert outcomes["fenced"] > 0
    assert outcomes["bad_message"] > 0, "reads and requests without a producer"


def test_a_damaged_frame_reaches_the_job() -> None:
    check_outcomes(offer_all(60_000), 60_000)


@pytest.mark.slow
def test_one_of_a_million_damaged_frames_reaches_the_job() -> None:
    check_outcomes(offer_all(600_000), 600_000)
    for stream in STREAMS:
        survivors = sum(1 for _ in decoded(stream, 80_000))
        assert 0 < survivors < 80_000


@pytest.mark.parametrize("stream", STREAMS)
def test_a_damaged_frame_raises_something_else(stream: str) -> None:
    survivors = sum(1 for _ in decoded(stream, 8_000))
    assert 0 < survivors < 8_000


def commit_all(count: int) -> None:
    """What is accepted is committed, and must be readable: now, and after a restart."""
    rehearsal = a_full_job()
    for number, request in enumerate(decoded("requests", count)):
        if number % 200 == 0:
            rehearsal = a_full_job()
        rehearsal.seconds += 1
        try:
            rehearsal.send(request)
        except ActorStateError:
            continue
        packed = rehearsal.actor.encoded()
        assert rehearsal.shelf.restored().encoded() == packed
        assert packed is None or codec.encode(codec.decode_document(packed)) == packed


def test_a_damaged_frame_that_is_valid_leaves_a_job_that_cannot_be_read() -> None:
    commit_all(20_000)


@pytest.mark.slow
def test_a_damaged_frame_that_is_valid_leaves_a_job_that_cannot_be_read_in_a_long_search() -> None:
    commit_all(400_000)


@given(st.lists(messages(Request), max_size=8))
def test_a_valid_request_with_extreme_values_ends_in_something_else(requests: list[Request]) -> None:
    rehearsal = begun("w")
    for request in requests:
        body = request.body
        attached = isinstance(body, Report | Detach | FinishJob)
        with contextlib.suppress(ActorStateError):
            rehearsal.send(replace(request, body=replace(body, worker="w", incarnation=1)) if attached else request)
        packed = rehearsal.actor.encoded()
        assert rehearsal.shelf.restored().encoded() == packed


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("opening", [b"\x91", b"\x81\xa1k", b"\x81\xa4body", b"\x82\xa2id\x01\xa4body", b"\xd7\xff"])
def test_a_frame_as_deep_as_it_is_long_ends_the_process(stream: str, opening: bytes) -> None:
    decode, _, refusal = STREAMS[stream]
    for depth in (10, 1_000, 2_000_000 // len(opening)):
        with pytest.raises(refusal):
            decode(opening * depth)


@pytest.mark.parametrize("stream", STREAMS)
def test_a_valid_frame_inside_another_type_is_taken(stream: str) -> None:
    decode, own, refusal = STREAMS[stream]
    for name, (_, frames, _) in STREAMS.items():
        if name in {stream, "documents", "keyframes"}:
            continue
        for frame in frames:
            with pytest.raises(refusal):
                decode(frame)
    assert all(decode(frame) is not None for frame in own)


# Job ids

LETTERS_AND_DIGITS = set(string.ascii_letters + string.digits)
ALLOWED = LETTERS_AND_DIGITS | set("._:-")
PATHS = [
    "",
    ".",
    "..",
    "../x",
    "..\\x",
    "/etc/passwd",
    "a/b",
    "a/../../b",
    "~",
    "~root",
    "C:\\x",
    "\\\\host\\share",
    "file:///x",
]
SHELL = [
    "-rf",
    "--help",
    "%2e%2e%2f",
    "a%00",
    "$(id)",
    "`id`",
    "a;b",
    "a|b",
    "a'b",
    'a"b',
    "a*",
    "a?",
    "[a]",
    "{a}",
    "a=b",
    "a,b",
]
SIGNS = [
    "_a",
    ".hidden",
    ":a",
    "a+b",
    "a@b",
    "a#b",
    "a b",
    " a",
    "a ",
    "a\0",
    "\0",
    "a\n",
    "\na",
    "a\r\n",
    "\ta",
    "a\x7f",
    "a\x1b[2J",
]
ALIKE = [
    "e\u0301",
    "\u0430bc",
    "\uff41",
    "\u2024\u2024\u2215",
    "a\u202e",
    "\ufeffa",
    "a\u200b",
    "\u0131",
    "\u212a",
    "\u017f",
]
ALIKE += ["\U0001f600", "\u0661", "a\u0662", "\uff0e\uff0e\uff0f"]
LENGTHS = ["x" * 128, "x" * 129, "x" * 4_096, "a" * 128 + "\n", "0", "A", "a"]
NAMES = [
    "CON",
    "nul",
    "aux.txt",
    "lpt1",
    "jobs.sqlite",
    "jobs.sqlite-wal",
    "a.actorstate",
    "a..b",
    "a:b",
    "a.",
    "a-",
    "a_",
]
NASTY = PATHS + SHELL + SIGNS + ALIKE + LENGTHS + NAMES


def is_valid(job: str) -> bool:
    """The rule once more, without a regular expression."""
    return 1 <= len(job) <= 128 and job[0] in LETTERS_AND_DIGITS and set(job) <= ALLOWED


def nasty_ids(count: int) -> Iterator[str]:
    """The table, and combinations of its pieces."""
    chosen = random.Random(SEED)
    yield from NASTY
    for number in range(count - len(NASTY)):
        pieces = chosen.choices(NASTY, k=chosen.randrange(1, 4))
        glue = chosen.choice(["", "/", ".", "a", "\0", "\n"])
        job = glue.join(pieces)
        yield job.swapcase() if number % 5 == 0 else job


def asking(job: object) -> Iterator[bytes]:
    """A frame of every request that names a job."""
    known = {"worker": "w", "incarnation": 1, "host": "h", "pid": 1, "status": "failed", "intent": "pause"}
    for body in BODIES:
        if hasattr(body, "job"):
            own = {name: known[name] for name in type(body).__struct_fields__ if name in known}
            body_fields = {"type": type(body).__name__, "job": job} | own
            yield cast("bytes", msgpack.packb({"id": 1, "body": body_fields}))


def test_an_id_that_is_a_path_passes_the_decoder() -> None:
    ids = list(nasty_ids(10_000))
    assert sum(map(is_valid, ids)) > 100
    for number, job in enumerate(ids):
        frames = list(asking(job)) if number < len(NASTY) else [next(asking(job))]
        for frame in frames:
            if is_valid(job):
                assert codec.decode_request(frame).body.job == job  # type: ignore[union-attr]  # each has one
            else:
                with pytest.raises(BadMessage):
                    codec.decode_request(frame)


@pytest.mark.parametrize("job", [None, 1, b"abc", ["a"], {"a": 1}, 1.5, True], ids=repr)
def test_an_id_that_is_no_text_passes_the_decoder(job: object) -> None:
    for frame in asking(job):
        with pytest.raises(BadMessage):
            codec.decode_request(frame)


def test_an_id_that_is_a_path_leaves_the_client(tmp_path: Path) -> None:
    client = connect(tmp_path / "none")
    for job in nasty_ids(10_000):
        if not is_valid(job):
            with pytest.raises(BadJobId):
                client.get(job)
    calls: list[Callable[[str], object]] = [
        *(client.create, client.pause, client.resume, client.cancel),
        *(client.complete, client.delete, client.attach, client.run),
        lambda job: client.fail(job, "x"),
        lambda job: client.get_if_newer(job, 1),
        lambda job: client.wait(job, after=1),
        lambda job: next(iter(client.watch(job))),
    ]
    for call in calls:
        with pytest.raises(BadJobId):
            call("../x")
    client.close()
    assert list(tmp_path.iterdir()) == []


def test_ids_collide_or_leave_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "jobs"
    folder.mkdir()
    ids = sorted({job for job in nasty_ids(10_000) if is_valid(job)} | {"abc", "ABC", "aBc", "a.c", "a:c"})
    with opened(SqliteStore(folder / "jobs.sqlite")) as store:
        for start in range(0, len(ids), 100):
            store.commit(1, [commit_of(job, 1, keyframe=job.encode()) for job in ids[start : start + 100]])
        assert every_job(store) == ids
        for job in ids:
            held = store.load(job)
            assert held is not None
            assert held.keyframe == job.encode()
        assert {path.name for path in folder.iterdir()} == {"jobs.sqlite", "jobs.sqlite-wal", "jobs.sqlite-shm"}
    assert [path.name for path in tmp_path.iterdir()] == ["jobs"]
