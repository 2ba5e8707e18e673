"""One actor per job: a bounded mailbox, and changes that are proposed, then confirmed or dropped.

Between `propose` and `confirm` the actor shows its committed state to readers and builds the next one
beside it (`Staged`). `abort` forgets that one: a commit that fails leaves the actor as it was.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from msgspec.structs import replace

from actorstate.core import codec
from actorstate.core.evolve import evolve
from actorstate.core.job import decide
from actorstate.core.ledger import Entry
from actorstate.core.messages.document import TERMINAL, Document, ItemState, Order, order_of
from actorstate.core.messages.replies import Applied, Change, ChangeBody, Finding, JobRestored, Keyframe, Receipt
from actorstate.core.messages.requests import Heartbeat, ReadRequest, Recalling, Report, Request
from actorstate.core.rate import Now
from actorstate.core.receipts import MAX_IN_FLIGHT, Unchanged, known_reply, remembered
from actorstate.core.replay import followed
from actorstate.errors import BadMessage, RequestRefused

KEYFRAME_AFTER_BYTES = 4_096
KEYFRAME_RATIO = 2
"""A keyframe is due when the changes since the last one outweigh this much and twice that keyframe."""
KEYFRAME_AFTER_CHANGES = 1_000
"""It is due as well after so many, however small they are: more are never replayed for one look at the past."""


Claim = Callable[[str, str], None]
"""Takes a unique key for a job; raises Conflict where another job holds it, Busy where that is not decided yet."""


def _unheld(_key: str, _job: str) -> None:
    """Where there are no other jobs."""


@dataclass(slots=True)
class Envelope:
    """What waits in a mailbox: a client's request and where its reply goes, or the writer's own finding.

    After `expires_at` (monotonic, seconds) its sender has given up, and it is dropped. `restores` is what the
    writer has found for a `RestoreJob`.
    """

    request: Request | Finding
    reply_to: bytes = b""
    number: int = 0
    expires_at: float = float("inf")
    restores: JobRestored | None = None


@dataclass(slots=True)
class Beat:
    """When (monotonic, seconds) a worker was last heard, and when it last advanced. Never stored."""

    incarnation: int
    heard_at: float
    advanced_at: float


@dataclass(slots=True)
class Staged:
    """What the next commit would make of the job; `relisted` when what jobs are listed by has changed."""

    document: Document | None
    revision: int
    at: float = 0.0
    relisted: bool = False
    receipts: dict[bytes, Receipt] = field(default_factory=dict[bytes, Receipt])
    changes: list[bytes] = field(default_factory=list[bytes])
    frame: Keyframe | None = None
    keyframe: bytes | None = None
    items: dict[str, ItemState] = field(default_factory=dict[str, ItemState])


class Actor:
    """One job in the writer's memory; used by the writer's loop alone.

    `repeats` counts the requests that it answered as before, since it came into memory.
    """

    __slots__ = (
        "_encoded",
        "_forgotten_until",
        "_journal_bytes",
        "_journal_changes",
        "_keyframe_bytes",
        "_original",
        "_receipts",
        "beats",
        "changed_at",
        "document",
        "failures",
        "job",
        "mailbox",
        "repeats",
        "revision",
        "staged",
        "unchanged",
        "used_at",
    )

    def __init__(self, job: str) -> None:
        self.job = job
        self.document: Document | None = None
        self.revision = 0
        self.mailbox: deque[Envelope] = deque()
        self.beats: dict[str, Beat] = {}
        self.unchanged = Unchanged()
        self.failures = self.repeats = 0
        self.used_at = 0.0
        self.restore(None, ())

    def restore(self, keyframe: bytes | None, changes: Iterable[bytes]) -> None:
        """Takes over what the store holds: the last keyframe and the changes since. Raises CorruptJob."""
        start = codec.decode_keyframe(keyframe) if keyframe is not None else Keyframe(0, None)
        self.document, self.revision, self._receipts = start.document, start.revision, dict(start.receipts)
        self._forgotten_until, self._original = start.forgotten_until, start.original
        self._keyframe_bytes, self._journal_bytes, self._journal_changes = len(keyframe or b""), 0, 0
        self.staged: Staged | None = None
        self.changed_at: float | None = None
        self._encoded: bytes | None = None
        for packed in changes:
            self._replay(codec.decode_change(packed))
            self._journal_bytes += len(packed)
            self._journal_changes += 1

    def propose(
        self, request: Request, now: Now, epoch: int, *, claim: Claim = _unheld, entry: Entry | None = None
    ) -> Applied:
        """Stages what `request` asks for and returns its answer, true once the staged state is committed.

        `claim` is asked for a unique key that it takes hold of; `entry` is what is stored of a request that needs
        more than it says (`core/ledger.py`). Raises a RequestRefused or OutcomeUnknown, and then stages nothing.
        """
        body, producer = request.body if entry is None else entry.body, request.producer
        staged = self.staged or Staged(self.document, self.revision)
        receipt = staged.receipts.get(producer) or self._receipts.get(producer)
        if (
            receipt is None
            or request.id <= receipt.highest
            or request.sent_ago_s
            or self.unchanged.answers
            or len(receipt.replies) >= MAX_IN_FLIGHT
        ):
            known = known_reply(receipt, self._forgotten_until, request, now) or self.unchanged.answer(request)
            if known is not None:
                self.repeats += 1
                return known
        if isinstance(body, ReadRequest | Recalling | Heartbeat):
            raise BadMessage("a read is no change")
        try:
            if not decide(staged.document, body):
                self.unchanged.keep(request, Applied(staged.revision), fresh=self.staged is not None)
                return Applied(staged.revision)
            change = self._stage(staged, body, now, epoch=epoch, request=request, claim=claim, entry=entry)
        except RequestRefused as refusal:
            if not refusal.retryable:
                self.unchanged.keep(request, refusal, fresh=self.staged is not None)
            raise
        receipt = staged.receipts[producer] = recorded(receipt, change, staged.document)
        if isinstance(body, Report) and (beat := self.beats.get(body.worker)):
            beat.heard_at = now.monotonic
            advances = body.counts is not None or body.throttled_s
            beat.advanced_at = now.monotonic if advances else beat.advanced_at
        return receipt.replies[request.id]

    def judge(self, finding: Finding, now: Now, epoch: int) -> None:
        """Stages the writer's own finding, if it still changes anything."""
        staged = self.staged or Staged(self.document, self.revision)
        if staged.document is not None and decide(staged.document, finding):
            self._stage(staged, finding, now, epoch=epoch)

    def _stage(
        self,
        staged: Staged,
        body: ChangeBody,
        now: Now,
        *,
        epoch: int,
        request: Request | None = None,
        claim: Claim = _unheld,
        entry: Entry | None = None,
    ) -> Change:
        """Nothing is staged when `claim`, `evolve` or the encoder fails: the assignments come last."""
        before, since = staged.document, staged.at or self.changed_at
        elapsed_s = self._absent_s(now) if since is None else max(0.0, now.monotonic - since)
        change = Change(staged.revision + 1, epoch, now.wall, body, elapsed_s)
        if request is not None:
            change = replace(change, producer=request.producer, id=request.id, acked=request.acked)
        if entry is not None:
            change = replace(change, taken=entry.taken, retrying=entry.retrying)
        document = evolve(before, change)
        if document is not None and document.unique_key and not document.finished and (not before or before.finished):
            claim(document.unique_key, self.job)  # asked here: whatever makes or reopens a job takes its key
        packed = codec.encode(change)
        if before is None or document is None or (before.status, before.health) != (document.status, document.health):
            staged.relisted = True
        staged.document, staged.revision, staged.at = document, change.revision, now.monotonic
        staged.changes.append(packed)
        if entry is not None:
            staged.items.update(entry.rows)
        self.staged = staged
        return change

    def seal(self, now: Now, *, whole: bool = False) -> Staged | None:
        """What is to be committed, with a keyframe where one is due, or always; None when nothing was staged."""
        staged = self.staged
        if staged is None or staged.keyframe is not None:
            return staged
        journal = self._journal_bytes + sum(map(len, staged.changes))
        ended = staged.relisted and (staged.document is None or staged.document.status in TERMINAL)
        grown = journal > KEYFRAME_AFTER_BYTES + KEYFRAME_RATIO * self._keyframe_bytes
        if whole or ended or grown or self._journal_changes + len(staged.changes) >= KEYFRAME_AFTER_CHANGES:
            staged.frame = self._keyframe(staged, now)
            staged.keyframe = codec.encode(staged.frame)
        return staged

    def confirm(self) -> None:
        """The staged state is on the disk: it becomes the state."""
        staged = self.staged
        if staged is None:
            return
        self.document, self.revision, self.changed_at = staged.document, staged.revision, staged.at
        self._receipts.update(staged.receipts)
        self._journal_bytes += sum(map(len, staged.changes))
        self._journal_changes += len(staged.changes)
        if staged.frame is not None:
            self._keyframe_bytes, self._journal_bytes, self._journal_changes = len(staged.keyframe or b""), 0, 0
            self._receipts, self._forgotten_until = dict(staged.frame.receipts), staged.frame.forgotten_until
        self.staged, self._encoded = None, None
        if self.unchanged.answers:
            self.unchanged.settle()

    def abort(self) -> None:
        """The commit failed: nothing of it was ever true, nor what was refused because of it."""
        self.staged = None
        self.unchanged.forget_fresh()

    def encoded(self) -> bytes | None:
        """The committed document's bytes, kept until the next change; None if there is no such job."""
        if self._encoded is None and self.document is not None:
            self._encoded = codec.encode(self.document)
        return self._encoded

    def has_told(self, request: Request) -> bool:
        """Whether this very change is committed already: its answer is known, and nothing need be made ready for it."""
        receipt = self._receipts.get(request.producer)
        return receipt is not None and request.id in receipt.replies

    def order(self) -> Order:
        """What the job's workers should do, and the revision at which somebody asked for it."""
        return order_of(self.document)

    def _absent_s(self, now: Now) -> float:
        """Time since the last change where the actor was not in memory: by the wall clock, for want of another."""
        return max(0.0, (now.wall - self.document.updated_at).total_seconds()) if self.document else 0.0

    def _keyframe(self, staged: Staged, now: Now) -> Keyframe:
        receipts = self._receipts | staged.receipts
        kept = remembered(receipts, now.wall)
        forgotten_until = now.wall if len(kept) < len(receipts) else self._forgotten_until
        return Keyframe(staged.revision, staged.document, kept, forgotten_until, self._original)

    def _replay(self, change: Change) -> None:
        self.document, self.revision = followed(self.document, self.revision, change, self.job), change.revision
        if not change.producer:
            return
        self._receipts[change.producer] = recorded(self._receipts.get(change.producer), change, self.document)


def recorded(receipt: Receipt | None, change: Change, document: Document | None) -> Receipt:
    """The receipt after `change` made `document`: with its reply, without those that have arrived (`acked`)."""
    applied = Applied(change.revision, document.incarnations if document is not None else 0)
    if receipt is None:
        return Receipt(change.at, change.at, change.acked, max(change.id, change.acked - 1), {change.id: applied})
    floor = max(receipt.floor, change.acked)
    kept = {number: reply for number, reply in receipt.replies.items() if number >= floor}
    kept[change.id] = applied
    return Receipt(receipt.born_at, change.at, floor, max(receipt.highest, change.id, floor - 1), kept)
