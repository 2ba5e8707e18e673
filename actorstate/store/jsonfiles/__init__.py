"""The JSON store: one readable file a job, in the shape of the older tool (`json:///dir`).

For compatibility and for people with jq. Each commit writes each of its jobs whole, by itself:

    stage     the past is appended; new contents of the job's file and its second copy lie beside them, all synced
    publish   the files are renamed, then the second copies; each folder is synced once a commit

A full disk shows while staging, and everything is taken back: nothing was written. A writer killed while
publishing leaves some jobs of a batch before it and some after: nobody was told, and resends find either.
The whole of a job is in its file, so that the group commit of SQLite (laws 2 and 8) does not hold here.

Who may do that is in `fence.py`, what a start finds in `recovery.py`, what a file says in `text.py`.
"""

import bisect
import contextlib
import threading
import time
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from actorstate import telemetry
from actorstate.errors import CorruptJob, DiskFull, EpochFenced, ForeignEdit
from actorstate.store.contract import (
    IndexRow,
    ItemQuery,
    JobCommit,
    JobQuery,
    StoredChange,
    StoredItem,
    StoredJob,
    counted,
    matches,
)
from actorstate.store.files import sync_folder
from actorstate.store.jsonfiles.fence import Fence
from actorstate.store.jsonfiles.find import is_stranger
from actorstate.store.jsonfiles.ledger import Ledger, item_lines, ledger_in
from actorstate.store.jsonfiles.past import Past, change_lines, frame_line, past_in, past_lines
from actorstate.store.jsonfiles.places import Places, Print, content_of, keep_aside, print_of, replace_durably, typed
from actorstate.store.jsonfiles.recovery import RETRYING, read_job, recover_job
from actorstate.store.jsonfiles.text import Held, held_in, last_words, parsed, text_of
from actorstate.store.jsonfiles.writing import Write, publish, stage_all

MAX_LEDGERS = 16
"""Item ledgers in memory; the one used longest ago leaves first, and is read again when it is needed."""
RETRY_MS = (50, 100, 200, 400, 800)
"""A file that cannot be parsed may be half-written by the older tool: it gets so many further looks."""
UNKNOWN_BYTES = 2**62
"""After a start nobody knows how far the last keyframe of the past is away: the next commit writes one."""


@dataclass(slots=True)
class _Entry:
    """What memory holds of a job; `refused` is why it cannot be read."""

    index: IndexRow
    revision: int
    deleted: bool = False
    seen: Print | None = None
    unframed: int = UNKNOWN_BYTES
    refused: CorruptJob | None = None


