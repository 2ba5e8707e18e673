"""Findings of `doctor`, and small looks at processes, owners and sizes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from actorstate.cli.views import clean
from actorstate.endpoint import user_name

MAX_COMMAND = 100


@dataclass(frozen=True, slots=True)
class Finding:
    """What one examination found; `next` is what to type when it is wrong, `facts` is for machines."""

    name: str
    level: Literal["ok", "note", "wrong"]
    message: str
    next: str = ""
    facts: dict[str, object] = field(default_factory=dict[str, object])

    def text(self) -> str:
        """One line, and a second one with what to type next."""
        mark = "WRONG" if self.level == "wrong" else self.level
        first = f"{mark:<5}  {self.name:<11}  {clean(self.message)}"
        return f"{first}\n{'':<20}{self.next}" if self.next else first


def ok(name: str, message: str, facts: dict[str, object] | None = None) -> Finding:
    """All is as it should be."""
    return Finding(name, "ok", message, "", facts or {})


def note(name: str, message: str) -> Finding:
    """Worth knowing, and no reason to act."""
    return Finding(name, "note", message)


def wrong(name: str, message: str, step: str = "") -> Finding:
    """To be mended; `step` is what to type."""
    return Finding(name, "wrong", message, step)


def owner(path: Path) -> str:
    """The name of the owner; root may see the rest."""
    try:
        return user_name(path.stat().st_uid)
    except OSError:
        return "root"


def process_state(pid: int) -> str:
    """The letter of /proc/PID/stat (T is stopped), empty when there is no such process to be seen."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def process_line(pid: int) -> str:
    """The command line of a process, as far as it may be read."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        return " ".join(words)[:MAX_COMMAND].strip()
    except OSError:
        return "its command line may not be read"


def size(count: float) -> str:
    """Bytes in the largest unit that leaves a number above one."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:  # noqa: PLR2004 - what the units are made of
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
