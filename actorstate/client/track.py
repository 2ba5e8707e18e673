"""`track`: an iterator that resumes. Processing is at least once, counting exactly once.

0 ........ done ........ counted ........ end
  skipped        redone,          processed
                 not counted      and counted
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from actorstate.core.messages.document import Track
from actorstate.core.messages.payload import pack, unpack
from actorstate.core.messages.requests import Counts, ItemReport, TrackPoint
from actorstate.errors import BadRequest

Row = TypeVar("Row")
Key = Callable[[Row], str | int]

MAX_KEY_BYTES = 256
SUCCEEDED = Counts(succeeded=1)


@dataclass(slots=True, eq=False, repr=False)
class Position:
    """Where a track is: rows seen, rows ended (the loop came back), counted, and saved; with a key, their keys."""

    counted: int
    done: int
    counted_key: str | int | None = None
    done_key: str | int | None = None
    seen: int = 0
    key: str | int | None = None
    ended: int = 0
    ended_key: str | int | None = None

    def point(self, *, live: bool = True) -> TrackPoint:
        """The position as it is reported."""
        return TrackPoint(self.counted, self.done, _packed(self.counted_key), _packed(self.done_key), live)

    def save(self) -> None:
        """All rows that ended need not be seen again."""
        self.done = max(self.done, self.ended)
        self.done_key = self.done_key if self.ended_key is None else self.ended_key


@dataclass(slots=True, eq=False)
class Turn:
    """The outcome of one row, succeeded until somebody says otherwise."""

    counts: Counts = SUCCEEDED
    items: tuple[ItemReport, ...] = ()


@dataclass(slots=True, eq=False, repr=False)
class Turns:
    """Whose turn it is, per thread: two threads may run two tracks of one run, and a track lie within another."""

    _by_thread: dict[int, list[Turn]] = field(default_factory=dict[int, list[Turn]])

    def begin(self) -> Turn:
        """A row is handed out."""
        turn = Turn()
        self._by_thread.setdefault(threading.get_ident(), []).append(turn)
        return turn

    def end(self, turn: Turn) -> None:
        """The loop came back, or was left."""
        turns = self._by_thread.get(threading.get_ident(), [])
        if turn in turns:
            del turns[turns.index(turn) :]
        if not turns:
            self._by_thread.pop(threading.get_ident(), None)

    def set_outcome(self, counts: Counts, items: tuple[ItemReport, ...]) -> bool:
        """Whether this thread has a row, which now has this outcome."""
        turns = self._by_thread.get(threading.get_ident())
        if not turns:
            return False
        turns[-1].counts, turns[-1].items = counts, turns[-1].items + items
        return True


class Port(Protocol):
    """What a track needs of its run."""

    turns: Turns

    def claim(self) -> Track:
        """Takes the track name; raises AlreadyTracked."""
        ...

    def count(self, point: TrackPoint, counts: Counts, items: tuple[ItemReport, ...]) -> None:
        """One row's outcome together with the position after it."""
        ...

    def save(self, position: Position, *, live: bool) -> None:
        """Makes the position durable."""
        ...

    def leave(self, position: Position) -> None:
        """Gives the name free where the loop was left within a row."""
        ...

    def heed(self, save: Callable[[], None]) -> None:
        """Honours pause and cancel."""
        ...


def tracked(port: Port, rows: Iterable[Row], every: int, key: "Key[Row] | None") -> Iterator[Row]:
    """See `Run.track`."""
    if every < 1:
        raise BadRequest("every must be at least 1")
    position = _resumed(port.claim(), by_key=key is not None)
    saved_at = 0 if key is not None else position.done
    turn = Turn()
    try:
        for row in rows:
            if not _is_new(position, row, key):
                continue
            port.heed(lambda: port.save(position, live=True))
            turn = port.turns.begin()
            yield row
            port.turns.end(turn)
            _end_row(port, position, turn)
            if position.ended - saved_at >= every:
                port.save(position, live=True)
                saved_at = position.ended
    except GeneratorExit:
        port.turns.end(turn)
        port.leave(position)
        raise
    port.save(position, live=False)


def _resumed(track: Track, *, by_key: bool) -> Position:
    if not by_key:
        return Position(track.counted, track.done)
    return Position(track.counted, track.done, _unpacked(track.counted_key), _unpacked(track.done_key))


def _is_new(position: Position, row: Row, key: "Key[Row] | None") -> bool:
    """Moves on to `row`; False where it need not be seen again."""
    position.seen += 1
    if key is None:
        return position.seen > position.done
    value = _checked(key(row))
    if position.key is not None and not _after(value, position.key):
        raise BadRequest(f"keys must rise: {value!r} follows {position.key!r}")
    position.key = value
    return position.done_key is None or _after(value, position.done_key)


def _end_row(port: Port, position: Position, turn: Turn) -> None:
    """Counts the row unless it was counted before. Only what has been said moves the position."""
    by_key = position.key is not None
    if by_key:
        fresh = position.counted_key is None or _after(position.key, position.counted_key)
    else:
        fresh = position.seen > position.counted
    if fresh:
        counted = position.counted + 1 if by_key else position.seen
        point = TrackPoint(counted, position.done, _packed(position.key), _packed(position.done_key))
        port.count(point, turn.counts, turn.items)
        position.counted, position.counted_key = counted, position.key
    position.ended, position.ended_key = position.seen, position.key


def _checked(key: object) -> str | int:
    """A key that will be understood again on resume."""
    if isinstance(key, bool) or not isinstance(key, str | int) or len(pack(key)) > MAX_KEY_BYTES:
        raise BadRequest(f"a key is text or a number of at most {MAX_KEY_BYTES} bytes, not {key!r:.80}")
    return key


def _after(one: object, other: object) -> bool:
    try:
        return bool(one > other)  # type: ignore[operator]  # a mixture raises TypeError, answered below
    except TypeError:
        raise BadRequest(f"keys must be of one type: {one!r}, {other!r}") from None


def _packed(key: str | int | None) -> bytes:
    return b"" if key is None else pack(key)


def _unpacked(packed: bytes) -> str | int | None:
    value = unpack(packed) if packed else None
    return value if isinstance(value, str | int) else None
