"""A plain model of a job, written from the blueprint and not from the code: the actor must do what this does."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, fields

from actorstate.core.messages.document import Document
from actorstate.core.messages.replies import ChangeBody, JobExpired, WorkerJudged
from actorstate.core.messages.requests import (
    ApproveJob,
    Attach,
    ControlJob,
    CreateJob,
    DeleteJob,
    Detach,
    FinishJob,
    Report,
    RetryJob,
    ThrottleJob,
)
from actorstate.errors import (
    ActorStateError,
    AlreadyAttached,
    AlreadyTracked,
    Conflict,
    Fenced,
    IllegalTransition,
    JobFinished,
    JobNotFound,
)

TERMINAL = {"completed", "failed", "cancelled"}
CARRIED_OUT = {"pause": "paused", "cancel": "cancelled"}
OUTCOMES = ("succeeded", "failed", "skipped", "duplicates")
SEVERITY = ["healthy", "late", "stalled", "dead"]
Refusal = type[ActorStateError]


@dataclass(slots=True)
class PlainWorker:
    incarnation: int
    exclusive: bool
    health: str = "healthy"
    heard: str | None = None

    @property
    def live(self) -> bool:
        return self.health != "dead"


@dataclass(slots=True)
class PlainTrack:
    counted: int = 0
    done: int = 0
    holder: tuple[str, int] = ("", 0)


@dataclass(slots=True)
class PlainQuestion:
    text: str
    by: str
    answered: bool = False


@dataclass(slots=True)
class PlainJob:
    """One job id: `exists` is false before its creation and after its deletion, `revision` goes on rising.

    `born` is the revision of its creation.
    """

    exists: bool = False
    revision: int = 0
    kind: str = ""
    total: int | None = None
    born: int = 0
    status: str = "pending"
    started: bool = False
    outcomes: Counter[str] = field(default_factory=Counter)
    workers: dict[str, PlainWorker] = field(default_factory=dict)
    incarnations: int = 0
    checkpoints: dict[str, bytes] = field(default_factory=dict)
    tracks: dict[str, PlainTrack] = field(default_factory=dict)
    intent: str = ""
    intent_state: str = ""
    on_dead: str = "nothing"
    limit: float | None = None
    first_question: str | None = None
    questions: list[PlainQuestion] = field(default_factory=list)
    ended: list[tuple[str, int]] = field(default_factory=list)

    @property
    def asks(self) -> bool:
        """Whether a question is open."""
        return bool(self.questions) and not self.questions[-1].answered

    @property
    def finished(self) -> bool:
        return self.status in TERMINAL

    @property
    def health(self) -> str | None:
        if self.finished or not self.workers:
            return None
        if self.status == "paused":
            return "paused"
        return max((worker.health for worker in self.workers.values()), key=SEVERITY.index)

    def refusal(self, body: ChangeBody) -> Refusal | None:
        """The error that `body` must be refused with."""
        if isinstance(body, CreateJob):
            return Conflict if self.exists and self.kind != body.kind else None
        if not self.exists:
            return JobNotFound
        return next(self._objections(body), None)

    def has_effect(self, body: ChangeBody) -> bool:
        """Whether `body`, which is not refused, changes the job."""
        match body:
            case CreateJob():
                return not self.exists
            case Detach():
                return self._is_attached(body)
            case FinishJob():
                return self.status != body.status
            case ControlJob():
                return self._has_effect_on_control(body)
            case WorkerJudged():
                return self._is_attached(body) and self.workers[body.worker].health != body.health
            case _:
                return self._is_news(body)

    def _is_news(self, body: ChangeBody) -> bool:
        if isinstance(body, ApproveJob):
            return self.asks
        return not isinstance(body, ThrottleJob) or self.limit != body.rows_per_s

    def _has_effect_on_control(self, body: ControlJob) -> bool:
        if body.intent == "resume":
            return self.status == "paused" or self.intent == "pause"
        return self.status != "cancelled" and self.intent != body.intent

    def apply(self, body: ChangeBody) -> None:
        """What an accepted `body` with an effect does."""
        self.revision += 1
        match body:
            case CreateJob():
                self._begin(body)
            case Attach():
                self._attach(body)
            case Detach() | FinishJob():
                self._leave(body)
            case Report():
                self._count(body)
            case ControlJob():
                self._ask(body)
            case DeleteJob() | JobExpired():
                self.exists = False
            case WorkerJudged():
                self.workers[body.worker].health = body.health
            case _:
                self._heed_people(body)
        self._settle()

    def _heed_people(self, body: ChangeBody) -> None:
        if isinstance(body, RetryJob):
            self._retry(body)
        elif isinstance(body, ApproveJob):
            self.questions[-1].answered = True
            self.status = self._open_status() if self.status == "waiting" else self.status
        elif isinstance(body, ThrottleJob):
            self.limit = body.rows_per_s

    def _retry(self, body: RetryJob) -> None:
        self.ended.append((self.status, sum(self.outcomes[name] for name in OUTCOMES)))
        self.intent = self.intent_state = ""
        self.started = False
        if body.from_start:
            self.outcomes.clear()
            self.checkpoints.clear()
            self.tracks.clear()
            self.questions.clear()
            self._ask_first()
        elif self.asks and self.questions[-1].by:
            self.questions.pop()
        self.status = "waiting" if self.asks else "pending"

    def _ask_first(self) -> None:
        if self.first_question is not None:
            self.questions.append(PlainQuestion(self.first_question, ""))

    def _open_status(self) -> str:
        if self.asks:
            return "waiting"
        self.started = self.started or bool(self.workers)
        return "running" if self.started else "pending"

    def check(self, document: Document | None) -> None:
        """Fails where the document is not this job."""
        assert (document is not None) == self.exists
        if document is None:
            return
        assert (document.revision, document.kind, document.status) == (self.revision, self.kind, self.status)
        assert (document.incarnations, document.health) == (self.incarnations, self.health)
        self._check_counts(document)
        workers = {n: (w.incarnation, w.health, w.exclusive, w.acknowledged) for n, w in document.workers.items()}
        assert workers == {n: (w.incarnation, w.health, w.exclusive, w.heard) for n, w in self.workers.items()}
        assert {name: saved.packed for name, saved in document.checkpoints.items()} == self.checkpoints
        tracks = {name: (track.counted, track.done, track.worker) for name, track in document.tracks.items()}
        assert tracks == {name: (track.counted, track.done, track.holder[0]) for name, track in self.tracks.items()}
        self._check_wishes(document)
        control = document.control
        assert ((control.intent, control.state) if control else ("", "")) == (self.intent, self.intent_state)

    def _check_wishes(self, document: Document) -> None:
        asked = [PlainQuestion(each.question, each.by, each.approved_at is not None) for each in document.approvals]
        assert asked == self.questions
        assert (document.throttle.rows_per_s if document.throttle else None) == self.limit
        assert [(each.outcome, each.progress.processed) for each in document.attempts] == self.ended
        assert document.attempt == len(self.ended) + 1

    def _check_counts(self, document: Document) -> None:
        progress = document.progress
        outcomes = (progress.succeeded, progress.failed, progress.skipped, progress.duplicates)
        assert outcomes == tuple(self.outcomes[name] for name in OUTCOMES)
        assert progress.processed == sum(outcomes)
        assert progress.total == self.total
        assert progress.bytes == self.outcomes["bytes"]
        assert document.error_count == self.outcomes["errors"]

    def _objections(self, body: ChangeBody) -> Iterator[Refusal]:
        if isinstance(body, DeleteJob):
            if not self.finished and any(worker.live for worker in self.workers.values()):
                yield IllegalTransition
            return
        if self.finished and not self._may_follow_the_end(body):
            yield JobFinished
        if self._is_out_of_place(body):
            yield IllegalTransition
        if isinstance(body, Report | FinishJob):
            yield from self._objections_to_a_worker(body)
        if isinstance(body, Attach) and not body.take_over and any(self._stands_in_the_way_of(body)):
            yield AlreadyAttached

    def _is_out_of_place(self, body: ChangeBody) -> bool:
        if isinstance(body, ApproveJob):
            return not self.questions or body.question not in {None, self.questions[-1].text}
        if isinstance(body, ControlJob):
            return self.intent == "cancel" != body.intent
        return isinstance(body, RetryJob) and not self.finished

    def _may_follow_the_end(self, body: ChangeBody) -> bool:
        if isinstance(body, ControlJob):
            return (body.intent, self.status) == ("cancel", "cancelled")
        return isinstance(body, Detach | WorkerJudged | RetryJob) or (
            isinstance(body, FinishJob) and body.status == self.status
        )

    def _objections_to_a_worker(self, body: Report | FinishJob) -> Iterator[Refusal]:
        if isinstance(body, FinishJob):
            if body.worker and body.status != self.status and not self._is_attached(body):
                yield Fenced
        elif not self._is_attached(body):
            yield Fenced
        elif any(self._is_held(name, body) for name in body.tracks):
            yield AlreadyTracked

    def _stands_in_the_way_of(self, body: Attach) -> Iterator[bool]:
        for name, worker in self.workers.items():
            yield name != body.worker and worker.live and (body.exclusive or worker.exclusive)

    def _is_held(self, name: str, body: Report) -> bool:
        track = self.tracks.get(name, PlainTrack())
        holder = self.workers.get(track.holder[0])
        others = track.holder != (body.worker, body.incarnation)
        return others and holder is not None and holder.live and holder.incarnation == track.holder[1]

    def _is_attached(self, body: Report | FinishJob | Detach | WorkerJudged) -> bool:
        worker = self.workers.get(body.worker)
        return not self.finished and worker is not None and worker.incarnation == body.incarnation

    def _attach(self, body: Attach) -> None:
        self.incarnations += 1
        if body.exclusive or body.take_over:
            self.workers.clear()
        for name in [name for name, worker in self.workers.items() if worker.exclusive and not worker.live]:
            del self.workers[name]
        self.workers[body.worker] = PlainWorker(self.incarnations, body.exclusive)
        if self.status == "pending":
            self.status, self.started = "running", True

    def _begin(self, body: CreateJob) -> None:
        begun = PlainJob(True, self.revision, body.kind, body.total, self.revision)
        begun.on_dead, begun.first_question = body.health_rules.on_dead, body.question
        begun._ask_first()
        begun.status = begun._open_status()
        for each in fields(self):
            setattr(self, each.name, getattr(begun, each.name))

    def _leave(self, body: Detach | FinishJob) -> None:
        self.workers.pop(body.worker, None)
        for track in self.tracks.values():
            if body.worker and track.holder[0] == body.worker:
                track.holder = ("", 0)
        if isinstance(body, FinishJob):
            self.status = body.status

    def _count(self, body: Report) -> None:
        counts = body.counts
        if counts is not None:
            self.outcomes.update({name: getattr(counts, name) for name in (*OUTCOMES, "bytes")})
        self.outcomes["errors"] += body.error_count
        worker = self.workers[body.worker]
        worker.health, worker.heard = "healthy", body.acknowledged or worker.heard
        self.checkpoints.update(body.checkpoints)
        if body.question is not None:
            self._put_question(body.question, body.worker)
        for name, point in body.tracks.items():
            track = self.tracks.setdefault(name, PlainTrack())
            track.counted, track.done = max(track.counted, point.counted), max(track.done, point.done)
            track.holder = (body.worker, body.incarnation) if point.live else ("", 0)

    def _put_question(self, text: str, worker: str) -> None:
        if self.asks or any(each.text == text and each.answered for each in self.questions):
            return
        self.questions.append(PlainQuestion(text, worker))
        self.status = "waiting" if self.status == "running" else self.status

    def _ask(self, body: ControlJob) -> None:
        self.intent, self.intent_state = body.intent, "requested"
        for worker in self.workers.values():
            worker.heard = None
        if body.intent == "resume" and self.status == "paused":
            self.status = self._open_status()

    def _settle(self) -> None:
        if self.intent and self.intent_state != "done" and not self.finished:
            heard = [worker.heard == self.intent for worker in self.workers.values() if worker.live]
            self.intent_state = "done" if all(heard) else "acknowledged" if any(heard) else "requested"
            if self.intent_state == "done":
                self.status = CARRIED_OUT.get(self.intent, self.status)
        if not self.finished and self.on_dead != "nothing":
            self._bury()
        if self.finished:
            self.workers.clear()
            for track in self.tracks.values():
                track.holder = ("", 0)

    def _bury(self) -> None:
        dead = {name for name, worker in self.workers.items() if not worker.live}
        if self.on_dead == "fail" and self.status == "running":
            self.status = "failed" if dead and len(dead) == len(self.workers) else self.status
            return
        for name in dead:
            del self.workers[name]
        for track in self.tracks.values():
            track.holder = ("", 0) if track.holder[0] in dead else track.holder
