"""A job's past: `.generations/{id}.jsonl`, one line a change or keyframe, appended before the job's file is replaced.

Each line has its own digest. What stands there beyond the revision of the job's file was never committed.
"""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from actorstate.core import codec
from actorstate.errors import CorruptJob
from actorstate.store.contract import StoredChange
from actorstate.store.jsonfiles.text import body_of, plain_of
from actorstate.store.jsonfiles.words import Plain, plain_object

TAIL_BYTES = 256 * 1024
"""How much of the end is read to see whether the last line belongs to a commit."""


@dataclass(slots=True)
class Past:
    """What can be read of it, by revision; `damaged` says what cannot."""

    changes: dict[int, StoredChange] = field(default_factory=dict[int, StoredChange])
    frames: dict[int, StoredChange] = field(default_factory=dict[int, StoredChange])
    damaged: list[str] = field(default_factory=list[str])

    @property
    def highest(self) -> int:
        """The highest revision in it, 0 if it is empty."""
        return max([*self.changes, *self.frames], default=0)


def past_in(job: str, path: Path) -> Past:
    """All lines that match their digest. A last line without its end was never committed, and is no damage."""
    past = Past()
    content = path.read_bytes() if path.exists() else b""
    *lines, _torn = content.split(b"\n")
    for number, text in enumerate(lines, 1):
        try:
            is_change, stored = _read(job, text)
        except (CorruptJob, KeyError, TypeError, ValueError, RecursionError) as error:
            past.damaged.append(f"line {number} of {path.name} is damaged ({error!r})"[:200])
            continue
        (past.changes if is_change else past.frames)[stored.revision] = stored
    return past


def change_lines(job: str, changes: Iterable[StoredChange]) -> bytes:
    """The lines of these changes."""
    return b"".join(_line(job, "change", change) for change in changes)


def frame_line(job: str, frame: StoredChange) -> bytes:
    """The line of a keyframe."""
    return _line(job, "keyframe", frame)


def lines_of(job: str, past: Past) -> bytes:
    """All of a past, in order: at one revision the change stands before the keyframe."""
    order = sorted([(change.revision, 0, change) for change in past.changes.values()], key=_place)
    order = sorted([*order, *((frame.revision, 1, frame) for frame in past.frames.values())], key=_place)
    return b"".join(_line(job, "keyframe" if kind else "change", stored) for _, kind, stored in order)


def appended(path: Path, lines: bytes) -> int:
    """Appends to the file, on the disk on return; its size before. Raises OSError, and then nothing is added."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    size = os.fstat(descriptor).st_size
    try:
        written = 0
        while written < len(lines):
            written += os.write(descriptor, lines[written:])
        os.fsync(descriptor)
    except BaseException:
        os.ftruncate(descriptor, size)
        raise
    finally:
        os.close(descriptor)
    return size


def ends_at(path: Path) -> tuple[int, bool]:
    """The revision of the last line that can be read near the end, and whether the file ends with a whole line."""
    if not path.exists():
        return 0, True
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - TAIL_BYTES))
        tail = file.read()
    return max(_revisions(tail.split(b"\n")), default=0), not tail or tail.endswith(b"\n")


def _revisions(lines: list[bytes]) -> Iterator[int]:
    for text in lines:
        try:
            revision = plain_object(json.loads(text)).get("revision")
        except (ValueError, RecursionError):
            continue
        if isinstance(revision, int):
            yield revision


def _place(stored: tuple[int, int, StoredChange]) -> tuple[int, int]:
    return stored[0], stored[1]


def _line(job: str, kind: str, stored: StoredChange) -> bytes:
    plain = codec.plain_change if kind == "change" else codec.plain_keyframe
    signed = codec.digest(f"{job}/{kind}", stored.revision, stored.body).hex()
    line = Plain(revision=stored.revision) | {kind: plain_of(stored.body, plain), "digest": signed}
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def _read(job: str, text: bytes) -> tuple[bool, StoredChange]:
    line = plain_object(json.loads(text))
    kind = "change" if "change" in line else "keyframe"
    again = codec.change_of if kind == "change" else codec.keyframe_of
    stored = StoredChange(cast("int", line["revision"]), body_of(plain_object(line[kind]), again))
    if line["digest"] != codec.digest(f"{job}/{kind}", stored.revision, stored.body).hex():
        raise CorruptJob(f"its digest does not match revision {stored.revision}")
    return kind == "change", stored
