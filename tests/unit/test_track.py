"""`tracked` without a writer: every crash at every moment of a small job, tried one by one."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorstate.client.track import Position, Turns, tracked
from actorstate.core.messages.document import Track
from actorstate.core.messages.payload import unpack
from actorstate.core.messages.requests import Counts, ItemReport, TrackPoint
from actorstate.errors import BadRequest

ROWS = 7


class Crash(BaseException):
    """The process is gone: nothing of it runs any more."""


@dataclass
class Stored:
    """What the writer has of one track: its position, and what was counted together with it."""

    track: Track = field(default_factory=Track)
    processed: int = 0
    failed: int = 0
    errors: int = 0

    def apply(self, point: TrackPoint, counts: Counts | None = None, errors: int = 0) -> None:
        """One report, as `core/evolve.py` applies it."""
        before = self.track
        further, saved = point.counted >= before.counted, point.done >= before.done
        self.track = Track(
            max(before.counted, point.counted),
            max(before.done, point.done),
            point.counted_key if further else before.counted_key,
            point.done_key if saved else before.done_key,
        )
        if counts is not None:
            self.processed += counts.succeeded + counts.failed + counts.skipped + counts.duplicates
            self.failed += counts.failed
            self.errors += errors


class Port:
    """A run that keeps what was said until it is saved, and crashes at the `crash_at`-th thing that happens.

    A crash takes what was not sent with it: `sent` says how many of the waiting reports were.
    """

    def __init__(self, stored: Stored, crash_at: int = -1, sent: int = 0) -> None:
        self.turns = Turns()
        self.stored = stored
        self.events: list[str] = []
        self.waiting: list[tuple[TrackPoint, Counts | None, int]] = []
        self.counted: list[Counts] = []
        self.errors: list[int] = []
        self._crash_at, self._sent, self._gone = crash_at, sent, False

    def claim(self) -> Track:
        return self.stored.track

    def count(self, point: TrackPoint, counts: Counts, errors: tuple[ItemReport, ...]) -> None:
        self.happen("count")
        self.waiting.append((point, counts, len(errors)))
        self.counted.append(counts)
        self.errors.append(len(errors))

    def save(self, position: Position, *, live: bool) -> None:
        self.happen("save")
        position.save()
        self.waiting.append((position.point(live=live), None, 0))
        self.happen("said")
        self.flush(len(self.waiting))
        self.happen("saved")

    def leave(self, position: Position) -> None:
        if self._gone:
            return  # a dead process says no last words
        self.events.append("leave")
        position.save()
        self.waiting.append((position.point(live=False), None, 0))
        self.flush(len(self.waiting))

    def heed(self, save: Callable[[], None]) -> None:
        self.happen("heed")

    def flush(self, number: int) -> None:
        for point, counts, errors in self.waiting[:number]:
            self.stored.apply(point, counts, errors)
        del self.waiting[:number]

    def happen(self, name: str) -> None:
        if len(self.events) == self._crash_at:
            self.flush(min(self._sent, len(self.waiting)))
            self._gone = True
            raise Crash
        self.events.append(name)


def work(port: Port, rows: list[int], every: int, *, by_key: bool) -> list[int]:
    """Processes the rows until the end or the crash; every third row fails."""
    seen: list[int] = []
    track = tracked(port, rows, every, (lambda row: row) if by_key else None)
    with suppress(Crash):
        for row in track:
            if row % 3 == 1:
                port.turns.set_outcome(Counts(failed=1), (ItemReport(str(row), "failed", "", "x"),))
            seen.append(row)
    return seen


def check(stored: Stored, seen: list[int], rows: list[int]) -> None:
    failed = sum(row % 3 == 1 for row in rows)
    assert set(seen) == set(rows)
    assert (stored.processed, stored.failed, stored.errors) == (len(rows), failed, failed)


def saved_key(packed: bytes) -> int:
    """The key in a stored position; below all keys where there is none."""
    key = unpack(packed) if packed else -1
    assert isinstance(key, int)
    return key


keyed = pytest.mark.parametrize("by_key", [False, True], ids=["by-position", "by-key"])


@keyed
@pytest.mark.parametrize("every", [1, 2, 3, ROWS, ROWS + 1])
def test_a_crash_anywhere_loses_a_row_or_counts_one_twice(every: int, by_key: bool) -> None:  # noqa: FBT001 - a case
    rows = list(range(10, 10 + ROWS))
    rehearsal = Port(Stored())
    work(rehearsal, rows, every, by_key=by_key)
    cases = 0
    for crash_at in range(len(rehearsal.events)):
        for sent in range(ROWS + 1):
            stored = Stored()
            seen = work(Port(stored, crash_at, sent), rows, every, by_key=by_key)
            seen += work(Port(stored), rows, every, by_key=by_key)
            check(stored, seen, rows)
            cases += 1
    assert cases > 100


@keyed
def test_two_crashes_anywhere_lose_a_row_or_count_one_twice(by_key: bool) -> None:  # noqa: FBT001 - a case
    rows, every = list(range(ROWS)), 2
    for first in range(24):
        for second in range(24):
            for sent in (0, 1, ROWS):
                stored = Stored()
                seen = work(Port(stored, first, sent), rows, every, by_key=by_key)
                seen += work(Port(stored, second, sent), rows, every, by_key=by_key)
                seen += work(Port(stored), rows, every, by_key=by_key)
                check(stored, seen, rows)


@given(
    rows=st.lists(st.integers(0, 60), unique=True, max_size=20).map(sorted),
    every=st.integers(1, 6),
    crashes=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 6)), max_size=4),
)
def test_any_number_of_crashes_loses_a_row_or_counts_one_twice(
    rows: list[int], every: int, crashes: list[tuple[int, int]]
) -> None:
    for by_key in (False, True):
        stored, seen = Stored(), list[int]()
        for crash_at, sent in crashes:
            seen += work(Port(stored, crash_at, sent), rows, every, by_key=by_key)
        seen += work(Port(stored), rows, every, by_key=by_key)
        check(stored, seen, rows)


@given(
    rows=st.lists(st.integers(0, 60), unique=True, min_size=1, max_size=20).map(sorted),
    change=st.sets(st.integers(0, 60), max_size=10),
    crash_at=st.integers(0, 40),
    sent=st.integers(0, 6),
)
def test_rows_that_come_and_go_before_the_position_shift_a_track_by_key(
    rows: list[int], change: set[int], crash_at: int, sent: int
) -> None:
    stored = Stored()
    seen = work(Port(stored, crash_at, sent), rows, 3, by_key=True)
    before = stored.processed
    done, counted = (saved_key(packed) for packed in (stored.track.done_key, stored.track.counted_key))
    changed = sorted(set(rows) ^ {row for row in change if row <= counted})
    again = work(Port(stored), changed, 3, by_key=True)
    assert again == [row for row in changed if row > done]
    assert {row for row in rows if row > counted} <= set(again)
    assert {row for row in rows if row <= counted} <= set(seen)
    assert stored.processed == before + sum(row > counted for row in changed)


@keyed
@pytest.mark.parametrize("left_at", range(ROWS))
@pytest.mark.parametrize("every", [1, 3, 100])
def test_the_row_at_which_the_loop_is_left_is_counted_or_lost(left_at: int, every: int, by_key: bool) -> None:  # noqa: FBT001 - a case
    rows, stored, seen = list(range(ROWS)), Stored(), list[int]()
    for row in tracked(Port(stored), rows, every, (lambda row: row) if by_key else None):
        if row == left_at:
            break
        seen.append(row)
    assert seen == rows[:left_at]
    assert (stored.processed, stored.track.counted, stored.track.done) == (left_at, left_at, left_at)
    again = list(tracked(Port(stored), rows, every, (lambda row: row) if by_key else None))
    assert again == rows[left_at:]
    assert stored.processed == ROWS


def test_the_position_is_saved_at_other_rows_than_every() -> None:
    port = Port(Stored())
    saves: list[int] = []
    for row in tracked(port, range(10), 4, None):
        saves.append(port.events.count("saved"))
        assert row == len(saves) - 1
    assert saves == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]
    assert port.events.count("saved") == 3


def test_a_pause_before_a_row_saves_it_as_done() -> None:
    stored, done = Stored(), list[int]()

    class Pausing(Port):
        def heed(self, save: Callable[[], None]) -> None:
            save()
            done.append(stored.track.done)

    assert list(tracked(Pausing(stored), range(4), 100, None)) == [0, 1, 2, 3]
    assert done == [0, 1, 2, 3]


def test_a_pause_is_heeded_when_a_row_is_only_skipped() -> None:
    stored = Stored(Track(counted=5, done=3))
    port = Port(stored)
    assert list(tracked(port, range(6), 100, None)) == [3, 4, 5]
    assert port.events.count("heed") == 3
    assert stored.processed == 1


@pytest.mark.parametrize("keys", [[2, 1], [1, 1], ["b", "a"], [1, "a"], ["a", 1]], ids=str)
def test_keys_that_do_not_rise_are_taken(keys: list[str | int]) -> None:
    with pytest.raises(BadRequest, match="keys must"):
        list(tracked(Port(Stored()), keys, 100, lambda key: key))


@pytest.mark.parametrize("key", [1.0, b"a", (1, 2), None, True, "k" * 2_000], ids=lambda key: type(key).__name__)
def test_a_key_that_could_not_be_resumed_is_taken(key: int) -> None:
    stored = Stored()
    with pytest.raises(BadRequest, match="key"):
        list(tracked(Port(stored), [key], 100, lambda key: key))
    assert stored.processed == 0


@pytest.mark.parametrize("every", [0, -1])
def test_a_position_that_would_never_be_saved_is_taken(every: int) -> None:
    port = Port(Stored())
    with pytest.raises(BadRequest, match="every"):
        next(tracked(port, range(3), every, None))
    assert port.events == []


def test_rows_are_fetched_before_they_are_wanted() -> None:
    fetched: list[int] = []

    def source() -> Iterator[int]:
        for row in range(3):
            fetched.append(row)
            yield row

    track = tracked(Port(Stored()), source(), 100, None)
    assert fetched == []
    assert (next(track), fetched) == (0, [0])
    assert (next(track), fetched) == (1, [0, 1])


def test_an_outcome_reaches_another_row() -> None:
    port = Port(Stored())
    for row in tracked(port, range(4), 100, None):
        if row == 1:
            assert port.turns.set_outcome(Counts(skipped=1), ())
        if row == 2:
            assert port.turns.set_outcome(Counts(failed=1), ())
            assert port.turns.set_outcome(Counts(duplicates=1), ())
    assert port.counted == [Counts(succeeded=1), Counts(skipped=1), Counts(duplicates=1), Counts(succeeded=1)]
    assert not port.turns.set_outcome(Counts(failed=1), ())


def test_errors_of_one_row_replace_each_other() -> None:
    port = Port(Stored())
    for row in tracked(port, range(2), 100, None):
        for number in range(2 * row):
            port.turns.set_outcome(Counts(failed=1), (ItemReport(str(number), "failed", "", "x"),))
    assert port.errors == [0, 2]


def test_a_stored_position_is_moved_back() -> None:
    stored = Stored(Track(counted=9, done=8))
    position = Position(9, 8)
    position.save()
    assert (position.done, position.counted) == (8, 9)
    assert list(tracked(Port(stored), range(8), 1, None)) == []
    assert (stored.track.counted, stored.track.done) == (9, 8)
