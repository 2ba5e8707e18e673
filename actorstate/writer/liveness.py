"""Who still lives: last beats in the writer's memory, judged on its monotonic clock.

Beats are not stored. After a restart every attached worker starts with a fresh beat, so that the writer's
own absence makes nobody look dead. A change of health is a message to the actor, committed like any other.
"""

from collections.abc import Iterator

from actorstate.config import WriterSettings
from actorstate.core.actor import Actor, Beat
from actorstate.core.messages.document import HealthRules
from actorstate.core.messages.replies import WorkerJudged
from actorstate.core.rate import Thresholds, judge
from actorstate.writer.deaths import Deaths


class Liveness:
    """Judges the workers of actors in memory, and watches their processes for the end (`deaths`)."""

    def __init__(self, settings: WriterSettings) -> None:
        self._settings = settings
        self.deaths = Deaths()

    def findings(self, actor: Actor, monotonic: float) -> Iterator[WorkerJudged]:
        """What should change in the recorded health of this job's workers."""
        document = actor.document
        if document is None:
            return
        follow(actor, monotonic)
        self.watch(actor)
        rests, limits = document.status in {"paused", "waiting"}, self._limits(document.health_rules)
        for name, beat in actor.beats.items():
            worker = document.workers[name]
            if rests:
                beat.advanced_at = monotonic
            health = judge(monotonic - beat.heard_at, monotonic - beat.advanced_at, limits, paused=rests)
            health = "dead" if self.deaths.is_gone(worker) else health
            if health != worker.health:
                yield WorkerJudged(document.id, name, beat.incarnation, health)

    def watch(self, actor: Actor) -> None:
        """Watches the processes of the workers that the actor has now."""
        document = actor.document
        self.deaths.follow(actor.job, {} if document is None or document.finished else document.workers)

    def _limits(self, rules: HealthRules) -> Thresholds:
        settings = self._settings
        return Thresholds(
            rules.late_after_s or settings.late_after_s,
            rules.dead_after_s or settings.dead_after_s,
            rules.stalled_after_s or settings.stalled_after_s,
        )


def follow(actor: Actor, monotonic: float) -> None:
    """Takes up the beats of new workers and forgets those that left."""
    workers = {} if actor.document is None or actor.document.finished else actor.document.workers
    for name in actor.beats.keys() - workers.keys():
        del actor.beats[name]
    for name, worker in workers.items():
        beat = actor.beats.get(name)
        if beat is None or beat.incarnation != worker.incarnation:
            actor.beats[name] = Beat(worker.incarnation, monotonic, monotonic)


def excuse(actor: Actor, away_s: float, monotonic: float) -> None:
    """Time in which the writer could hear nobody makes no worker older."""
    for beat in actor.beats.values():
        beat.heard_at = min(beat.heard_at + away_s, monotonic)
        beat.advanced_at = min(beat.advanced_at + away_s, monotonic)


def is_worked_on(actor: Actor) -> bool:
    """Whether a worker that is not known to be dead is attached."""
    document = actor.document
    if document is None or document.finished:
        return False
    return any(worker.health != "dead" for worker in document.workers.values())


def ages_s(actor: Actor, monotonic: float) -> dict[str, float]:
    """Seconds since each worker's last beat."""
    workers = actor.document.workers if actor.document is not None else {}
    return {name: monotonic - beat.heard_at for name, beat in actor.beats.items() if name in workers}
