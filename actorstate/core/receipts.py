"""Exactly once: what each producer was told, kept per job in the same commit as the change (`actor.recorded`).

A producer is one client process life. Its changes arrive in any order and more than once (a pool of
sockets, resends), so "the last number seen" would lose updates; instead every reply is kept until the
producer says, by `acked`, that it has arrived. A number below that floor is never applied again.
"""

from datetime import datetime, timedelta

from actorstate.core.messages.replies import Applied, Receipt
from actorstate.core.messages.requests import Request
from actorstate.core.rate import Now
from actorstate.errors import BadMessage, Busy, OutcomeUnknown, RequestRefused, from_wire

MAX_IN_FLIGHT = 1_024
"""Unanswered changes of one producer in one job; one more gets `Busy`."""
MAX_UNCHANGED = 1_024
MAX_PRODUCERS = 4_096
PRODUCER_IDLE_S = 3_600.0
"""Producers idle this long, or the idlest above the maximum, are forgotten when a keyframe is written."""


def known_reply(
    receipt: Receipt | None, forgotten_until: datetime | None, request: Request, now: Now
) -> Applied | None:
    """The reply that this request was given before, or None if it is new.

    Raises OutcomeUnknown where nobody can tell any more, Busy above the in-flight limit.
    """
    if not request.producer:
        raise BadMessage("a change must name its producer")
    if receipt is not None and request.id in receipt.replies:
        return receipt.replies[request.id]
    if receipt is not None and request.id < receipt.floor:
        raise OutcomeUnknown(f"request {request.id} was given up by its sender; it was not applied now")
    if request.sent_ago_s and forgotten_until is not None:
        _check_not_forgotten(receipt, forgotten_until, request, now)
    if receipt is not None and len(receipt.replies) >= MAX_IN_FLIGHT and request.acked <= receipt.floor:
        raise Busy(f"{MAX_IN_FLIGHT} changes of this client are unanswered", retry_after_s=0.1)
    return None


class Unchanged:
    """Answers to requests that changed nothing, so that a late copy of one changes nothing either.

    Kept in memory alone: copies come over the connections of this process, which end with it. An answer
    that rests on staged state is `fresh` until that is committed. Retryable refusals are not kept: their
    senders try again, under the same number, until the deadline after which no copy is taken any more.
    """

    def __init__(self) -> None:
        self.answers: dict[tuple[bytes, int], Applied | RequestRefused] = {}
        self._fresh: list[tuple[bytes, int]] = []

    def keep(self, request: Request, answer: Applied | RequestRefused, *, fresh: bool) -> None:
        """Remembers the answer; the oldest above `MAX_UNCHANGED` are forgotten."""
        key = (request.producer, request.id)
        self.answers[key] = answer
        if fresh:
            self._fresh.append(key)
        if len(self.answers) > MAX_UNCHANGED:
            del self.answers[next(iter(self.answers))]

    def settle(self) -> None:
        """What the answers rest on is committed."""
        self._fresh.clear()

    def forget_fresh(self) -> None:
        """What they rest on never became true."""
        for key in self._fresh:
            self.answers.pop(key, None)
        self._fresh.clear()

    def answer(self, request: Request) -> Applied | None:
        """The answer that was given; raises it when it was a refusal."""
        answer = self.answers.get((request.producer, request.id))
        if isinstance(answer, RequestRefused):
            raise from_wire(answer.code, answer.message, answer.hint, answer.details)
        return answer


def remembered(receipts: dict[bytes, Receipt], at: datetime) -> dict[bytes, Receipt]:
    """The receipts worth keeping in a keyframe: those in use, at most `MAX_PRODUCERS`, latest first."""
    since = at - timedelta(seconds=PRODUCER_IDLE_S)
    kept = {producer: receipt for producer, receipt in receipts.items() if receipt.seen_at > since}
    if len(kept) > MAX_PRODUCERS:
        latest = sorted(kept, key=lambda producer: kept[producer].seen_at, reverse=True)
        kept = {producer: kept[producer] for producer in latest[:MAX_PRODUCERS]}
    return kept


def _check_not_forgotten(receipt: Receipt | None, forgotten_until: datetime, request: Request, now: Now) -> None:
    sent_at = now.wall - timedelta(seconds=request.sent_ago_s)
    if sent_at <= forgotten_until and (receipt is None or sent_at < receipt.born_at):
        raise OutcomeUnknown(
            f"request {request.id} is resent after the writer forgot its sender; it was not applied now"
        )
