"""Who still lives: last beats in the writer's memory, judged on its monotonic clock.

Beats are not stored. After a restart every attached worker starts with a fresh beat, so that the writer's
own absence makes nobody look dead. A change of health is a message to the actor, committed like any other.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from actorstate.config import WriterSettings
from actorstate.core.messages.document import Document, Worker
from actorstate.core.messages.replies import WorkerJudged
from actorstate.core.rate import Thresholds, judge
from actorstate.endpoint import process_space, process_started


@dataclass(slots=True)
class Beat:
    """When (monotonic, seconds) a worker was last heard, and when it last advanced."""

    incarnation: int
    heard_at: float
    advanced_at: float


class Liveness:
    """Beats of all workers of the jobs in memory."""

    def __init__(self, settings: WriterSettings) -> None:
        self._limits = Thresholds(settings.late_after_s, settings.dead_after_s, settings.stalled_after_s)
        self._space = process_space()
        self._beats: dict[str, dict[str, Beat]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._beats.values()))

    def follow(self, job: str, document: Document | None, monotonic: float) -> None:
        """Takes up new workers of a job and forgets those that left, after each of its commits."""
        workers = {} if document is None or document.finished else document.workers
        beats = self._beats.setdefault(job, {})
        for name in beats.keys() - workers.keys():
            del beats[name]
        for name, worker in workers.items():
            beat = beats.get(name)
            if beat is None or beat.incarnation != worker.incarnation:
                beats[name] = Beat(worker.incarnation, monotonic, monotonic)
        if not beats:
            del self._beats[job]

    def heard(self, job: str, worker: str, monotonic: float, *, advanced: bool) -> None:
        """A worker said something; `advanced` if it was progress."""
        beat = self._beats.get(job, {}).get(worker)
        if beat is not None:
            beat.heard_at = monotonic
            if advanced:
                beat.advanced_at = monotonic

    def ages_s(self, job: str, monotonic: float) -> dict[str, float]:
        """Seconds since each worker's last beat."""
        return {name: monotonic - beat.heard_at for name, beat in self._beats.get(job, {}).items()}

    def findings(self, document: Document, monotonic: float) -> Iterator[WorkerJudged]:
        """What should change in the recorded health of this job's workers."""
        for name, beat in self._beats.get(document.id, {}).items():
            worker = document.workers.get(name)
            if worker is None or worker.incarnation != beat.incarnation:
                continue
            gone = self._is_gone(worker)
            paused = document.status in {"paused", "waiting"}
            health = judge(monotonic - beat.heard_at, monotonic - beat.advanced_at, paused, self._limits)
            health = "dead" if gone else health
            if health != worker.health:
                yield WorkerJudged(document.id, name, beat.incarnation, health)

    def jobs(self) -> list[str]:
        """Jobs with attached workers."""
        return list(self._beats)

    def _is_gone(self, worker: Worker) -> bool:
        """Whether its process has ended; only where its pid means something to us."""
        return bool(worker.started) and worker.boot == self._space and process_started(worker.pid) != worker.started
