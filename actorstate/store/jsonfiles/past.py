"""A job's past: `.generations/{id}.jsonl`, one line a change or keyframe, appended before the job's file is replaced.

Each line has its own digest. What stands there beyond the revision of the job's file was never committed.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import cast

from actorstate.core import codec
from actorstate.errors import CorruptJob
from actorstate.store.contract import UNDATED, StoredChange
from actorstate.store.jsonfiles.places import replace_durably
from actorstate.store.jsonfiles.text import body_of, plain_of
from actorstate.store.jsonfiles.words import Plain, plain_object

TAIL_BYTES = 256 * 1024
"""How much of the end is read to see whether the last line belongs to a commit."""


@dataclass(slots=True)
class Past:
    """What can be read of it, by revision; `damaged` says what cannot, up to revision `lost` at least."""

    changes: dict[int, StoredChange] = field(default_factory=dict[int, StoredChange])
    frames: dict[int, StoredChange] = field(default_factory=dict[int, StoredChange])
    damaged: list[str] = field(default_factory=list[str])
    lost: int = 0

    @property
    def highest(self) -> int:
        """The highest revision that it tells of, 0 if it is empty."""
        return max([*self.changes, *self.frames, self.lost])

    @property
    def oldest(self) -> int:
        """Where it begins, 0 if it has no changes: after a gap that a keyframe stands for (adopted, repaired)."""
        begun = [one for one in self.changes if one - 1 not in self.changes and {one - 1, one} & self.frames.keys()]
        return max(begun, default=min(self.changes, default=0))

    def in_order(self) -> list[StoredChange]:
        """The changes by revision."""
        return [self.changes[revision] for revision in sorted(self.changes)]

    def rebuildable(self) -> "Past":
        """Without changes that nothing leads to: those after a damaged one, up to the next keyframe."""
        kept: dict[int, StoredChange] = {}
        for revision in sorted(self.changes):
            if revision == 1 or {revision - 1, revision} & self.frames.keys() or revision - 1 in kept:
                kept[revision] = self.changes[revision]
        return Past(kept, self.frames)

    def after_stretch(self, keep_from: int, before: datetime) -> "Past | None":
        """What is kept when the oldest stretch is forgotten; None where it must stay (see `Store.prune`)."""
        oldest = min(self.changes, default=0)
        later = sorted(revision for revision in self.frames if revision > oldest)
        if not oldest or len(later) < 2:  # noqa: PLR2004 - the next one, and the newest
            return None
        begin = later[0]
        if begin > keep_from and any(
            change.at >= before for change in self.changes.values() if change.revision < begin
        ):
            return None
        changes = {revision: change for revision, change in self.changes.items() if revision >= begin}
        return Past(changes, {revision: self.frames[revision] for revision in later})


def past_in(job: str, path: Path) -> Past:
    """All lines that match their digest. A last line without its end was never committed, and is no damage."""
    past = Past()
    content = path.read_bytes() if path.exists() else b""
    *lines, _torn = content.split(b"\n")
    for number, text in enumerate(lines, 1):
        try:
            is_change, stored = _read(job, text)
        except (CorruptJob, KeyError, TypeError, ValueError, RecursionError) as error:
            past.lost = max(past.lost, _revision(text) or past.highest + 1)
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


def past_lines(job: str, past: Past) -> bytes:
    """All of a past, in order: at one revision the change stands before the keyframe."""
    changes = [(change.revision, "change", change) for change in past.changes.values()]
    frames = [(frame.revision, "keyframe", frame) for frame in past.frames.values()]
    return b"".join(_line(job, kind, each) for _, kind, each in sorted(changes + frames, key=lambda line: line[:2]))


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


def cut_after(path: Path, revision: int) -> None:
    """Removes what a killed commit has appended: lines above the revision, and a last one without its end.

    Damaged lines stay. Raises OSError.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - TAIL_BYTES))
        tail = file.read()
    if tail.endswith(b"\n") and max(map(_revision, tail.split(b"\n"))) <= revision:
        return
    kept = [text for text in path.read_bytes().split(b"\n")[:-1] if _revision(text) <= revision]
    replace_durably(path, b"".join(text + b"\n" for text in kept))


def _revision(text: bytes) -> int:
    """What a line says of its revision; 0 when it cannot be read."""
    try:
        revision = plain_object(json.loads(text)).get("revision")
    except (ValueError, RecursionError):
        return 0
    return revision if isinstance(revision, int) else 0


def _line(job: str, kind: str, stored: StoredChange) -> bytes:
    plain = codec.plain_change if kind == "change" else codec.plain_keyframe
    line = Plain(revision=stored.revision, at=stored.at.isoformat()) | {kind: plain_of(stored.body, plain)}
    return json.dumps(line | {"digest": _sign(job, kind, stored)}, separators=(",", ":")).encode() + b"\n"


def _read(job: str, text: bytes) -> tuple[bool, StoredChange]:
    line = plain_object(json.loads(text))
    kind = "change" if "change" in line else "keyframe"
    again = codec.change_of if kind == "change" else codec.keyframe_of
    at = datetime.fromisoformat(cast("str", line["at"]))
    stored = StoredChange(cast("int", line["revision"]), body_of(plain_object(line[kind]), again), at)
    if line["digest"] != _sign(job, kind, stored):
        raise CorruptJob(f"its digest does not match revision {stored.revision}")
    return kind == "change", stored


def _sign(job: str, kind: str, stored: StoredChange) -> str:
    at = (stored.at - UNDATED) // timedelta(microseconds=1)
    return codec.digest(f"{job}/{kind}", stored.revision, stored.body, at).hex()
