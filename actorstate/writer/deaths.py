"""The ends of workers' processes on this machine, told by the kernel the moment they happen.

Each watched process has a pidfd, which becomes readable when it ends; all are in one epoll, of which the
loop polls the one descriptor. What cannot be watched (another machine or pid namespace, too many) is found
at the next tick.
"""

import os
import select
from collections.abc import Mapping
from dataclasses import dataclass

from actorstate.core.messages.document import Worker
from actorstate.endpoint import HIDDEN, process_space, process_started

MAX_WATCHED = 256
"""Processes with a descriptor of their own; the end of one more is found at the next tick."""


@dataclass(frozen=True, slots=True)
class _Watch:
    incarnation: int
    descriptor: int


class Deaths:
    """Watches the processes of attached workers; used by the loop alone."""

    def __init__(self) -> None:
        self._space = process_space()
        self._epoll = select.epoll()
        self._watches: dict[str, dict[str, _Watch]] = {}
        self._jobs: dict[int, str] = {}

    @property
    def descriptor(self) -> int:
        """Readable while somebody's end has not been taken by `ended`."""
        return self._epoll.fileno()

    @property
    def jobs(self) -> tuple[str, ...]:
        """Jobs of which a worker is watched."""
        return tuple(self._watches)

    def follow(self, job: str, workers: Mapping[str, Worker]) -> None:
        """Watches those who have come, as far as they can be, and no longer those who have left."""
        watches = self._watches.setdefault(job, {})
        for name, watch in list(watches.items()):
            if name not in workers or workers[name].incarnation != watch.incarnation:
                self._close(watches.pop(name))
        for name, worker in workers.items():
            if name not in watches and worker.health != "dead" and len(self._jobs) < MAX_WATCHED:
                self._watch(job, name, worker)
        if not watches:
            del self._watches[job]

    def is_gone(self, worker: Worker) -> bool:
        """Whether its process has ended; only where its pid means something to us."""
        return self._is_ours(worker) and process_started(worker.pid) not in {worker.started, HIDDEN}

    def ended(self) -> set[str]:
        """Jobs with a worker whose process has ended since the last call."""
        jobs = set[str]()
        for descriptor, _events in self._epoll.poll(0, MAX_WATCHED):
            jobs.add(self._jobs[descriptor])
            self._epoll.unregister(descriptor)
        return jobs

    def close(self) -> None:
        """Closes every descriptor."""
        for job in self.jobs:
            self.follow(job, {})
        self._epoll.close()

    def _is_ours(self, worker: Worker) -> bool:
        return bool(worker.started) and worker.boot == self._space

    def _watch(self, job: str, name: str, worker: Worker) -> None:
        """The start time is compared after the opening: from then on no other process can have this pidfd."""
        if not self._is_ours(worker):
            return
        try:
            descriptor = os.pidfd_open(worker.pid)
        except OSError:  # ended already, or no descriptor left: the next tick sees to it
            return
        if process_started(worker.pid) != worker.started:
            os.close(descriptor)
            return
        self._epoll.register(descriptor, select.EPOLLIN)
        self._watches[job][name] = _Watch(worker.incarnation, descriptor)
        self._jobs[descriptor] = job

    def _close(self, watch: _Watch) -> None:
        del self._jobs[watch.descriptor]
        os.close(watch.descriptor)  # which takes it out of the epoll as well
