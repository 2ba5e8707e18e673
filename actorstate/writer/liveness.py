"""Who still lives: last beats in the writer's memory, judged on its monotonic clock.

Beats are not stored. After a restart every attached worker starts with a fresh beat, so that the writer's
own absence makes nobody look dead. A change of health is a message to the actor, committed like any other.
"""

from collections.abc import Iterator

from actorstate.config import WriterSettings
from actorstate.core.actor import Actor, Beat
from actorstate.core.messages.document import Worker
from actorstate.core.messages.replies import WorkerJudged
from actorstate.core.rate import Thresholds, judge
from actorstate.endpoint import process_space, process_started


class Liveness:
    """Judges the workers of actors in memory."""

    def __init__(self, settings: WriterSettings) -> None:
        self._limits = Thresholds(settings.late_after_s, settings.dead_after_s, settings.stalled_after_s)
        self._space = process_space()

    def findings(self, actor: Actor, monotonic: float) -> Iterator[WorkerJudged]:
        """What should change in the recorded health of this job's workers."""
        document = actor.document
        if document is None:
            return
        follow(actor, monotonic)
        paused = document.status in {"paused", "waiting"}
        for name, beat in actor.beats.items():
            worker = document.workers[name]
            if paused:
                beat.advanced_at = monotonic
            health = judge(monotonic - beat.heard_at, monotonic - beat.advanced_at, self._limits, paused=paused)
            health = "dead" if self._is_gone(worker) else health
            if health != worker.health:
                yield WorkerJudged(document.id, name, beat.incarnation, health)

    def _is_gone(self, worker: Worker) -> bool:
        """Whether its process has ended; only where its pid means something to us."""
        return bool(worker.started) and worker.boot == self._space and process_started(worker.pid) != worker.started


def follow(actor: Actor, monotonic: float) -> None:
    """Takes up the beats of new workers and forgets those that left."""
    workers = {} if actor.document is None or actor.document.finished else actor.document.workers
    for name in actor.beats.keys() - workers.keys():
        del actor.beats[name]
    for name, worker in workers.items():
        beat = actor.beats.get(name)
        if beat is None or beat.incarnation != worker.incarnation:
            actor.beats[name] = Beat(worker.incarnation, monotonic, monotonic)


def is_worked_on(actor: Actor) -> bool:
    """Whether a worker that is not known to be dead is attached."""
    document = actor.document
    if document is None or document.finished:
        return False
    return any(worker.health != "dead" for worker in document.workers.values())


def ages_s(actor: Actor, monotonic: float) -> dict[str, float]:
    """Seconds since each worker's last beat."""
    return {name: monotonic - beat.heard_at for name, beat in actor.beats.items()}
