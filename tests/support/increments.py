"""Processes that add to a job, one row at a time; and the way people do it without a writer, for comparison.

Run as `python -m tests.support.increments HOW DIRECTORY COUNT`: reads names of jobs from standard input,
adds COUNT rows to each, and answers each with a line: how many of them were acknowledged.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from actorstate.client.sync import connect
from actorstate.config import ClientSettings

ROOT = Path(__file__).resolve().parents[2]
PATIENT = ClientSettings(timeout_s=60.0, attempt_s=0.2)


@contextmanager
def crew(size: int, how: str, directory: Path, count: int) -> Generator[list["subprocess.Popen[str]"]]:
    """`size` such processes, ready for their first job."""
    command = [sys.executable, "-m", "tests.support.increments", how, str(directory), str(count)]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        for _ in range(size)
    ]
    try:
        for process in processes:
            assert answer_of(process) == "ready"
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def begin(processes: "list[subprocess.Popen[str]]", job: str) -> None:
    """Sets all of them on the job."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(f"{job}\n")
        process.stdin.flush()


def answer_of(process: "subprocess.Popen[str]") -> str:
    """The next line that it says; empty when it has ended."""
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def acknowledged(processes: "list[subprocess.Popen[str]]") -> int:
    """How many rows of the last job they got acknowledged, all together, once they are through."""
    return sum(int(answer_of(process)) for process in processes)


def by_writer(directory: Path, job: str, count: int) -> int:
    """Each row is durable before the next one: so many messages, none of them merged."""
    with connect(directory, settings=PATIENT) as client, client.attach(job) as run:
        for _ in range(count):
            run.progress(succeeded=1)
            run.flush()
        return run.totals.acknowledged


def by_file(directory: Path, job: str, count: int) -> int:
    """Read, modify, write: never torn, thanks to the rename, and still wrong."""
    path, temporary = directory / f"{job}.json", directory / f"{job}.{os.getpid()}.tmp"
    for _ in range(count):
        state = json.loads(path.read_bytes())
        state["processed"] += 1
        temporary.write_text(json.dumps(state))
        temporary.replace(path)
    return count


WAYS: Mapping[str, Callable[[Path, str, int], int]] = {"writer": by_writer, "file": by_file}


def main(how: str, directory: Path, count: int) -> None:
    """Answers each line of standard input with a line."""
    print("ready", flush=True)
    for line in sys.stdin:
        print(WAYS[how](directory, line.strip(), count), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
