"""What people want of a job, as its worker honours it at a row boundary: pause, cancel, an answer, a limit."""

import time
from collections.abc import Callable

from actorstate.client.pace import Pace
from actorstate.client.pending import Pending
from actorstate.client.sender import Membership, Sender, Transport
from actorstate.core import codec
from actorstate.core.messages.document import NOTHING, Document, Intent, Order
from actorstate.core.messages.replies import Found
from actorstate.core.messages.requests import Get
from actorstate.errors import JobCancelled, JobFinished, JobNotFound, NotApproved

THROTTLE_SLICE_S = 5.0
"""A longer wait for a throttle is told in between, so that nobody takes the worker for stalled."""


class Wishes:
    """One run's part in them; its sender hears of them with every reply."""

    def __init__(self, transport: Transport, member: Membership, sender: Sender) -> None:
        self._transport, self._member, self._sender = transport, member, sender
        self._heeded = 0
        self.pace = Pace()

    def heed(self, save: Callable[[], None] | None = None) -> None:
        """See `Run.heed`."""
        saved = False
        while (order := self._sender.order) != NOTHING:
            if self._is_news(order):
                saved = self._obey(order, save) or saved
            elif order.intent == "pause" or order.waiting:
                if save is not None and not saved:
                    save()
                saved = True
                self._sender.wait_order_change(order)
            elif not self._wait_turn(order):
                return

    def heed_row(self, save: Callable[[], None]) -> None:
        """The same before a row of a track, which is charged to the throttle."""
        self.heed(save)
        if self._sender.order.rows_per_s is not None:
            self.pace.charge(1)

    def answer_to(self, question: str, timeout_s: float | None) -> str:
        """Who approved; see `Run.wait_for_approval`."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while (answer := self._answer_to(question)) is None:
            self._wait_answer(question, until)
        self.heed()
        return answer

    def _answer_to(self, question: str) -> str | None:
        """Who approved; None while nobody has."""
        place = self._sender.say(lambda pending: setattr(pending, "question", question))
        self._sender.wait_heard(place, self._transport.settings.timeout_s)
        for asked in read_document(self._transport, self._member.job).approvals:
            if asked.question == question and asked.approved_at is not None:
                return asked.approved_by
        return None

    def _wait_answer(self, question: str, until: float | None) -> None:
        """Returns when no question is open any more, this one or that of another worker."""
        while (order := self._sender.order).waiting:
            if self._is_news(order):
                self._obey(order, None)
                continue
            left_s = None if until is None else until - time.monotonic()
            if left_s is not None and left_s <= 0:
                told = f"nobody has answered yet: {question!r}; the job waits on"
                raise self._transport.addressed(NotApproved(told, job=self._member.job))
            self._sender.wait_order_change(order, left_s)

    def _is_news(self, order: Order) -> bool:
        """Whether an intent is to be carried out here; a cancellation is, however often the block swallows it."""
        return order.intent is not None and (order.asked != self._heeded or order.intent == "cancel")

    def _obey(self, order: Order, save: Callable[[], None] | None) -> bool:
        """Carries out an intent that is new to this worker; whether it has saved."""
        intent = order.intent
        if intent is None:
            return False
        saves = save is not None and intent != "resume"
        if saves and save is not None:
            save()
        self._acknowledge(intent)
        self._heeded = order.asked
        if intent == "cancel":
            raise JobCancelled(f"job {self._member.job!r} was cancelled; its progress is saved", job=self._member.job)
        return saves

    def _wait_turn(self, order: Order) -> bool:
        """Waits for this worker's share of the throttle, in slices that are told; whether it had to."""
        started = time.monotonic()
        wait_s = self.pace.wait_s(started, order.rows_per_s)
        if not wait_s:
            return False
        self._sender.wait_order_change(order, min(wait_s, THROTTLE_SLICE_S))
        self.tell_throttled(time.monotonic() - started)
        return True

    def _acknowledge(self, intent: Intent) -> None:
        place = self._sender.say(lambda pending: setattr(pending, "acknowledged", intent))
        try:
            self._sender.wait_heard(place, self._transport.settings.timeout_s, "acknowledgement")
        except JobFinished:
            if intent != "cancel":
                raise

    def tell_throttled(self, seconds: float, throttles: int = 1) -> None:
        """So long a rate limit was waited for; a long wait is told in parts, of which only one is a throttle."""

        def put(pending: Pending) -> None:
            pending.throttled_s += seconds
            pending.throttles += throttles

        self._sender.say(put)


def read_document(transport: Transport, job: str) -> Document:
    """The job's committed document. Raises JobNotFound."""
    answer = transport.call(Get(job)).answer
    if not isinstance(answer, Found):
        raise JobNotFound(f"there is no job {job!r}", job=job)
    return codec.decode_document(answer.document)
