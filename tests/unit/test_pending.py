"""What a worker has said is merged: nothing is lost, nothing doubled, and no report is over its limits."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorstate.client.pending import (
    FULL_ITEM_BYTES,
    FULL_ITEMS,
    MAX_NAMES,
    MAX_REPORT_BYTES,
    MAX_STEPS,
    Book,
    Pending,
    counts_alone,
    rows_of,
)
from actorstate.client.track import MAX_KEY_BYTES
from actorstate.client.words import chunked
from actorstate.config import WriterSettings
from actorstate.core import codec
from actorstate.core.messages.requests import Counts, ItemReport, Report, Request, StepReport, TrackPoint

Say = Callable[[Pending], None]


def counting(counts: Counts) -> Say:
    return lambda pending: pending.add_counts(counts)


def failing(number: int) -> Say:
    def put(pending: Pending) -> None:
        pending.add_counts(Counts(failed=1, by_category={f"category-{number}": 1}))
        pending.add_items([ItemReport(str(number), "failed", f"category-{number}", "does not parse")])

    return put


def naming(what: str, name: str, value: bytes) -> Say:
    return lambda pending: getattr(pending, what).__setitem__(name, value)


def stepping(name: str, data: bytes = b"") -> Say:
    return lambda pending: pending.steps.append(StepReport(name, "done", data))


def tracking(name: str, counted: int) -> Say:
    return lambda pending: pending.tracks.__setitem__(name, TrackPoint(counted, 0))


def by_key(name: str) -> Say:
    """A track whose keys are as long as they may be."""
    point = TrackPoint(1, 1, b"k" * MAX_KEY_BYTES, b"k" * MAX_KEY_BYTES)
    return lambda pending: pending.tracks.__setitem__(name, point)


def full_of_items(text: str) -> Say:
    """A piece as large as they come, after one that almost fills its report; keys as long as they may be."""
    item = ItemReport("𝄞" * 256, "failed", "𝄞" * 128, text)
    first, second = next(chunked([item] * 500)), next(chunked([item] * 500))
    return lambda pending: pending.add_items(first + second)


def throttling(seconds: float) -> Say:
    def put(pending: Pending) -> None:
        pending.throttled_s += seconds
        pending.throttles += 1

    return put


def said(book: Book, *pieces: Say) -> Book:
    """The book with these pieces in it, merged."""
    book.pieces.extend(pieces)
    return book.merged()


def taken(book: Book) -> list[Report]:
    """All reports that it takes until nothing is left."""
    reports: list[Report] = []
    while book.anything:
        reports.append(book.take("job", "w", 1))
        assert len(reports) < 1_000, "it never comes to an end"
    return reports


def in_order(reports: list[Report]) -> dict[str, object]:
    """What a writer makes of them: sums, newest values, everything in order."""
    counts = [report.counts for report in reports if report.counts is not None]
    categories: dict[str, int] = {}
    for each in counts:
        for category, number in each.by_category.items():
            categories[category] = categories.get(category, 0) + number
    merged: dict[str, object] = {
        name: sum(getattr(each, name) for each in counts)
        for name in ("succeeded", "failed", "skipped", "duplicates", "bytes")
    }
    for what in ("tracks", "checkpoints", "meta"):
        values: dict[str, object] = {}
        for report in reports:
            values |= getattr(report, what)
        merged[what] = values
    merged["by_category"] = sum(categories.values())
    merged["steps"] = [step.name for report in reports for step in report.steps]
    merged["throttled_s"] = sum(report.throttled_s for report in reports)
    merged["throttles"] = sum(report.throttles for report in reports)
    merged["items"] = [item.key for report in reports for item in report.items]
    return merged


small = st.integers(0, 5)
pieces = st.one_of(
    st.builds(Counts, small, small, small, small, small, st.dictionaries(st.sampled_from("abc"), small)).map(counting),
    st.integers(0, 200).map(failing),
    st.builds(naming, st.sampled_from(["checkpoints", "meta"]), st.sampled_from("abcdef"), st.binary(max_size=9)),
    st.text("xyz", min_size=1, max_size=3).map(stepping),
    st.builds(tracking, st.sampled_from("abc"), st.integers(0, 99)),
    st.sampled_from([0.25, 0.5]).map(throttling),
)


@given(st.lists(st.lists(pieces, max_size=30), max_size=8))
def test_what_is_said_between_reports_is_lost_or_doubled(rounds: list[list[Say]]) -> None:
    """Reports taken at any moment say the same, all together, as one report of everything."""
    now_and_then, at_once = Book(), Book()
    reports: list[Report] = []
    for put in rounds:
        now_and_then = said(now_and_then, *put)
        at_once = said(at_once, *put)
        if now_and_then.anything:
            reports.append(now_and_then.take("job", "w", 1))
    reports += taken(now_and_then)
    assert in_order(reports) == in_order(taken(at_once))


@given(st.lists(pieces, max_size=30))
def test_merging_early_changes_what_is_said(puts: list[Say]) -> None:
    piecemeal = Book()
    for put in puts:
        piecemeal = said(piecemeal, put)
    assert taken(piecemeal) == taken(said(Book(), *puts))


def test_a_signal_while_merging_changes_the_book() -> None:
    """A piece raises: the book is as it was, and merging it again says everything once."""
    interrupted = [True]

    def interrupt(pending: Pending) -> None:
        pending.add_counts(Counts(succeeded=1))
        if interrupted.pop() if interrupted else False:
            raise KeyboardInterrupt

    book = Book()
    book.pieces += [counting(Counts(succeeded=1)), naming("meta", "a", b"1"), failing(1), interrupt, stepping("s")]
    with pytest.raises(KeyboardInterrupt):
        book.merged()
    [report] = taken(book.merged())
    assert report.counts == Counts(succeeded=2, failed=1, by_category={"category-1": 1})
    assert (len(report.items), report.meta, len(report.steps)) == (1, {"a": b"1"}, 1)


def test_an_empty_report_has_something_to_say() -> None:
    assert taken(Book()) == []
    book = said(Book(), counting(Counts()))
    assert len(taken(book)) == 1
    assert taken(book) == []


@pytest.mark.parametrize("what", ["checkpoints", "meta"])
def test_names_beyond_a_report_are_lost(what: str) -> None:
    names = [f"name-{number}" for number in range(3 * MAX_NAMES + 1)]
    reports = taken(said(Book(), *(naming(what, name, b"x") for name in names)))
    assert [name for report in reports for name in getattr(report, what)] == names
    assert max(len(getattr(report, what)) for report in reports) == MAX_NAMES


def test_steps_beyond_a_report_are_lost_or_out_of_order() -> None:
    names = [f"step-{number}" for number in range(2 * MAX_STEPS + 1)]
    reports = taken(said(Book(), *map(stepping, names)))
    assert [step.name for report in reports for step in report.steps] == names
    assert max(len(report.steps) for report in reports) == MAX_STEPS


def test_counts_wait_for_the_last_of_many_reports() -> None:
    puts = [naming("meta", f"name-{number}", b"x") for number in range(200)]
    first, *others = taken(said(Book(), *puts, counting(Counts(succeeded=7)), throttling(1.0)))
    assert first.counts == Counts(succeeded=7)
    assert all(report.counts is None and not report.throttles for report in others)


@pytest.mark.parametrize("what", ["checkpoints", "meta", "steps"])
def test_a_report_is_larger_than_a_frame_may_be(what: str) -> None:
    data = b"x" * (256 * 1024)
    puts = [stepping(f"s-{n}", data) if what == "steps" else naming(what, f"n-{n}", data) for n in range(40)]
    reports = taken(said(Book(), *puts))
    assert sum(len(getattr(report, what)) for report in reports) == 40
    for report in reports:
        assert len(codec.encode(Request(1, report))) < WriterSettings().max_frame_bytes


def test_a_full_report_is_larger_than_a_frame_may_be() -> None:
    data, text = b"x" * (MAX_REPORT_BYTES // 4), "𝄞" * 2_000
    puts: list[Say] = []
    for number in range(40):
        puts += [naming("checkpoints", f"{number}", data), naming("meta", f"{number}", data), stepping("s", data)]
    puts += [full_of_items(text), *(by_key(f"track-{number}") for number in range(1_000))]
    for report in taken(said(Book(), *puts)):
        assert len(codec.encode(Request(1, report))) < WriterSettings().max_frame_bytes


def test_categories_beyond_the_limit_are_not_counted() -> None:
    puts = [counting(Counts(failed=1, by_category={f"category-{number}": 1})) for number in range(3 * MAX_NAMES)]
    [report] = taken(said(Book(), *puts))
    assert report.counts is not None
    assert len(report.counts.by_category) == MAX_NAMES
    assert sum(report.counts.by_category.values()) == report.counts.failed == 3 * MAX_NAMES
    assert report.counts.by_category["other"] == 2 * MAX_NAMES + 1


def test_items_beyond_a_report_are_lost_or_doubled() -> None:
    reports = taken(said(Book(), *map(failing, range(3 * FULL_ITEMS + 1))))
    assert [item.key for report in reports for item in report.items] == [str(n) for n in range(3 * FULL_ITEMS + 1)]
    assert max(len(report.items) for report in reports) == FULL_ITEMS


def test_items_are_stored_without_what_they_count_for() -> None:
    """However they are cut into reports, each one counts its own items, and its position is behind them."""

    def tracked(number: int) -> Say:
        def put(pending: Pending) -> None:
            failing(number)(pending)
            pending.tracks["t"] = TrackPoint(number + 1, 0)

        return put

    said_so_far = 0
    for report in taken(said(Book(), *map(tracked, range(2 * FULL_ITEMS + 7)))):
        said_so_far += len(report.items)
        assert report.counts is not None
        assert report.counts.failed == len(report.items) == rows_of(report)
        assert report.tracks == {"t": TrackPoint(said_so_far, 0)}
    assert said_so_far == 2 * FULL_ITEMS + 7


def test_what_is_said_after_many_items_overtakes_them() -> None:
    many = [failing(number) for number in range(FULL_ITEMS)]
    first, second = taken(said(Book(), *many, naming("checkpoints", "default", b"1"), counting(Counts(succeeded=1))))
    assert (len(first.items), first.checkpoints) == (FULL_ITEMS, {})
    assert (second.items, second.checkpoints) == ((), {"default": b"1"})


def test_long_errors_make_a_message_as_large_as_they_are() -> None:
    text = "x" * 2_000
    puts: list[Say] = [lambda pending: pending.add_items([ItemReport("k", "failed", "c", text)])] * 200
    reports = taken(said(Book(), *puts))
    assert sum(len(report.items) for report in reports) == 200
    assert max(len(codec.encode(report)) for report in reports) < 2 * FULL_ITEM_BYTES


def test_a_retried_item_is_counted_by_its_sender_as_well() -> None:
    items = [ItemReport("a", "succeeded", retried=True), ItemReport("b", "failed")]
    [report] = taken(said(Book(), lambda pending: pending.add_items(items), counting(Counts(failed=1))))
    assert rows_of(report) == 2


def test_the_newest_value_of_a_name_is_overtaken_by_an_older_one() -> None:
    puts = [naming("checkpoints", "default", b"%d" % number) for number in range(5)]
    [report] = taken(said(Book(), *puts, tracking("t", 3), tracking("t", 9)))
    assert report.checkpoints == {"default": b"4"}
    assert report.tracks == {"t": TrackPoint(9, 0)}


def test_a_value_said_after_it_was_taken_is_lost() -> None:
    book = said(Book(), naming("meta", "a", b"1"))
    first = book.take("job", "w", 1)
    book = said(book, naming("meta", "a", b"2"))
    assert (first.meta, taken(book)[0].meta) == ({"a": b"1"}, {"a": b"2"})


def test_counts_are_dropped_with_data_that_is_too_large() -> None:
    puts = [failing(1), naming("meta", "a", b"1"), naming("checkpoints", "b", b"2"), stepping("s"), tracking("t", 1)]
    [report] = taken(said(Book(), *puts, throttling(1.0)))
    alone = counts_alone(report)
    assert (alone.checkpoints, alone.meta, alone.steps) == ({}, {}, ())
    for field in (
        "job",
        "worker",
        "incarnation",
        "counts",
        "tracks",
        "items",
        "throttled_s",
        "throttles",
    ):
        assert getattr(alone, field) == getattr(report, field)
