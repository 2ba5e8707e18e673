"""A worker process that reports until it is told to stop: `python -m tests.support.reporting DIRECTORY JOB NAME`.

One row each time a byte comes on standard input, a pause of 20 ms at most between two; end of input ends it.
"""

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from actorstate.client.sync import connect
from actorstate.config import ClientSettings

ROOT = Path(__file__).resolve().parents[2]
EVERY_S = 0.02


@contextmanager
def reporting(directory: Path, job: str, workers: int) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """So many workers of the job while the block is open; they leave it at its end."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.reporting", str(directory), job, f"loader-{number}"],
            stdin=subprocess.PIPE,
            env=environment,
        )
        for number in range(workers)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.stdin.close()
        for process in processes:
            try:
                process.wait(30)
            finally:
                process.kill()


def main(directory: str, job: str, name: str) -> None:
    """Reports a row every 20 ms; each tenth has failed."""
    client = connect(directory, autostart=False, settings=ClientSettings(timeout_s=30.0))
    with client.attach(job, worker=name) as run:
        number = 0
        while not select.select([sys.stdin], [], [], EVERY_S)[0]:
            number += 1
            if number % 10:
                run.progress(succeeded=1)
            else:
                run.failed(f"{name}-{number}", ValueError("no e-mail address"), category="validation")


if __name__ == "__main__":
    main(*sys.argv[1:])
