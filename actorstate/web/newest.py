"""The newest committed state of each job as ready JSON, made once a revision and kept for while the writer is away."""

from dataclasses import dataclass
from typing import cast

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


class Newest:
    """One web process's memory of states; safe over threads: each step is one dictionary operation."""

    def __init__(self, timeout_s: float, max_bytes: int) -> None:
        self._timeout_s, self._max_bytes = timeout_s, max_bytes
        self._known: dict[str, Shown] = {}
        self._bytes = 0

    def last_known(self, job: str) -> Shown | None:
        """The newest state that this process has seen, without asking."""
        return self._known.get(job)

    def of(self, job: str) -> Operation[Shown]:
        """The newest state, with one question to the writer. Raises BadJobId, JobNotFound, WriterUnavailable."""
        known = self._known.get(checked_job_id(job))
        answer = yield from self._asked(Get(job, newer_than=known.state.revision if known else None))
        if known is not None and isinstance(answer, NotModified) and answer.revision == known.state.revision:
            return known
        if isinstance(answer, NotModified):  # below what was known: the directory was begun anew
            self._known.pop(job, None)
            answer = yield from self._asked(Get(job))
        return self._remembered(job, answer)

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
        state = found(answer)
        if state is None:
            raise JobNotFound(f"there is no job {job!r}", job=job)
        known = self._known.get(job)
        if known is not None and (known.state.epoch, known.state.revision) == (state.epoch, state.revision):
            return known
        new = shown(state)
        if self._bytes + len(new.body) > self._max_bytes:
            self._known.clear()
            self._bytes = 0
        if known is None or known.state.revision < state.revision:
            self._known[job] = new
            self._bytes += len(new.body) - (len(known.body) if known else 0)
        return new
