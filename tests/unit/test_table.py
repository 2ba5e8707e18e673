"""Plain tables: columns stand below one another whatever the ids are, and a list longer than memory begins at once."""

from itertools import count, islice

from actorstate.cli.table import FITTED_ROWS, Table


def test_a_long_id_pushes_its_line_to_the_right() -> None:
    lines = list(Table(("JOB", "STATUS")).lines([("2b173241-4aa7-4a28-a57b-7011b5c0a2f2", "paused"), ("b", "failed")]))
    assert [line.index(word) for line, word in zip(lines, ("STATUS", "paused", "failed"), strict=True)] == [38] * 3
    assert [line.split() for line in lines[2:]] == [["b", "failed"]]


def test_a_value_behind_the_fitted_rows_is_cut() -> None:
    rows = [*[("a", "1")] * FITTED_ROWS, ("long" * 20, "2")]
    assert list(Table(("KEY", "N")).lines(rows))[-1] == "long" * 20 + "  2"


def test_a_heading_stands_over_nothing_or_twice() -> None:
    table = Table(("KEY", "N"))
    assert list(table.lines([])) == []
    assert list(table.lines([("a", "1")])) == ["KEY  N", "a    1"]
    assert list(table.lines([("b", "2")])) == ["b    2"]


def test_a_list_without_end_is_read_to_its_end() -> None:
    assert len(list(islice(Table(("N",)).lines((str(number),) for number in count()), 10_000))) == 10_000
