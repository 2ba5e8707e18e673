"""What tests of the pure core share: a clock of their own, short documents, and an actor without a disk."""

from copy import copy, deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from msgspec.structs import replace

from actorstate.core import codec
from actorstate.core.actor import Actor, Staged
from actorstate.core.evolve import evolve
from actorstate.core.messages.document import Document, Intent, Status, Worker
from actorstate.core.messages.replies import Applied, Change, ChangeBody, WorkerJudged
from actorstate.core.messages.requests import Attach, Body, ControlJob, Counts, CreateJob, Report, Request
from actorstate.core.rate import Now

JOB = "import-42"
EPOCH = 7
START = datetime(2024, 1, 1, tzinfo=UTC)
P1, P2 = b"1" * 16, b"2" * 16


def moment(seconds: float) -> Now:
    """The present, `seconds` after the tests' beginning of time."""
    return Now(START + timedelta(seconds=seconds), 1000.0 + seconds)


def a_worker(incarnation: int = 1, **fields: Any) -> Worker:
    """A live worker; later incarnations were attached later."""
    attached_at = START + timedelta(seconds=incarnation)
    return replace(Worker(incarnation, "host", 1, attached_at), **fields)


def a_job(status: Status = "running", **fields: Any) -> Document:
    """A job in `status`, with the worker `w` attached while it is not finished."""
    finished = status in {"completed", "failed", "cancelled"}
    document = Document(
        JOB,
        "job",
        status,
        revision=3,
        epoch=EPOCH,
        created_at=START,
        updated_at=START,
        started_at=None if status == "pending" else START,
        finished_at=START if finished else None,
        workers={} if finished else {"w": a_worker()},
        incarnations=1,
    )
    return replace(document, **fields)


def attach(worker: str = "w", *, exclusive: bool = False, take_over: bool = False) -> Attach:
    return Attach(JOB, worker, "host", 1, exclusive=exclusive, take_over=take_over)


def report(worker: str = "w", incarnation: int = 1, **fields: Any) -> Report:
    return Report(JOB, worker, incarnation, **fields)


def counted(rows: int, worker: str = "w", incarnation: int = 1) -> Report:
    """The report of a worker that has processed `rows` more."""
    return report(worker, incarnation, counts=Counts(succeeded=rows))


def control(intent: Intent) -> ControlJob:
    return ControlJob(JOB, intent)


def judged(health: str, worker: str = "w", incarnation: int = 1) -> WorkerJudged:
    return WorkerJudged(JOB, worker, incarnation, health)  # type: ignore[arg-type]  # a table of cases may hold any word


def changed(document: Document | None, *bodies: ChangeBody, after_s: float = 1.0) -> Document:
    """The document after `bodies`, each `after_s` later than the one before."""
    for body in bodies:
        revision = document.revision + 1 if document else 1
        at = document.updated_at if document else START
        change = Change(revision, EPOCH, at + timedelta(seconds=after_s), body, elapsed_s=after_s)
        document = evolve(document, change)
    assert document is not None
    return document


@dataclass(slots=True)
class Shelf:
    """What a store would hold of one job: the newest keyframe and the changes since."""

    keyframe: bytes | None = None
    changes: list[bytes] = field(default_factory=list)

    def keep(self, staged: Staged) -> None:
        """A commit, in memory."""
        if staged.keyframe is None:
            self.changes.extend(staged.changes)
        else:
            self.keyframe, self.changes = staged.keyframe, []

    def restored(self, job: str = JOB) -> Actor:
        """The actor that a restarted writer would load."""
        actor = Actor(job)
        actor.restore(self.keyframe, self.changes)
        return actor


@dataclass(slots=True)
class Rehearsal:
    """An actor with a clock, and a shelf in place of its store."""

    actor: Actor = field(default_factory=lambda: Actor(JOB))
    shelf: Shelf = field(default_factory=Shelf)
    seconds: float = 0.0
    _numbers: "count[int]" = field(default_factory=lambda: count(1))

    @property
    def now(self) -> Now:
        return moment(self.seconds)

    @property
    def document(self) -> Document:
        """The committed state."""
        assert self.actor.document is not None
        return self.actor.document

    def request(self, body: Body, **fields: Any) -> Request:
        """A request of the first producer, which has had all its answers; under a number of its own it says nothing."""
        number = next(self._numbers)
        acked = 0 if "id" in fields else number
        return replace(Request(number, body, P1, acked), **fields)

    def propose(self, request: Request) -> Applied:
        return self.actor.propose(request, self.now, EPOCH)

    def commit(self) -> None:
        """Seals, stores and confirms what is staged."""
        staged = self.actor.seal(self.now)
        if staged is not None:
            self.shelf.keep(staged)
        self.actor.confirm()

    def send(self, request: Request) -> Applied:
        """One request, committed by itself."""
        applied = self.propose(request)
        self.commit()
        return applied

    def say(self, *bodies: Body, after_s: float = 1.0) -> Document:
        """New requests, each `after_s` later than the one before; the committed state after them."""
        for body in bodies:
            self.seconds += after_s
            self.send(self.request(body))
        return self.document

    def judge(self, finding: WorkerJudged) -> None:
        self.actor.judge(finding, self.now, EPOCH)
        self.commit()

    def restart(self) -> None:
        """The writer dies and the next one loads the job."""
        self.actor = self.shelf.restored(self.actor.job)


def begun(*workers: str) -> Rehearsal:
    """A job that is running, with these workers; their incarnations count from 1."""
    rehearsal = Rehearsal()
    rehearsal.say(CreateJob(JOB, total=1_000), *(attach(worker) for worker in workers), after_s=0.0)
    return rehearsal


def behaviour(actor: Actor, resends: list[Request], now: Now) -> tuple[bytes | None, list[str]]:
    """All that the outside can see of an actor: its document, and what each request is told when it comes again.

    Asked of a copy, so that the asking changes nothing.
    """
    told: list[str] = []
    actor = copy(actor)
    actor.unchanged = deepcopy(actor.unchanged)
    for request in resends:
        try:
            told.append(repr(actor.propose(request, now, EPOCH)))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is part of the behaviour
            told.append(f"{type(error).__name__}: {error}")
        finally:
            actor.abort()
    return actor.encoded(), told


def copied(document: Document | None) -> Document | None:
    """The document as a reader gets it, over the wire."""
    return None if document is None else codec.decode_document(codec.encode(document))
