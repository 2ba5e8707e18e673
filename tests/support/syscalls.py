"""System calls of a function in a forked process, as strace sees them: listed, made to fail, or killed at.

The process waits until strace has it, so that counting begins where the function begins, and no Python has to
be started for each case.
"""

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import forked, joined

CHANGING = (
    "write", "pwrite64", "fsync", "fdatasync", "rename", "link", "unlink", "mkdir", "rmdir", "ftruncate", "chmod",
    "chown", "utimensat", "sendfile", "copy_file_range", "symlink",
)  # fmt: skip
"""What changes files, as Python and SQLite ask for it here."""
PLACE = re.compile(r'"([^"]+)"|<([^>]+)>')


@dataclass(frozen=True)
class Hit:
    """One system call: its name, how many of that name came before it, and on which kind of file."""

    call: str
    number: int
    role: str


def traced(work: Callable[[], object], log: Path, *options: str) -> int:
    """Does `work` in a forked process under strace; its exit code, minus the signal that ended it."""
    wait, go = os.pipe()

    def child() -> None:
        os.read(wait, 1)
        work()

    pid = forked(child)
    line = ["strace", "-y", "-o", str(log), *options, "-p", str(pid)]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr is not None
        told = tracer.stderr.readline()
        os.write(go, b"!")
        os.close(wait)
        os.close(go)
        code = joined(pid)
    assert "attached" in told, told
    return code


def hits(work: Callable[[], object], below: Path, log: Path) -> Iterator[Hit]:
    """The file-changing calls below a folder that `work` makes, in order."""
    assert traced(work, log, "-e", f"trace={','.join(CHANGING)}") == 0
    counts: dict[str, int] = {}
    for line in log.read_text().splitlines():
        found = re.match(r"(\w+)\((.*)", line)
        if found is None:
            continue
        call = found[1]
        counts[call] = counts.get(call, 0) + 1
        places = [one or other for one, other in PLACE.findall(found[2])]
        named = [place.removeprefix(str(below)) for place in places if place.startswith(str(below))]
        if named:
            yield Hit(call, counts[call], re.sub(r"\d+(?=\.(?:tmp|png))", "N", named[0]))


def injected(work: Callable[[], object], log: Path, hit: Hit, fault: str) -> int:
    """Does `work` with this fault (`error=EIO`, `signal=KILL`) at the call, which happened; its exit code."""
    code = traced(work, log, "-e", f"trace={hit.call}", "-e", f"inject={hit.call}:{fault}:when={hit.number}")
    assert re.search("INJECTED|killed by", log.read_text()), hit
    return code
