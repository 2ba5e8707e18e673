"""What the writer tells of itself: its state for `doctor` and `/readyz`, and all its numbers for `/metrics`."""

import os
import time

from actorstate.config import VERSION
from actorstate.core.messages.replies import Metrics, WriterState
from actorstate.core.messages.requests import Heartbeat, ReadRequest
from actorstate.errors import Busy
from actorstate.store.contract import Store
from actorstate.writer.commit import Committer
from actorstate.writer.meter import Census, Meter
from actorstate.writer.residents import Residents

READS = frozenset({kind.__name__ for kind in (*ReadRequest.__args__, Heartbeat)})


class About:
    """Used by the loop alone. `lock` is an open file of the directory: it tells of the disk's free space."""

    def __init__(self, store: Store, residents: Residents, committer: Committer, *, epoch: int, lock: int) -> None:
        self._store, self._residents, self._committer = store, residents, committer
        self._epoch, self._lock = epoch, lock
        self._started = time.monotonic()

    @property
    def _meter(self) -> Meter:
        return self._committer.meter

    def state(self) -> WriterState:
        """The few numbers that a person looks at first."""
        meter, committer, actors = self._meter, self._committer, self._residents.actors.values()
        meter.fold()
        return WriterState(
            pid=os.getpid(),
            version=VERSION,
            epoch=self._epoch,
            uptime_s=time.monotonic() - self._started,
            commits=meter.commits,
            changes=meter.changes,
            reads=sum(number for name, number in meter.asked().items() if name in READS),
            resident=len(actors),
            waiting=committer.waiting,
            workers=sum(len(actor.beats) for actor in actors),
            expired=meter.expired,
            undelivered=meter.events["reply.undelivered"],
            sync_s=committer.sync_s,
            beside=committer.beside,
            disk_full=committer.disk_full,
            refusals=dict(meter.refusals),
        )

    def metrics(self) -> Metrics:
        """All numbers. The first look counts the stored jobs; raises Busy while a commit is changing them."""
        meter, census, state = self._meter, self._census(), self.state()
        disk = os.fstatvfs(self._lock)
        return Metrics(
            state=state,
            started_at=meter.started_at,
            requests=meter.asked(),
            events=dict(meter.events),
            jobs=dict(census.jobs),
            health=dict(census.health),
            changes=meter.changes_made.told(),
            commit_s=meter.commit_s.told(),
            sync_s=meter.sync_s.told(),
            feed_lag_s=meter.feed_lag_s.told(),
            feed_topics=len(meter.topics),
            most_waiting=max(meter.most_waiting, state.waiting),
            answered_again=self._residents.repeats,
            damaged=len(meter.damaged),
            store_bytes=self._store.size_bytes(),
            free_bytes=disk.f_bavail * disk.f_frsize,
        )

    def _census(self) -> Census:
        if self._meter.census is None:
            if self._committer.under_way is not None:
                raise Busy("the stored jobs are counted after the commit that is under way", retry_after_s=0.02)
            self._meter.census = Census(*self._store.count_jobs())
        return self._meter.census