class JsonStore:
    """See the head of this module, and `contract.Store` for what is promised of each job by itself."""

    whole = True

    def __init__(self, directory: Path) -> None:
        self._directory, self._places = directory, Places(directory)
        self._fence = Fence(directory)
        self._entries: dict[str, _Entry] = {}
        self._ids: list[str] = []
        self._ledgers: dict[str, Ledger] = {}
        self._lock = threading.RLock()
        self.sync_s = 0.0

    def open(self) -> None:
        """See Store. Adopts the older tool's files, and recovers damaged ones (at most 1.6 s of further looks)."""
        with self._typed(), self._fence.held():
            self._places.prepare()
            self._fence.epoch()
            waiting = {job: error for job in self._places.jobs() if (error := self._open_job(job)) is not None}
            for attempt, wait_ms in enumerate(RETRY_MS, 1):
                if not waiting:
                    break
                for job in waiting:
                    telemetry.event("store.read_retried", message=RETRYING, job=job, attempt=attempt, wait_ms=wait_ms)
                time.sleep(wait_ms / 1000)
                waiting = {job: error for job in waiting if (error := self._open_job(job)) is not None}
            for job, error in waiting.items():
                self._recover(job, error)
            self._bury_and_find_lost()
            for folder in self._places.folders:
                sync_folder(folder)
        self._ids = sorted(self._entries)

    def epoch(self) -> int:
        """See Store."""
        with self._typed():
            return self._fence.epoch()

    def set_epoch(self, epoch: int) -> None:
        """See Store."""
        with self._typed(), self._fence.held():
            self._fence.write(epoch)

    def commit(self, epoch: int, batch: Sequence[JobCommit]) -> None:
        """See Store; of several jobs each becomes durable by itself."""
        with self._typed(), self._lock, self._fence.held(wait_s=0.0):
            self._check(epoch)
            started = time.perf_counter()
            if batch:
                writes = [self._write_of(part) for part in batch]
                for write in writes:
                    self._keep_foreign(write.held.job)
                publish(self._places, stage_all(writes))
                for write in writes:
                    self._confirm(write)
            else:
                self._fence.write(epoch)
            self.sync_s = time.perf_counter() - started

    def load(self, job: str) -> StoredJob | None:
        """See Store. Raises ForeignEdit for a file that somebody else wrote."""
        with self._typed(), self._lock:
            entry = self._entries.get(job)
            if entry is None:
                return None
            held = self._held(job, entry)
        return StoredJob(held.keyframe.body if held.keyframe else None, tuple(change.body for change in held.since))

    def changes(self, job: str, after_revision: int, limit: int) -> list[StoredChange]:
        """See Store."""
        past, revision = self._past(job)
        page = [change for change in past.in_order() if after_revision < change.revision <= revision]
        return page if limit < 0 else page[:limit]

    def keyframe_at(self, job: str, revision: int) -> StoredChange | None:
        """See Store."""
        past, _ = self._past(job, with_newest=True)
        found = [frame for frame in past.frames if frame <= revision]
        return StoredChange(max(found), past.frames[max(found)].body) if found else None

    def oldest(self, job: str) -> int:
        """See Store."""
        return self._past(job)[0].oldest

    def revision_at(self, job: str, at: datetime) -> int:
        """See Store."""
        past, revision = self._past(job)
        return max((found for found, made in past.changes.items() if made.at <= at and found <= revision), default=0)

    def prune(self, epoch: int, job: str, keep: int, before: datetime) -> int:
        """See Store. A past that is damaged is kept whole."""
        with self._typed(), self._lock, self._fence.held(wait_s=0.0):
            self._check(epoch)
            past, revision = self._past(job, with_newest=True)
            kept = past.after_stretch(revision - keep + 1, before)
            if kept is None:
                return 0
            replace_durably(self._places.past(job), past_lines(job, kept))
        return len(past.changes) - len(kept.changes)

    def list_jobs(self, query: JobQuery) -> list[str]:
        """See Store."""
        with self._lock:
            if query.newest:
                return self._newest(query)
            ids, found = self._ids, list[str]()
            for job in ids[bisect.bisect_right(ids, query.after) :]:
                if len(found) == query.limit:
                    break
                entry = self._entries[job]
                if not entry.deleted and matches(entry.index, query):
                    found.append(job)
        return found

    def count_jobs(self) -> tuple[Counter[str], Counter[str]]:
        """See Store."""
        with self._lock:
            rows = [entry.index for entry in self._entries.values() if not entry.deleted]
        return counted((row.status, row.health, 1) for row in rows)

    def size_bytes(self) -> int:
        """See Store. Each job's file as it was when it was written, and its second copy."""
        with self._lock:
            return 2 * sum(entry.seen[2] for entry in self._entries.values() if entry.seen)

    def find_items(self, job: str, keys: Sequence[str]) -> dict[str, bytes]:
        """See Store."""
        with self._typed(), self._lock:
            return self._ledger(job).find(job, keys)

    def list_items(self, job: str, query: ItemQuery) -> list[StoredItem]:
        """See Store."""
        with self._typed(), self._lock:
            return self._ledger(job).page(query)

    def rest(self) -> None:
        """Writes ledgers anew that consist mostly of what is outdated. A full disk only puts it off."""
        with contextlib.suppress(DiskFull), self._typed(), self._lock:
            for job, ledger in self._ledgers.items():
                if ledger.outgrown:
                    lines = item_lines(job, self._entries[job].revision, ledger.items.values())
                    replace_durably(self._places.ledger(job), lines)
                    ledger.lines = len(ledger.items)

    def close(self) -> None:
        """See Store."""

    def _past(self, job: str, *, with_newest: bool = False) -> tuple[Past, int]:
        with self._typed(), self._lock:
            entry = self._entries.get(job)
            if entry is None or entry.deleted:
                return Past(), 0
            past = past_in(job, self._places.past(job))
            newest = self._held(job, entry).keyframe if with_newest else None
        if past.damaged:
            raise CorruptJob(f"job {job!r}: {past.damaged[0]}", job=job)
        if newest is not None:
            past.frames[newest.revision] = newest
        return past, entry.revision

    def _newest(self, query: JobQuery) -> list[str]:
        ages = {job: (entry.index.created_at, job) for job, entry in self._entries.items()}
        last = ages.get(query.after, (0.0, ""))
        fits = [
            job
            for job, entry in self._entries.items()
            if not entry.deleted and matches(entry.index, query) and (not query.after or ages[job] < last)
        ]
        return sorted(fits, key=ages.__getitem__, reverse=True)[: query.limit]

    def _ledger(self, job: str) -> Ledger:
        """The job's ledger, read if need be; the one that was used longest ago leaves memory."""
        entry = self._entries.get(job)
        if entry is None or entry.deleted:
            return Ledger()
        ledger = self._ledgers.pop(job, None) or ledger_in(job, self._places.ledger(job))
        self._ledgers[job] = ledger
        if len(self._ledgers) > MAX_LEDGERS:
            del self._ledgers[next(iter(self._ledgers))]
        return ledger

    def _check(self, epoch: int) -> None:
        if self._fence.epoch() != epoch:
            raise EpochFenced(f"another writer has taken {self._directory} over from epoch {epoch}")

    def _open_job(self, job: str) -> CorruptJob | None:
        """Takes a job up; returns what is wrong with a file that cannot be parsed (yet)."""
        path = self._places.main(job)
        content = content_of(path)
        if content is None:
            return None
        if is_stranger(self._places, job, content):
            self._leave(job, path)
            return None
        try:
            held = read_job(self._places, job, content)
        except ForeignEdit as error:
            telemetry.event("store.foreign_edit", job=job, path=str(path), error=error)
            revision, index = last_words(parsed(content))
            self._entries[job] = _Entry(index, revision, refused=error)
            return None
        except CorruptJob as error:
            return error
        self._take(held)
        return None

    def _leave(self, job: str, path: Path) -> None:
        """Somebody else's file is no job, and none of that name is begun over it."""
        telemetry.event("store.stranger_left", job=job, path=str(path))
        hint = f"give the job another id, or move {path} away and start the writer again"
        refused = ForeignEdit(f"{path} is no file of a job; it was left as it is", hint=hint, job=job)
        self._entries[job] = _Entry(IndexRow("", "", ""), 0, deleted=True, refused=refused)

    def _take(self, held: Held) -> None:
        self._entries[held.job] = _Entry(held.index, held.revision, held.deleted, print_of(self._places.main(held.job)))

    def _recover(self, job: str, error: CorruptJob) -> None:
        """Brings a damaged job back, or keeps it listed and refused: it is never simply not found."""
        try:
            self._take(recover_job(self._places, job, content_of(self._places.main(job)), error))
        except CorruptJob as damage:
            refused = CorruptJob(f"job {job!r}: {damage.message}; neither its second copy nor its past helps", job=job)
            telemetry.event("store.damage_found", job=job, what="file", error=refused)
            self._entries[job] = _Entry(IndexRow("", "", ""), 0, refused=refused)

    def _bury_and_find_lost(self) -> None:
        """Finishes deletions that were cut short; a job of ours whose file alone is gone was not deleted."""
        for job in sorted(self._places.known()):
            entry, path = self._entries.get(job), self._places.tombstone(job)
            content = content_of(path)
            if content is not None:
                held = held_in(job, content, parsed(content))
                if entry is None or (entry.refused is None and entry.revision <= held.revision):
                    self._places.unlink(job)
                    self._entries[job] = _Entry(held.index, held.revision, deleted=True)
                elif entry.refused is None:
                    path.unlink()
            elif entry is None and self._places.past(job).exists():
                self._recover(job, CorruptJob(f"{self._places.main(job)} is gone", job=job))

    def _held(self, job: str, entry: _Entry) -> Held:
        """The job as its file has it; a file that was damaged since the start is recovered."""
        if entry.refused is not None:
            raise type(entry.refused)(entry.refused.message, hint=entry.refused.hint, job=job)
        path = self._places.tombstone(job) if entry.deleted else self._places.main(job)
        try:
            content = path.read_bytes()
            return held_in(job, content, parsed(content))
        except ForeignEdit:
            raise
        except (FileNotFoundError, CorruptJob) as error:
            if entry.deleted:
                raise CorruptJob(f"job {job!r}: its tombstone is damaged ({error})", job=job) from error
            self._recover(job, CorruptJob(f"job {job!r}: {path.name} is gone or damaged ({error})", job=job))
        return self._held(job, self._entries[job])

    def _write_of(self, part: JobCommit) -> Write:
        job, entry = part.job, self._entries.get(part.job)
        index = part.index or (entry.index if entry is not None else IndexRow("", "", ""))
        frame = None if part.keyframe is None else StoredChange(part.revision, part.keyframe)
        if part.deleted:
            held = Held(job, part.revision, index, frame, deleted=True)
            return Write(held, {self._places.tombstone(job): text_of(held)}, {}, UNKNOWN_BYTES)
        lines, before = change_lines(job, part.changes), None
        if entry is not None and (frame is None or entry.deleted):
            before = self._held(job, entry)
        if entry is not None and entry.deleted and before is not None and before.keyframe is not None:
            lines = frame_line(job, before.keyframe) + lines
        if frame is not None:
            held = Held(job, part.revision, index, frame)
        else:
            since = (*(before.since if before else ()), *part.changes)
            held = Held(job, part.revision, index, before.keyframe if before else None, since)
        unframed = (entry.unframed if entry is not None else UNKNOWN_BYTES) + sum(len(c.body) for c in part.changes)
        if frame is not None and unframed >= len(frame.body):
            lines, unframed = lines + frame_line(job, frame), 0
        content, appends = text_of(held), {self._places.past(job): lines}
        if part.items:
            appends[self._places.ledger(job)] = item_lines(job, part.revision, part.items)
        contents = {self._places.main(job): content, self._places.second(job): content}
        return Write(held, contents, appends, unframed, entry is not None and entry.deleted, part.items)

    def _confirm(self, write: Write) -> None:
        held = write.held
        if held.job not in self._entries:
            bisect.insort(self._ids, held.job)
        if held.deleted:
            self._ledgers.pop(held.job, None)
        elif held.job in self._ledgers:
            self._ledgers[held.job].add(write.items)
        seen = print_of(self._places.main(held.job))
        self._entries[held.job] = _Entry(held.index, held.revision, held.deleted, seen, write.unframed)

    def _keep_foreign(self, job: str) -> None:
        """A file that somebody changed under us is kept beside, and told, before ours replaces it."""
        path, entry = self._places.main(job), self._entries.get(job)
        present = print_of(path)
        if present is None or (entry is not None and entry.seen == present):
            return
        kept = keep_aside(path, path.read_bytes(), "foreign")
        telemetry.event("store.foreign_edit", job=job, path=str(path), kept=str(kept))

    @contextlib.contextmanager
    def _typed(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            raise typed(error, self._directory) from error
