"""The actor against a plain model of a job, through crashes, failed commits, resends and requests out of order."""

from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import replace

from actorstate.core import codec
from actorstate.core.actor import Actor
from actorstate.core.messages.document import Health, HealthRules, Intent, OnDead
from actorstate.core.messages.replies import Applied, ChangeBody, JobExpired, WorkerJudged
from actorstate.core.messages.requests import (
    ApproveJob,
    Attach,
    ControlJob,
    Counts,
    CreateJob,
    DeleteJob,
    Detach,
    FinishJob,
    Report,
    Request,
    RetryJob,
    ThrottleJob,
    TrackPoint,
)
from actorstate.core.receipts import PRODUCER_IDLE_S
from actorstate.errors import ActorStateError, OutcomeUnknown
from tests.support.core import EPOCH, JOB, P1, P2, Rehearsal, behaviour, copied
from tests.support.plainjob import PlainJob, Refusal

Key = tuple[bytes, int]
names = st.sampled_from(["w1", "w2", "w3"])
questions = st.sampled_from(["delete it?", "sure?"])
first_questions = st.sampled_from([None, None, None, "may it begin?"])
deaths = st.sampled_from(["nothing", "nothing", "fail", "free"])
few = st.integers(0, 9)
increments = st.builds(Counts, few, few, few, few, few)
rarely = st.sampled_from([False, False, False, False, True])
"""An end ends most of what could still happen."""
stale = st.sampled_from([0, 0, 0, 0, 1])
"""How far beside its incarnation a worker speaks: mostly not at all."""


@dataclass(slots=True)
class Told:
    """What one producer was told, as the promise has it: nothing below the floor is applied any more."""

    born_at: datetime
    seen_at: datetime
    floor: int = 0
    answers: dict[int, Applied] = field(default_factory=dict)


@dataclass(slots=True)
class Truth:
    """What should be so: the job, and the answers that were given for its changes."""

    job: PlainJob = field(default_factory=PlainJob)
    told: dict[bytes, Told] = field(default_factory=dict)
    without_effect: dict[Key, Applied | Refusal] = field(default_factory=dict)
    forgotten_until: datetime | None = None

    def known(self, request: Request, now: datetime) -> Applied | Refusal | None:
        """The answer to a request that comes again; None where it is new."""
        told = self.told.get(request.producer)
        if told is not None and request.id in told.answers and request.id >= told.floor:
            return told.answers[request.id]
        if (told is not None and request.id < told.floor) or self._may_be_forgotten(told, request, now):
            return OutcomeUnknown
        return self.without_effect.get((request.producer, request.id))

    def _may_be_forgotten(self, told: Told | None, request: Request, now: datetime) -> bool:
        first_sent = now - timedelta(seconds=request.sent_ago_s)
        if self.forgotten_until is None or not request.sent_ago_s or first_sent > self.forgotten_until:
            return False
        return told is None or first_sent < told.born_at

    def record(self, request: Request, applied: Applied, now: datetime) -> None:
        told = self.told.setdefault(request.producer, Told(now, now))
        told.seen_at, told.floor = now, max(told.floor, request.acked)
        told.answers[request.id] = applied

    def forget_idle(self, now: datetime) -> None:
        """What a keyframe may do: producers that said nothing for an hour are forgotten."""
        since = now - timedelta(seconds=PRODUCER_IDLE_S)
        idle = [producer for producer, told in self.told.items() if told.seen_at <= since]
        for producer in idle:
            del self.told[producer]
            self.forgotten_until = now


