"""The mirror: a local copy of jobs, fed by the change feed, read from memory."""

import os
import threading
from typing import Self

from actorstate.client.mirror.copy import Copy, Copying, Place, Scope, matching
from actorstate.client.sync.pool import Transport
from actorstate.core.messages.document import JobState

JOIN_S = 2.0
"""How long closing waits for the thread; it is a daemon, and has nothing to lose."""


class Mirror:
    """A copy of jobs in this process, kept by a thread of its own until it or its client is closed.

    Never older than `stale_after_s`: then reads raise StaleMirror, without waiting. A job that it does not
    hold is asked of the writer. What is read here never goes backwards. Made by `Client.mirror`; opens
    nothing before its first use, and anew in a forked child.
    """

    def __init__(self, transport: Transport, scope: Scope) -> None:
        self._transport, self._scope = transport, scope
        self._lock = threading.Lock()
        self._copying: Copying | None = None

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    @property
    def age_s(self) -> float:
        """Seconds since the copy was last known to be whole; infinite before the first time."""
        return self._open().copy.age_s

    @property
    def left_out(self) -> int:
        """How many unfinished jobs are damaged, and therefore not in the copy: `actorstate verify DIR` names them."""
        return self._open().copy.left_out

    def get(
        self,
        job: str,
        *,
        at_least: Place | None = None,
        max_age_s: float | None = None,
        timeout_s: float = 10.0,
    ) -> JobState:
        """The job's state, from memory if it is there and as new as `at_least`: a revision, or (epoch, revision).

        Otherwise the writer is asked, and waited for up to `timeout_s`. Raises StaleMirror when the copy is older
        than `max_age_s` (math.inf takes any) or the job does not get there in time; JobNotFound.
        """
        copying = self._copying
        if copying is None or copying.pid != os.getpid() or not copying.copy.fresh_at:
            copying = self._filled(timeout_s)
        state = copying.copy.look(job, at_least, max_age_s)
        if state is not None:
            return state
        return self._transport.result_of(copying.copy.looked_up(job, at_least, timeout_s))

    def jobs(
        self,
        *,
        status: str | None = None,
        kind: str | None = None,
        health: str | None = None,
        max_age_s: float | None = None,
    ) -> list[JobState]:
        """The jobs that it holds and that match, in the order of their ids. Raises StaleMirror."""
        copy = self._filled(self._transport.settings.timeout_s).copy
        copy.check_age(max_age_s)
        return matching(copy.states(), status, kind, health)

    def close(self) -> None:
        """Ends the thread and its sockets; what is read after that opens them again."""
        with self._lock:
            copying, self._copying = self._copying, None
            self._transport.companions.discard(self)
        if copying is not None and copying.pid == os.getpid() and copying.thread is not None:
            copying.stop()
            copying.thread.join(JOIN_S)

    def _open(self) -> Copying:
        with self._lock:
            copying = self._copying
            alive = copying is not None and copying.thread is not None and copying.thread.is_alive()
            if copying is None or copying.pid != os.getpid() or not alive:
                copying = self._copying = self._begun()
            return copying

    def _begun(self) -> Copying:
        from actorstate.client.mirror.thread import keep  # noqa: PLC0415 - asyncio would double everybody's start-up

        copying = Copying(Copy(self._scope, str(self._transport.location)))
        keep(copying, self._transport)
        self._transport.companions.add(self)
        return copying

    def _filled(self, timeout_s: float) -> Copying:
        copying = self._open()
        if not copying.whole.wait(timeout_s):
            raise copying.copy.unfilled()
        return copying
