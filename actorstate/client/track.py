"""`track`: an iterator that resumes. Processing is at least once, counting exactly once.

0 ........ done ........ counted ........ end
  skipped        redone,          processed
                 not counted      and counted
"""

from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

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
    over: bool = False


class Turns:
    """Whose turn it is, per thread and per asyncio task: several may run tracks of one run, and a track lie in another.

    A task that is started within a turn speaks for that row, until its turn is over.
    """

    def begin(self) -> Turn:
        """A row is handed out."""
        turn = Turn()
        _turns.set((*_turns.get(), (self, turn)))
        return turn

    def end(self, turn: Turn) -> None:
        """The loop came back, or was left."""
        turn.over = True
        held = _turns.get()
        if turn in [one for _, one in held]:
            place = [one for _, one in held].index(turn)
            _turns.set(tuple(each for at, each in enumerate(held) if at < place or each[0] is not self))

    def set_outcome(self, counts: Counts, items: tuple[ItemReport, ...]) -> bool:
        """Whether it is the turn of a row here, which now has this outcome."""
        turn = next((one for turns, one in reversed(_turns.get()) if turns is self and not one.over), None)
        if turn is None:
            return False
        turn.counts, turn.items = counts, turn.items + items
        return True


_turns: ContextVar[tuple[tuple[Turns, Turn], ...]] = ContextVar("actorstate_turns", default=())


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


class Steps(Protocol):
    """One loop over rows, step by step: what `in_turns` does at once, an event loop does with others in between."""

    def skips(self, row: object, /) -> bool:
        """Whether the next row need not be seen again."""
        ...

    def heed(self) -> None:
        """Honours pause and cancel before the row; waits."""
        ...

    def begin(self, row: Any, /) -> None:  # noqa: ANN401 - what a row is, only its loop knows
        """The row is handed out."""
        ...

    def end(self) -> bool:
        """The loop came back. Whether it is time to save."""
        ...

    def save(self) -> None:
        """Makes what was done durable; waits."""
        ...

    def leave(self) -> None:
        """The loop was left within a row."""
        ...

    def finish(self) -> None:
        """There are no more rows; waits."""
        ...


def in_turns(steps: Steps, rows: Iterable[Row]) -> Iterator[Row]:
    """The rows that are not skipped, each until its turn is over."""
    try:
        for row in rows:
            if steps.skips(row):
                continue
            steps.heed()
            steps.begin(row)
            yield row
            if steps.end():
                steps.save()
    except BaseException:  # left within a row, or the rows have failed
        steps.leave()
        raise
    steps.finish()


class Course:
    """The steps of a track. Claims the track's name; what else may wait or raise says so."""

    def __init__(self, port: Port, every: int, key: "Key[Any] | None") -> None:
        if every < 1:
            raise BadRequest("every must be at least 1")
        self._port, self._every, self._key = port, every, key
        self._position = _resumed(port.claim(), by_key=key is not None)
        self._saved_at = 0 if key is not None else self._position.done
        self._turn = Turn()

    def skips(self, row: object, /) -> bool:
        """See Steps."""
        return not _is_new(self._position, row, self._key)

    def heed(self) -> None:
        """See Steps."""
        self._port.heed(lambda: self._port.save(self._position, live=True))

    def begin(self, _row: object, /) -> None:
        """See Steps."""
        self._turn = self._port.turns.begin()

    def end(self) -> bool:
        """See Steps: the row is counted."""
        self._port.turns.end(self._turn)
        _end_row(self._port, self._position, self._turn)
        return self._position.ended - self._saved_at >= self._every

    def save(self) -> None:
        """See Steps."""
        self._port.save(self._position, live=True)
        self._saved_at = self._position.ended

    def leave(self) -> None:
        """See Steps."""
        self._port.turns.end(self._turn)
        self._port.leave(self._position)

    def finish(self) -> None:
        """See Steps. Raises BadRequest where there were fewer rows than a former run has done."""
        if self._key is None and self._position.seen < self._position.done:
            self.leave()
            raise BadRequest(
                f"the rows ended after {self._position.seen}, but {self._position.done} were done before: "
                "these are not the rows that the track began with; none was processed or counted",
                hint="give the same rows in the same order, or a key that rises: job.track(rows, key=...)",
            )
        self._port.save(self._position, live=False)


def tracked(port: Port, rows: Iterable[Row], every: int, key: "Key[Row] | None") -> Iterator[Row]:
    """See `Run.track`."""
    yield from in_turns(Course(port, every, key), rows)


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
