"""Which jobs have changed, for those who keep answers: heard on the change feed whenever somebody asks.

There is no thread and no waiting, so gevent, asyncio and threads can all use it. An answer that was asked
for at some moment holds until a later fact names its job; after a gap, in a new epoch and after silence none
holds. Between two questions libzmq keeps the facts, up to its bound: what is beyond shows as a gap.
"""

import contextlib
import threading
import time
from collections.abc import Iterable

from actorstate.client.mirror.feed import SILENCE_S, Subscription
from actorstate.client.sync.pool import Transport
from actorstate.core.messages.replies import JobsChanged
from actorstate.errors import ActorStateError

AGAIN_AFTER_S = 1.0
"""A feed that cannot be opened is tried again no more often than this."""
MAX_NAMED = 10_000
"""Jobs that changed and are remembered by name; above it all answers are asked for anew."""


class News:
    """What one process has heard; to be made where it is used, after a fork. Opens nothing before its first use.

    Moments are numbers that rise with each fact. 0 is no moment: the feed has been silent for longer than
    `silence_s`, or was never heard. Safe over threads; closed with its client, and opened again by the next use.
    """

    def __init__(self, transport: Transport, silence_s: float) -> None:
        self._transport, self._silence_s = transport, silence_s
        self._lock = threading.Lock()
        self._subscription: Subscription | None = None
        self._position: tuple[int, int] | None = None
        self._moment, self._unbroken_from, self._changed_at = 1, 1, 1
        self._changed: dict[str, int] = {}
        self._looked_at, self._alive_at, self._patient_until = 0.0, 0.0, 0.0

    def moment(self) -> int:
        """The present moment, all that has come being heard."""
        if self._silence_s <= 0:
            return 0
        with self._lock:
            now = time.monotonic()
            facts = self._subscription.facts() if self._subscription is not None else []
            for fact in facts:
                self._take(fact)
            if facts:  # they came after the last look; when, nobody knows
                self._alive_at, self._patient_until = self._looked_at, now + SILENCE_S
            elif now >= self._patient_until:
                self._open(now)
            self._looked_at = now
            return self._moment if self._position and now - self._alive_at <= self._silence_s else 0

    def holds(self, moment: int, job: str) -> bool:
        """Whether what was asked of this job at that moment is still so, as far as was heard."""
        return moment >= self._unbroken_from and self._changed.get(job, 0) <= moment

    def all_hold(self, moment: int) -> bool:
        """The same of all jobs."""
        return moment >= max(self._unbroken_from, self._changed_at)

    def changed_here(self, job: str) -> int:
        """This process itself has changed it, and may ask before the feed tells: the moment from which answers hold."""
        with self._lock:
            self._note([job])
            return self._moment

    def close(self) -> None:
        """Ends the subscription."""
        self._transport.companions.discard(self)
        with self._lock:
            if self._subscription is not None:
                self._subscription.close()
            self._subscription, self._position, self._patient_until = None, None, 0.0

    def _open(self, now: float) -> None:
        """Where the directory says that its writer is now; what was missed meanwhile shows as a gap."""
        if self._subscription is not None:
            self._subscription.close()
        self._subscription, self._position, self._patient_until = None, None, now + AGAIN_AFTER_S
        with contextlib.suppress(ActorStateError):
            self._subscription, self._patient_until = Subscription(self._transport), now + SILENCE_S
            self._transport.companions.add(self)

    def _take(self, fact: JobsChanged) -> None:
        before, here = self._position, (fact.epoch, fact.sequence)
        if before is not None and here < before:
            return  # the last words of a writer that has been replaced
        self._position = here
        self._note(fact.jobs)
        expected = before and (before[0], before[1] + (1 if fact.jobs else 0))
        if here != expected or len(self._changed) > MAX_NAMED:
            self._unbroken_from = self._moment
            self._changed.clear()

    def _note(self, jobs: Iterable[str]) -> None:
        self._moment += 1
        for job in jobs:
            self._changed[job] = self._changed_at = self._moment
