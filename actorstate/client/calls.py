"""Requests as the client sees them: numbers, deadlines, resends. No sockets here.

A change gets its number once and is frozen with it: every resend carries the same bytes, so the writer
applies it once however often it arrives. The first attempt is made bare; only a failure that may pass
enters tenacity (16 to 26 us a call, a third of a round trip).
"""

import os
import re
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from actorstate.core import codec
from actorstate.core.messages.replies import Refused, Reply
from actorstate.core.messages.requests import JOB_ID_PATTERN, Body, Request
from actorstate.errors import ActorStateError, BadJobId, Busy, DiskFull, OutcomeUnknown, WriterUnavailable, from_wire

Answer = TypeVar("Answer")

LAST_ATTEMPT_S = 0.05
"""The last attempt begins so long before the deadline: one without time for an answer would hide the last error."""
_valid_job_id = re.compile(JOB_ID_PATTERN)

FIRST_WAIT_S, LONGEST_WAIT_S, JITTER_S = 0.05, 0.8, 0.05
"""Waits of 50, 100, 200, 400, 800 ms and up to 50 ms more, so that clients do not come back all at once."""


class NoAnswer(WriterUnavailable):
    """One attempt ended without an answer; the next one may do better."""

    code = "no_answer"


class Numbers:
    """The numbers of one process life: the last one given out, and those whose change is unanswered."""

    def __init__(self) -> None:
        self.producer = os.urandom(16)
        self.lock = threading.Lock()
        self.last = 0
        self.open: set[int] = set()


@dataclass(slots=True, eq=False, repr=False)
class Call:
    """One request from its number to its answer. `deadline` is CLOCK_MONOTONIC in seconds.

    The body is frozen, so every attempt sends the same bytes under the same number.
    """

    id: int
    body: Body
    numbers: Numbers
    deadline: float
    boot: str
    is_change: bool
    frame: bytes = b""
    first_sent: float = 0.0
    unanswered: bool = False

    def renew(self) -> None:
        """The frame of a further attempt: the same body and number, with the time that has gone by."""
        now = time.monotonic()
        ago = now - self.first_sent if self.first_sent else 0.0
        with self.numbers.lock:
            acked = min(self.numbers.open, default=self.numbers.last + 1)
        producer, acked = (self.numbers.producer, acked) if self.is_change else (b"", 0)
        left_s = max(1e-3, self.deadline - now)
        self.frame = codec.encode(Request(self.id, self.body, producer, acked, ago, self.boot, self.deadline, left_s))

    @property
    def still_open(self) -> bool:
        """Whether a later attempt may still bring its answer."""
        with self.numbers.lock:
            return self.id in self.numbers.open

    def give_up(self) -> None:
        """No more resends: once the writer has heard of this, it will never apply the number."""
        with self.numbers.lock:
            self.numbers.open.discard(self.id)

    def ended(self, error: NoAnswer) -> ActorStateError:
        """What the caller is told when the deadline has come."""
        if not self.is_change or not self.first_sent:
            return WriterUnavailable(error.message, hint=error.hint, **error.details)
        return self.unknown()

    def no_answer(self) -> None:
        """An attempt ended without one: if it was sent, nobody knows what became of it."""
        self.unanswered = bool(self.first_sent)

    def outcome(self, last: ActorStateError) -> ActorStateError:
        """What the caller is told after the last attempt failed with `last`."""
        if isinstance(last, NoAnswer):
            return self.ended(last)
        return self.unknown() if last.retryable and self.unanswered else last

    def unknown(self) -> OutcomeUnknown:
        """An attempt was sent and its answer never came."""
        job = getattr(self.body, "job", "")
        return OutcomeUnknown(f"no answer to {type(self.body).__name__} for job {job!r} by its deadline", job=job)


def settled(call: Call, reply: Reply) -> Reply:
    """The reply, its call closed. Raises the error that the writer sent; after a retryable one it stays open."""
    refused = reply.answer
    if isinstance(refused, Refused):
        error = from_wire(refused.code, refused.message, refused.hint, refused.details)
        if not error.retryable:
            call.give_up()
        raise error
    if call.is_change:
        with call.numbers.lock:
            call.numbers.open.discard(call.id)
    return reply


def again(first: ActorStateError, attempt: Callable[[], Answer], deadline: float) -> Answer:
    """After a `first` failure: the next success of `attempt` by `deadline`, or its last error."""
    import tenacity  # noqa: PLC0415 - only a retry needs it, and it is a sixth of the start-up of `actorstate jobs`

    failed = _retried(first)

    def next_attempt() -> Answer:
        if failed:
            raise failed.pop()
        return attempt()

    wait_s, stop = _schedule(deadline)
    retry = tenacity.retry_if_exception(_may_pass)
    return tenacity.Retrying(retry=retry, wait=wait_s, stop=stop, reraise=True)(next_attempt)


async def again_later(first: ActorStateError, attempt: Callable[[], Awaitable[Answer]], deadline: float) -> Answer:
    """The same for asyncio, by the same schedule."""
    import asyncio  # noqa: PLC0415 - see above; a blocking client never needs it

    import tenacity  # noqa: PLC0415 - see above

    failed = _retried(first)

    async def next_attempt() -> Answer:
        if failed:
            raise failed.pop()
        return await attempt()

    wait_s, stop = _schedule(deadline)
    retry = tenacity.retry_if_exception(_may_pass)
    waits = tenacity.AsyncRetrying(sleep=asyncio.sleep, retry=retry, wait=wait_s, stop=stop, reraise=True)
    return await waits(next_attempt)


def _retried(first: ActorStateError) -> list[ActorStateError]:
    """The `first` failure as that of the first attempt. Raises it where no other would help."""
    if not _may_pass(first):
        raise first
    return [first]


def _schedule(deadline: float) -> tuple[Callable[[Any], float], Callable[[Any], bool]]:
    """How long to wait before the next attempt, and when there is none: the last begins shortly before `deadline`."""
    import tenacity  # noqa: PLC0415 - see above

    backoff = tenacity.wait_exponential_jitter(multiplier=FIRST_WAIT_S, max=LONGEST_WAIT_S, jitter=JITTER_S)
    last_start = deadline - LAST_ATTEMPT_S

    def wait_s(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked_s = float(error.details.get("retry_after_s") or 0.0) if isinstance(error, Busy) else 0.0
        return max(0.0, min(max(backoff(state), asked_s), last_start - time.monotonic()))

    return wait_s, lambda _state: time.monotonic() >= last_start


def _may_pass(error: BaseException) -> bool:
    """A refusal to retry is retried up to the deadline: after that the writer takes no copy of it any more."""
    return isinstance(error, NoAnswer | Busy | DiskFull)


def checked_job_id(job: str) -> str:
    """The id as it is; raises BadJobId for anything that is none."""
    if not _valid_job_id.match(job):
        raise BadJobId(f"{job!r:.140} is no job id")
    return job
