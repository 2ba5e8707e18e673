"""Items that are to be done once more: handed out from the ledger, and off it with their outcome.

The ledger itself is the position. An item leaves it in the commit that counts its new outcome, so after a
crash of either side the same call hands out what is left. One worker at a time has them: they are claimed
like a track, and each report carries the claim.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Self

from actorstate.client.pending import Pending
from actorstate.client.sender import Membership, Sender, Transport
from actorstate.client.track import Turn, Turns, in_turns
from actorstate.client.words import Outcome, check_damaged, chunked, counts_of
from actorstate.core import codec
from actorstate.core.messages.document import ItemState
from actorstate.core.messages.replies import ItemsListed
from actorstate.core.messages.requests import ItemReport, ListItems, Report, TrackPoint
from actorstate.errors import ActorStateError, AlreadyTracked, BadMessage, BadRequest

TRACK = "retries"
"""The claim's name among the job's tracks."""

Save = Callable[[], None]


@dataclass(slots=True, eq=False, repr=False)
class Retries:
    """The steps of a run's retries (`track.Steps`). `held` are outcomes that wait for `before_save`."""

    transport: Transport
    sender: Sender
    member: Membership
    turns: Turns
    heed_row: Callable[[Save], None]
    before_save: Save | None
    every: int
    held: list[ItemReport] = field(default_factory=list[ItemReport])
    damaged: list[str] = field(default_factory=list[str])
    turn: Turn = field(default_factory=Turn)
    item: ItemState | None = None

    def claimed(self) -> Self:
        """Takes the retries of the job; raises AlreadyTracked while another worker has them."""
        if self.every < 1:
            raise BadRequest("every must be at least 1")
        self.sender.check_process()
        member = self.member
        claim = {TRACK: TrackPoint(0, 0)}
        try:
            self.transport.call(Report(member.job, member.worker, member.incarnation, tracks=claim))
        except AlreadyTracked as taken:
            raise AlreadyTracked(
                f"the retries of job {member.job!r} are done by worker {taken.details.get('holder')!r}",
                hint="wait for it, or end it; one worker at a time does them",
                **taken.details,
            ) from None
        return self

    def skips(self, _item: object, /) -> bool:
        """See Steps: what is off the ledger is not handed out."""
        return False

    def heed(self) -> None:
        """See Steps."""
        self.heed_row(self.save)

    def begin(self, item: ItemState, /) -> None:
        """See Steps."""
        self.item, self.turn = item, self.turns.begin()

    def end(self) -> bool:
        """See Steps: the item has its new outcome, said at once where nobody wants to save before."""
        self.turns.end(self.turn)
        if self.item is not None:
            self.held.append(_outcome(self.item, self.turn))
        if self.before_save is None:
            self.say()
        return self.before_save is not None and len(self.held) >= self.every

    def save(self) -> None:
        """See Steps: the outcomes come after the caller's own rows."""
        if self.before_save is not None:
            self.before_save()
        self.say()
        self.sender.flush(self.transport.settings.timeout_s)

    def say(self, *, live: bool = True) -> None:
        """Says the outcomes that are held, and that the claim goes on."""
        while self.held or not live:
            chunk = next(chunked(self.held), ())
            self.sender.say(partial(_put, items=chunk, live=live), counts_of(chunk), len(chunk))
            del self.held[: len(chunk)]
            if not self.held:
                return

    def leave(self) -> None:
        """Gives the claim free. Outcomes that waited for `before_save` are forgotten: those items come again."""
        self.turns.end(self.turn)
        self.held.clear()
        with contextlib.suppress(ActorStateError):  # the end of the block says it, and waits for the answer
            self.say(live=False)

    def finish(self) -> None:
        """See Steps. Raises CorruptItem, if the ledger has damaged ones."""
        self.leave()
        check_damaged(self.member.job, self.damaged)

    def waiting(self) -> Iterator[ItemState]:
        """The items that are to be done once more, until there are none."""
        found = True
        while found:
            found, after = False, ""
            while True:
                page = self._page(after)
                self.damaged += [key for key in page.damaged if key not in self.damaged]
                for packed in page.items:
                    found = True
                    yield codec.decode_item(packed)
                after = page.after
                if not after:
                    break
            self.save()

    def _page(self, after: str) -> ItemsListed:
        answer = self.transport.call(ListItems(self.member.job, "retrying", None, after)).answer
        if not isinstance(answer, ItemsListed):
            raise BadMessage(f"the writer answered with {type(answer).__name__}")
        return answer


def retried(retries: Retries) -> Iterator[ItemState]:
    """See `Run.retries`."""
    yield from in_turns(retries.claimed(), retries.waiting())


def _put(pending: Pending, *, items: tuple[ItemReport, ...], live: bool) -> None:
    pending.add_items(items)
    pending.tracks[TRACK] = TrackPoint(0, 0, live=live)


def _outcome(item: ItemState, turn: Turn) -> ItemReport:
    """What was said in the item's turn, under its own key; succeeded where nothing was."""
    if turn.items:
        said = turn.items[-1]
        return ItemReport(item.key, said.outcome, said.category, said.error, retried=True)
    counts = turn.counts
    outcome: Outcome = "skipped" if counts.skipped else "duplicate" if counts.duplicates else "succeeded"
    return ItemReport(item.key, outcome, retried=True)
