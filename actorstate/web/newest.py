"""The newest committed state of each job as ready JSON, made once a revision and kept for while the writer is away."""

from dataclasses import dataclass
from typing import NamedTuple, cast

from actorstate.client.calls import checked_job_id
from actorstate.client.operations import Operation, Send, found
from actorstate.core.messages.document import JobState
from actorstate.core.messages.replies import Answer, NotModified
from actorstate.core.messages.requests import Get
from actorstate.core.plain import as_plain
from actorstate.errors import JobNotFound
from actorstate.web.values import dumped

BESIDE_THE_DOCUMENT = "last_beat_s"
"""Seconds since a worker's last beat grow by themselves; under an ETag only what changes the revision may stand."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A state, its ETag, and its JSON."""

    state: JobState
    tag: str
    body: bytes


def shown(state: JobState) -> Shown:
    """The state as readers get it."""
    plain = cast("dict[str, object]", as_plain(state))
    del plain[BESIDE_THE_DOCUMENT]
    return Shown(state, f"{state.epoch}-{state.revision}", dumped(plain))


def revision_of(tag: str) -> int | None:
    """The revision in an ETag of ours."""
    epoch, dash, revision = tag.partition("-")
    ours = dash and epoch.isdecimal() and revision.isdecimal() and len(revision) <= 15  # noqa: PLR2004 - 2**53 has 16
    return int(revision) if ours else None


class Known(NamedTuple):
    """What was made of an answer of the writer."""

    answer: Answer
    shown: Shown


class Newest:
    """One web process's memory of states; safe over threads: each step is one dictionary operation."""

    def __init__(self, timeout_s: float, max_bytes: int) -> None:
        self._timeout_s, self._max_bytes = timeout_s, max_bytes
        self._known: dict[str, Known] = {}
        self._bytes = 0

    def last_known(self, job: str) -> Shown | None:
        """The newest state that this process has seen, without asking."""
        known = self._known.get(job)
        return known and known.shown

    def of(self, job: str, seen: int = 0) -> Operation[Shown]:
        """The newest state, by one question. Raises BadJobId, JobNotFound, WriterUnavailable.

        The answer may be one that is kept (`kept.py`): a reader who has `seen` a later revision elsewhere gets that.
        """
        newest = self._remembered(job, (yield from self._asked(Get(checked_job_id(job)))))
        if newest.state.revision < seen:
            newest = (yield from self.after(job, newest.state.revision, 0.0)) or newest
        return newest

    def after(self, job: str, revision: int, wait_s: float) -> Operation[Shown | None]:
        """The state once it is newer than `revision`, or None when it was not within `wait_s`."""
        answer = yield from self._asked(Get(checked_job_id(job), newer_than=revision, wait_s=wait_s))
        return None if isinstance(answer, NotModified) else self._remembered(job, answer)

    def _asked(self, body: Get) -> Operation[Answer]:
        try:
            return (yield Send(body, self._timeout_s + body.wait_s)).answer
        except JobNotFound:
            self._known.pop(body.job, None)
            raise

    def _remembered(self, job: str, answer: Answer) -> Shown:
        known = self._known.get(job)
        if known is not None and known.answer is answer:
            return known.shown
        state = found(answer)
        if state is None:
            raise JobNotFound(f"there is no job {job!r}", job=job)
        if known is None:
            return self._kept(job, answer, shown(state))
        before = known.shown.state
        if state.revision < before.revision:  # it was overtaken, or the directory was begun anew
            self._known.pop(job, None)
            return shown(state)
        same = (before.epoch, before.revision) == (state.epoch, state.revision)
        return self._kept(job, answer, known.shown if same else shown(state))

    def _kept(self, job: str, answer: Answer, new: Shown) -> Shown:
        before = self._known.get(job)
        self._bytes += len(new.body) - (len(before.shown.body) if before is not None else 0)
        if self._bytes > self._max_bytes:
            self._known.clear()
            self._bytes = len(new.body)
        self._known[job] = Known(answer, new)
        return new
