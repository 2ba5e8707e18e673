"""The copy that a mirror keeps: which states it holds, how new they are, and what it must still fetch.

The feed says (epoch, sequence) and which jobs are now at which revision; the states themselves are fetched.
So the feed costs the writer some 30 bytes a change however large a job is, a mirror that is slow fetches
less often instead of queueing documents, and nothing on the feed can take a job backwards.
"""

import math
import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from actorstate.client import operations
from actorstate.client.calls import checked_job_id
from actorstate.client.operations import Operation
from actorstate.core.messages.document import JobState
from actorstate.core.messages.replies import JobsChanged
from actorstate.errors import StaleMirror

KEPT_FINISHED = 1_000
"""Jobs that finished while they were mirrored; of more than these the ones that ended first leave."""

Place = int | tuple[int, int]
"""A revision, or (epoch, revision)."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What a mirror is asked to be; times in seconds."""

    names: frozenset[str] | None
    every_s: float
    stale_after_s: float
    max_jobs: int


def mirror(
    jobs: Iterable[str] | None = None,
    *,
    every_s: float = 0.1,
    stale_after_s: float = 5.0,
    max_jobs: int = 10_000,
) -> Scope:
    """A local copy of these jobs, or of all that are not finished, for readers that ask often: see `Mirror`.

    A job that changes faster is fetched once in `every_s`. Reads of a copy older than `stale_after_s` raise
    StaleMirror; the writer beats each second, so less than 2 s would be raised at its next hiccup. Of more jobs
    than `max_jobs` (a few kB each) the rest is not held: those are asked of the writer. To be used in a `with` block.
    """
    names = None if jobs is None else frozenset(map(checked_job_id, jobs))
    return Scope(names, every_s, stale_after_s, max_jobs)


@dataclass(slots=True, eq=False)
class Copy:
    """Of the jobs in `scope`, or of all that are not finished. Those that finish meanwhile stay a while.

    `fresh_at` is the last moment (monotonic, seconds) at which it was known to be whole; 0 before the first.
    `left_out` is how many jobs could not be read at the last look at all. Any thread may call anything.
    """

    scope: Scope
    location: str
    held: dict[str, JobState] = field(default_factory=dict[str, JobState])
    awaited: dict[str, int] = field(default_factory=dict[str, int])
    position: tuple[int, int] | None = None
    fresh_at: float = 0.0
    left_out: int = 0
    _ended: dict[str, None] = field(default_factory=dict[str, None])
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def age_s(self) -> float:
        """Seconds since it was last known to be whole; infinite before the first time."""
        return time.monotonic() - self.fresh_at if self.fresh_at else math.inf

    def unfilled(self) -> StaleMirror:
        """What a reader is told that does not want to wait longer for the first time that it is whole."""
        message = f"the mirror of {self.location} is not filled yet: its writer has not answered"
        return StaleMirror(message, directory=self.location, age_s=self.age_s)

    def look(self, job: str, at_least: Place | None, max_age_s: float | None) -> JobState | None:
        """The held state if it will do; None where the writer must be asked. Raises StaleMirror."""
        self.check_age(max_age_s)
        state = self.held.get(job)
        return state if state is not None and has_reached(state, at_least) else None

    def looked_up(self, job: str, at_least: Place | None, timeout_s: float) -> Operation[JobState]:
        """What the mirror does not hold, from the writer; raises StaleMirror when that is not `at_least` in time."""
        if at_least is None:
            state = yield from operations.get(job, timeout_s=timeout_s)
        else:
            revision = at_least if isinstance(at_least, int) else at_least[1]
            state = yield from operations.wait(job, after=revision - 1, timeout_s=timeout_s)
        self.take(state, asked=True)
        if not has_reached(state, at_least):
            raise StaleMirror(
                f"job {job!r} is at revision {state.revision} of epoch {state.epoch}, not yet at {at_least}",
                directory=self.location,
            )
        return state

    def check_age(self, max_age_s: float | None) -> None:
        """Raises StaleMirror when it is older than `max_age_s` (None: `stale_after_s`)."""
        limit_s, age_s = self.scope.stale_after_s if max_age_s is None else max_age_s, self.age_s
        if age_s > limit_s:
            known = f"{age_s:.1f} s old" if self.fresh_at else "not filled yet"
            message = f"the mirror of {self.location} is {known}, over the limit of {limit_s:g} s"
            raise StaleMirror(message, directory=self.location, age_s=age_s)

    def hear(self, fact: JobsChanged) -> bool:
        """Notes what has changed; False when something before it was missed, so that all must be looked at anew."""
        before, here = self.position, (fact.epoch, fact.sequence)
        if before is not None and here < before:
            return True  # the last words of a writer that has been replaced
        self.position = here
        with self._lock:
            for job, revision in fact.jobs.items():
                if self._concerns(job, revision):
                    self.awaited[job] = revision
        step = 1 if fact.jobs else 0
        return before is not None and here == (before[0], before[1] + step)

    def take(self, state: JobState, *, asked: bool = False) -> None:
        """Holds a state unless a newer one is there; one that somebody `asked` for is held though it has finished."""
        with self._lock:
            if self.awaited.get(state.id, 0) <= state.revision:
                self.awaited.pop(state.id, None)
            held = self.held.get(state.id)
            if held is None and (len(self.held) >= self.scope.max_jobs or not self._is_wanted(state, asked=asked)):
                return
            if held is None or _place(held) < _place(state):
                self.held[state.id] = state
                self._ended.pop(state.id, None)
                if state.finished and self.scope.names is None:
                    self._end(state.id)

    def drop(self, job: str) -> None:
        """There is no such job, or it cannot be read: the writer says what is wrong with it."""
        with self._lock:
            self.awaited.pop(job, None)
            self._ended.pop(job, None)
            self.held.pop(job, None)

    def look_again_at(self, jobs: Iterable[str]) -> None:
        """These are fetched whatever their revision."""
        with self._lock:
            for job in jobs:
                self.awaited.setdefault(job, 0)

    def states(self) -> list[JobState]:
        """All that it holds, in the order of their ids."""
        with self._lock:
            return [self.held[job] for job in sorted(self.held)]

    def _concerns(self, job: str, revision: int) -> bool:
        held = self.held.get(job)
        return (self.scope.names is None or job in self.scope.names) and (held is None or held.revision < revision)

    def _is_wanted(self, state: JobState, *, asked: bool) -> bool:
        return state.id in self.scope.names if self.scope.names is not None else asked or not state.finished

    def _end(self, job: str) -> None:
        self._ended[job] = None
        while len(self._ended) > KEPT_FINISHED:
            first = next(iter(self._ended))
            del self._ended[first], self.held[first]


@dataclass(slots=True, eq=False)
class Copying:
    """One process's copy, and the thread that keeps it."""

    copy: Copy
    whole: threading.Event = field(default_factory=threading.Event)
    pid: int = field(default_factory=os.getpid)
    thread: threading.Thread | None = None
    stop: Callable[[], None] = lambda: None


def has_reached(state: JobState, at_least: Place | None) -> bool:
    """Whether the state is as new as the caller needs it."""
    if at_least is None or isinstance(at_least, int):
        return at_least is None or state.revision >= at_least
    return _place(state) >= at_least


def _place(state: JobState) -> tuple[int, int]:
    return state.epoch, state.revision


def matching(states: Iterable[JobState], status: str | None, kind: str | None, health: str | None) -> list[JobState]:
    """Those of the states that match all that is not None."""
    return [
        state
        for state in states
        if status in {None, state.status} and kind in {None, state.kind} and health in {None, state.health}
    ]
