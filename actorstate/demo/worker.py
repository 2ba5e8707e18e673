"""One worker process: copies its share of the rows under the demo's job, and reports what it counted.

    python -m actorstate.demo.worker DIRECTORY INDEX WORKERS SECONDS

Before its last row it prints `held` and waits for a line on standard input; the end of the input ends it.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from actorstate.client.sync import connect
from actorstate.config import ClientSettings
from actorstate.demo.cargo import opened_source, shares, wanted_groups
from actorstate.demo.options import JOB, Place
from actorstate.migrate.rowcopy import Group, Part, Range, Row, RowSource, copy_part
from actorstate.migrate.sqlitefiles.rows import SqliteTarget

SAVES = 100
"""About how often a worker saves its position, whatever the number of rows."""
MAX_EVERY = 500
TIMEOUT_S = 30.0
"""How long a save waits for a writer that was killed to be back."""
_LEAD_S = 0.005
"""A row is not waited for when it is due this soon: fewer, longer pauses."""


class Paced:
    """A source whose `items` come evenly over `seconds`, the last of them when `hold` has returned."""

    def __init__(self, source: RowSource, items: int, seconds: float, hold: Callable[[], None]) -> None:
        self._source, self._items, self._hold = source, items, hold
        self._interval_s = seconds / max(1, items)
        self._began = 0.0
        self._given = 0

    def groups(self) -> Sequence[Group]:
        """Those of the source."""
        return self._source.groups()

    def items(self, wanted: Range) -> Iterator[Row]:
        """Those of the source, each when it is due; one that is late is not waited for."""
        for item in self._source.items(wanted):
            self._wait_turn()
            yield item

    def _wait_turn(self) -> None:
        self._began = self._began or time.monotonic()
        self._given += 1
        if self._given == self._items:
            self._hold()
        early_s = self._began + self._given * self._interval_s - time.monotonic()
        if early_s > _LEAD_S:
            time.sleep(early_s)


def main(place: Place, index: int, workers: int, seconds: float) -> int:
    """Copies the share number `index` and prints the report; returns the exit status."""
    with (
        closing(connect(place.jobs, settings=ClientSettings(timeout_s=TIMEOUT_S, autostart=False))) as client,
        opened_source(place) as source,
        SqliteTarget(place.target) as target,
    ):
        parts: Sequence[Part] = shares(wanted_groups(source, place), workers)[index]
        items = sum(part.items for part in parts)
        paced = Paced(source, items, seconds, _wait_for_leave)
        with client.attach(JOB, worker=f"worker-{index + 1}") as run:
            for part in parts:
                copy_part(run, paced, target, part, every=min(MAX_EVERY, max(1, items // SAVES)))
            run.flush()
            totals = run.totals
    print(json.dumps({"sent": totals.sent, "acknowledged": totals.acknowledged}), flush=True)
    return 0


def _wait_for_leave() -> None:
    print(json.dumps({"held": True}), flush=True)
    if not sys.stdin.readline():
        raise SystemExit("the demo is gone")


if __name__ == "__main__":
    sys.exit(main(Place(Path(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