class ActorMachine(RuleBasedStateMachine):
    """`committed` is what readers may see, `staged` what the next commit makes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.rehearsal = Rehearsal()
        self.committed, self.staged = Truth(), Truth()
        self.numbers = {P1: 0, P2: 0}
        self.open: dict[bytes, set[int]] = {P1: set(), P2: set()}
        self.held: list[Request] = []
        self.batch: list[Request] = []
        self.recorded: list[Request] = []
        self.first_sent: dict[Key, float] = {}
        self.effects: Counter[Key] = Counter()
        self.last_end: datetime | None = None
        self.ends: dict[tuple[int, int], tuple[str, datetime | None, int]] = {}

    @property
    def actor(self) -> Actor:
        return self.rehearsal.actor

    @initialize(workers=st.sampled_from([0, 1, 2, 2, 3, 3]), on_dead=deaths, question=first_questions)
    def begin(self, workers: int, on_dead: OnDead, question: str | None) -> None:
        self.ask(CreateJob(JOB, total=100, health_rules=HealthRules(on_dead=on_dead), question=question), P1)
        for place in range(workers):
            self.ask(Attach(JOB, f"w{place + 1}", "host", 1), P1)
        self.commit()

    # What is asked for: at once, or held back until later.

    @rule(kind=st.sampled_from(["job", "other"]), producer=st.sampled_from([P1, P2]), on_dead=deaths)
    def create(self, kind: str, producer: bytes, on_dead: OnDead) -> None:
        self.ask(CreateJob(JOB, kind, total=100, health_rules=HealthRules(on_dead=on_dead)), producer)

    @rule(worker=names, how=st.sampled_from(["", "", "exclusive", "take_over"]), later=st.booleans())
    def attach(self, worker: str, how: str, *, later: bool) -> None:
        body = Attach(JOB, worker, "host", 1, exclusive=how == "exclusive", take_over=how == "take_over")
        self.ask(body, P1, later=later)

    @rule(worker=names, beside=stale)
    def detach(self, worker: str, beside: int) -> None:
        self.ask(Detach(JOB, worker, self.incarnation(worker, beside)), P2)

    @rule(worker=names, beside=stale, counts=increments, producer=st.sampled_from([P1, P2]), later=st.booleans())
    def report(self, worker: str, beside: int, counts: Counts, producer: bytes, *, later: bool) -> None:
        self.ask(self.report_of(worker, beside, counts=counts, error_count=counts.failed), producer, later=later)

    @rule(worker=names, beside=stale, intent=st.sampled_from(["pause", "resume", "cancel"]))
    def acknowledge(self, worker: str, beside: int, intent: Intent) -> None:
        self.ask(self.report_of(worker, beside, acknowledged=intent), P1)

    @rule(worker=names, name=st.sampled_from(["a", "b"]), size=st.sampled_from([1, 10, 5_000]), later=st.booleans())
    def save_checkpoint(self, worker: str, name: str, size: int, *, later: bool) -> None:
        packed = b"%d" % self.numbers[P1] + b"x" * size
        self.ask(self.report_of(worker, 0, checkpoints={name: packed}), P1, later=later)

    @rule(worker=names, counted=few, done=few, live=st.booleans())
    def track(self, worker: str, counted: int, done: int, *, live: bool) -> None:
        self.ask(self.report_of(worker, 0, tracks={"t": TrackPoint(counted, done, live=live)}), P2)

    @rule(status=st.sampled_from(["completed", "failed"]), worker=names, beside=stale, alone=st.booleans(), now=rarely)
    def finish(
        self, status: Literal["completed", "failed"], worker: str, beside: int, *, alone: bool, now: bool
    ) -> None:
        if not now:
            return
        named = (worker, self.incarnation(worker, beside)) if alone else ("", 0)
        self.ask(FinishJob(JOB, status, None, *named), P2)

    @rule(intent=st.sampled_from(["pause", "pause", "resume", "resume", "cancel"]), later=st.booleans())
    def control(self, intent: Intent, *, later: bool) -> None:
        self.ask(ControlJob(JOB, intent), P2, later=later)

    @rule(from_start=st.booleans(), later=st.booleans())
    def retry(self, *, from_start: bool, later: bool) -> None:
        self.ask(RetryJob(JOB, from_start), P2, later=later)

    @rule(worker=names, beside=stale, question=questions)
    def ask_people(self, worker: str, beside: int, question: str) -> None:
        self.ask(self.report_of(worker, beside, question=question), P1)

    @rule(question=st.none() | questions, later=st.booleans())
    def approve(self, question: str | None, *, later: bool) -> None:
        self.ask(ApproveJob(JOB, question), P2, later=later)

    @rule(limit=st.sampled_from([None, 0.5, 100.0]))
    def throttle(self, limit: float | None) -> None:
        self.ask(ThrottleJob(JOB, limit), P2)

    @rule(beside_s=st.sampled_from([0, 0, 1]), now=rarely)
    def expire(self, beside_s: int, *, now: bool) -> None:
        """The writer found a time that may be over; the job may have been retried, and ended again, since."""
        document = self.actor.staged.document if self.actor.staged else self.actor.document
        ended_at = document.finished_at if document else None
        self.last_end = ended_at or self.last_end
        if now and self.last_end is not None:
            finding = JobExpired(JOB, self.last_end + timedelta(seconds=beside_s))
            self.actor.judge(finding, self.rehearsal.now, EPOCH)
            if ended_at is not None and not beside_s:
                self.staged.job.apply(finding)

    @rule(now=rarely)
    def delete(self, *, now: bool) -> None:
        if now:
            self.ask(DeleteJob(JOB), P2)

    @rule(worker=names, beside=stale, health=st.sampled_from(["healthy", "late", "stalled", "dead", "dead"]))
    def judge(self, worker: str, beside: int, health: Health) -> None:
        finding = WorkerJudged(JOB, worker, self.incarnation(worker, beside), health)
        self.actor.judge(finding, self.rehearsal.now, EPOCH)
        job = self.staged.job
        if job.refusal(finding) is None and job.has_effect(finding):
            job.apply(finding)

    # What the wire and the disk do to it.

    @precondition(lambda self: self.held)
    @rule(place=st.integers(0, 100))
    def deliver_late(self, place: int) -> None:
        self.deliver(self.held.pop(place % len(self.held)))

    @precondition(lambda self: self.recorded)
    @rule(place=st.integers(0, 100))
    def deliver_again(self, place: int) -> None:
        request = self.recorded[place % len(self.recorded)]
        self.deliver(request)

    @precondition(lambda self: any(self.open.values()))
    @rule(place=st.integers(0, 100))
    def hear_or_give_up(self, place: int) -> None:
        """The producer has its answer, or waits no longer: it will tell so with its next request."""
        keys = [(producer, number) for producer, numbers in self.open.items() for number in sorted(numbers)]
        producer, number = keys[place % len(keys)]
        self.open[producer].discard(number)

    @rule(seconds=st.sampled_from([0.0, 0.1, 1.0, 30.0]))
    def wait(self, seconds: float) -> None:
        self.rehearsal.seconds += seconds

    @rule(worker=names, silent=st.sampled_from([P1, P2]))
    def work_on_while_one_is_silent(self, worker: str, silent: bytes) -> None:
        """Long enough to be forgotten, if what the other one says makes a keyframe due."""
        self.rehearsal.seconds += PRODUCER_IDLE_S + 1
        speaking = P2 if silent == P1 else P1
        self.ask(self.report_of(worker, 0, checkpoints={"a": b"x" * 30_000}), speaking)
        self.commit()

    @rule()
    def commit(self) -> None:
        staged = self.actor.seal(self.rehearsal.now)
        self.rehearsal.commit()
        for request in self.batch:
            self.effects[request.producer, request.id] += 1
        self.recorded.extend(self.batch)
        self.batch = []
        if staged is not None and staged.keyframe is not None:
            self.staged.forget_idle(self.rehearsal.now.wall)
        self.committed = deepcopy(self.staged)
        self.compare_with_a_restored_one()

    @rule()
    def fail_the_commit(self) -> None:
        """Those in the batch are told so, and try again under the same numbers."""
        self.actor.seal(self.rehearsal.now)
        self.actor.abort()
        self.held.extend(self.batch)
        self.lose_what_was_staged()

    @rule()
    def crash(self) -> None:
        """Those in the batch hear nothing, and send again."""
        self.rehearsal.restart()
        self.held.extend(self.batch)
        self.lose_what_was_staged()
        self.forget_what_was_in_memory()

    @invariant()
    def readers_see_the_committed_job(self) -> None:
        self.committed.job.check(self.actor.document)
        assert self.actor.revision == self.committed.job.revision
        packed = self.actor.encoded()
        assert packed is None or codec.decode_document(packed) == copied(self.actor.document)

    @invariant()
    def nothing_is_applied_twice(self) -> None:
        assert not [key for key, times in self.effects.items() if times > 1]

    @invariant()
    def a_finished_job_stays_finished(self) -> None:
        document = self.actor.document
        if document is not None and document.finished:
            end = (document.status, document.finished_at, document.progress.processed)
            assert self.ends.setdefault((self.committed.job.born, document.attempt), end) == end

    @invariant()
    def revisions_have_no_gap(self) -> None:
        revisions = [codec.decode_change(packed).revision for packed in self.rehearsal.shelf.changes]
        assert revisions == list(range(self.actor.revision - len(revisions) + 1, self.actor.revision + 1))

    def ask(self, body: ChangeBody, producer: bytes, *, later: bool = False) -> None:
        """A request under the producer's next number."""
        assert not isinstance(body, WorkerJudged | JobExpired)
        self.numbers[producer] += 1
        number = self.numbers[producer]
        self.open[producer].add(number)
        request = Request(number, body, producer)
        if later:
            self.held.append(request)
        else:
            self.deliver(request)

    def deliver(self, request: Request) -> None:
        key = (request.producer, request.id)
        now = self.rehearsal.seconds
        ago = max(now - self.first_sent[key], 1e-6) if key in self.first_sent else 0.0
        self.first_sent.setdefault(key, now)
        acked = min(self.open[request.producer] | {request.id}) if request not in self.recorded else request.acked
        request = replace(request, sent_ago_s=ago, acked=acked)
        known = self.staged.known(request, self.rehearsal.now.wall)
        if known is None:
            self.deliver_new(request)
        elif isinstance(known, Applied):
            assert self.told(request) == known
        else:
            assert self.told(request) is known

    def deliver_new(self, request: Request) -> None:
        body, job = request.body, self.staged.job
        assert isinstance(body, ChangeBody)
        refusal = job.refusal(body)
        told = self.told(request)
        if refusal is not None:
            assert told is refusal
            self.answer_without_effect(request, told)
        elif not job.has_effect(body):
            assert isinstance(told, Applied)
            assert told.revision == job.revision
            self.answer_without_effect(request, told)
        else:
            job.apply(body)
            assert isinstance(told, Applied)
            assert told.revision == job.revision
            assert not isinstance(body, Attach) or told.incarnation == job.incarnations
            self.staged.record(request, told, self.rehearsal.now.wall)
            self.batch.append(request)

    def answer_without_effect(self, request: Request, told: Applied | Refusal) -> None:
        """True for good, unless it rests on what is staged and may still fail."""
        for truth in (self.staged,) if self.actor.staged else (self.staged, self.committed):
            truth.without_effect[request.producer, request.id] = told
        self.open[request.producer].discard(request.id)
        self.recorded.append(request)

    def has_effect(self, request: Request) -> bool:
        return (request.producer, request.id) in self.effects

    def told(self, request: Request) -> Applied | Refusal:
        """The actor's answer; a refusal must leave what is staged alone."""
        before = deepcopy(self.actor.staged)
        try:
            return self.rehearsal.propose(request)
        except ActorStateError as error:
            assert self.actor.staged == before
            return type(error)

    def lose_what_was_staged(self) -> None:
        self.batch = []
        self.staged = deepcopy(self.committed)

    def forget_what_was_in_memory(self) -> None:
        """Answers without effect: their copies came over connections that the crash has ended."""
        self.recorded = [request for request in self.recorded if self.has_effect(request)]
        self.staged.without_effect.clear()
        self.committed.without_effect.clear()

    def compare_with_a_restored_one(self) -> None:
        resends = [replace(request, sent_ago_s=1e-6) for request in self.recorded if self.has_effect(request)][-4:]
        now = self.rehearsal.now
        assert behaviour(self.rehearsal.shelf.restored(), resends, now) == behaviour(self.actor, resends, now)

    def incarnation(self, worker: str, beside: int) -> int:
        attached = self.staged.job.workers.get(worker)
        return (attached.incarnation if attached else self.staged.job.incarnations) + beside

    def report_of(self, worker: str, beside: int, **fields: Any) -> Report:
        return Report(JOB, worker, self.incarnation(worker, beside), **fields)


def run(examples: int) -> None:
    search: Callable[..., None] = run_state_machine_as_test
    search(ActorMachine, settings=settings(max_examples=examples, stateful_step_count=30, deadline=None))


def test_an_actor_does_what_no_job_would_do() -> None:
    run(30)


@pytest.mark.slow
def test_an_actor_does_what_no_job_would_do_in_a_long_search() -> None:
    run(300)
