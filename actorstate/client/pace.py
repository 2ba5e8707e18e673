"""A worker's share of a throttle: a leaky bucket of rows. No clock in here."""

BURST_S = 0.1
"""What was not used of the limit may be caught up with for this long; the rest is gone."""
LEAST_WAIT_S = 0.02
"""A shorter wait is put off: the debt of a few rows is waited for at once."""


class Pace:
    """Counts the rows of a run (`charge`) and says how long to wait for them."""

    __slots__ = ("_at", "_debt")

    def __init__(self) -> None:
        self._debt, self._at = 0.0, 0.0

    def charge(self, rows: int) -> None:
        """So many more rows."""
        self._debt += rows

    def wait_s(self, now: float, rows_per_s: float | None) -> float:
        """How long to wait at `now` (monotonic) under this limit; 0.0 for not at all. The limit may change any time."""
        if rows_per_s is None:
            self._debt = 0.0
            return 0.0
        self._debt = max(-BURST_S * rows_per_s, self._debt - (now - self._at) * rows_per_s)
        self._at = now
        left_s = self._debt / rows_per_s
        return left_s if left_s >= LEAST_WAIT_S else 0.0
