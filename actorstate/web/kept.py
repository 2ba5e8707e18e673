"""Answers that still hold: a page that is asked for again costs the writer nothing until its job has changed.

What a process was answered it answers again for as long as the change feed (`client/mirror/news.py`) has
told of no change since the moment of the question. A feed that is silent says nothing: then all is asked for.
"""

import threading
import time
from typing import NamedTuple

from actorstate.client.mirror.news import News
from actorstate.core.messages.replies import Found, ItemsListed, Listed, Reply, size_of
from actorstate.core.messages.requests import (
    Ask,
    Body,
    ChangeRequest,
    Get,
    Heartbeat,
    ListJobs,
    PastRequest,
    ReadMetrics,
    ReadRequest,
)

Read = ReadRequest | PastRequest
OfWriter = Ask | ReadMetrics
"""What the writer tells of itself changes without a word on the feed: it is never kept."""
LIST_EVERY_S = 0.25
"""A list is as old as this at most while jobs change: each of their changes would ask for it anew."""
OTHERS_BYTES = 100_000
"""What a page of history is taken to need."""


class Answered(NamedTuple):
    """A reply, the moment of its question, and when that was (monotonic, seconds)."""

    reply: Reply
    moment: int
    asked_at: float


class Kept:
    """One process's answers, at most `max_bytes` of them: above that all are dropped. Safe over threads."""

    def __init__(self, news: News, max_bytes: int) -> None:
        self._news, self._max_bytes = news, max_bytes
        self._lock = threading.Lock()
        self._answers: dict[Read, Answered] = {}
        self._bytes = 0
        self._changed_here = 0

    def look(self, body: Read) -> Reply | None:
        """The answer to this read, if it still holds."""
        answered, moment = self._answers.get(body), self._news.moment()
        if answered is None or not moment:
            return None
        if isinstance(body, OfWriter):
            return None
        if isinstance(body, ListJobs):
            recent = time.monotonic() - answered.asked_at < LIST_EVERY_S and answered.moment >= self._changed_here
            return answered.reply if recent or self._news.all_hold(answered.moment) else None
        return answered.reply if self._news.holds(answered.moment, body.job) else None

    def begin(self) -> tuple[int, float]:
        """The moment of a question that is about to be asked, for `keep`."""
        return self._news.moment(), time.monotonic()

    def keep(self, body: Body, reply: Reply, begun: tuple[int, float]) -> None:
        """The answer to a question that was begun then. What is told of a state only if it is newer is not kept."""
        moment, asked_at = begun
        partial = isinstance(body, Get) and body.newer_than is not None
        if not moment or partial or isinstance(body, OfWriter) or not isinstance(body, Read):
            return
        with self._lock:
            before = self._answers.pop(body, None)
            self._bytes += _size(reply) - (_size(before.reply) if before else 0)
            if self._bytes > self._max_bytes:
                self._answers.clear()
                self._bytes = _size(reply)
            self._answers[body] = Answered(reply, moment, asked_at)

    def changed(self, body: ChangeRequest | Heartbeat) -> None:
        """This process has changed a job: what it was answered before does not hold, though the feed may be late."""
        self._changed_here = self._news.changed_here(body.job)


def _size(reply: Reply) -> int:
    answer = reply.answer
    return size_of(answer) if isinstance(answer, Found | Listed | ItemsListed) else OTHERS_BYTES
