"""One reader process: reads the job as fast as it can until its standard input ends, and reports.

    python -m actorstate.demo.reader DIRECTORY INDEX

A line of JSON about four times a second says how many reads there were; the last one is the report.
"""

import json
import select
import sys
import time
from contextlib import closing
from pathlib import Path

from actorstate.client.sync import connect
from actorstate.config import ClientSettings
from actorstate.demo.observer import Observer
from actorstate.demo.options import JOB, Place
from actorstate.errors import ActorStateError

TELL_EVERY_S = 0.25
COUNTED = ("reads", "torn", "backwards", "revived", "failed")
"""What a report counts, beside `seconds` and `longest_s`."""
TIMEOUT_S = 30.0
"""A read that has no answer by then counts as failed; a writer that starts again takes far less."""


def main(place: Place) -> int:
    """Reads until told to stop; returns the exit status."""
    observer = Observer()
    failed, began, told, longest_s = 0, time.monotonic(), 0.0, 0.0
    with closing(connect(place.jobs, settings=ClientSettings(timeout_s=TIMEOUT_S, autostart=False))) as client:
        while not _stopped():
            before = time.monotonic()
            try:
                observer.see(client.get(JOB))
            except ActorStateError as error:
                failed += 1
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            now = time.monotonic()
            longest_s = max(longest_s, now - before)
            if now - told > TELL_EVERY_S:
                told = now
                print(json.dumps({"reads": observer.reads}), flush=True)
    report = {
        "reads": observer.reads,
        "seconds": time.monotonic() - began,
        "longest_s": longest_s,
        "torn": observer.torn,
        "backwards": observer.backwards,
        "revived": observer.revived,
        "failed": failed,
    }
    print(json.dumps(report), flush=True)
    return 0


def _stopped() -> bool:
    """Whether standard input ended: it does when the demo says so, and when the demo is gone."""
    return bool(select.select([sys.stdin], [], [], 0)[0])


if __name__ == "__main__":
    sys.exit(main(Place(Path(sys.argv[1]))))
