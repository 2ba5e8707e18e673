"""Values under columns as plain lines: for pipes, and for terminals without rich."""

from collections.abc import Iterable, Iterator
from itertools import chain, islice

FITTED_ROWS = 200
"""So many decide how wide the columns are; a longer value behind them pushes the rest of its line to the right, so
that nothing is cut, awk still counts fields, and a list longer than memory is shown as it comes."""


class Table:
    """A heading and a line a row, columns two spaces apart; without rows there is no heading either."""

    def __init__(self, columns: tuple[str, ...]) -> None:
        self._columns = columns
        self._widths: list[int] = []

    def lines(self, rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
        """More lines; the first rows that come are the ones that decide."""
        rest = iter(rows)
        if not self._widths:
            first = list(islice(rest, FITTED_ROWS))
            if not first:
                return
            self._widths = [max(map(len, values)) for values in zip(self._columns, *first, strict=True)]
            rest = chain([self._columns], first, rest)
        for row in rest:
            yield "  ".join(value.ljust(width) for value, width in zip(row, self._widths, strict=True)).rstrip()
