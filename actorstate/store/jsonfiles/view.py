"""A directory of JSON files for an examination or a copy: read as it lies, nothing adopted or recovered on the disk."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from actorstate.errors import CorruptJob, ForeignEdit
from actorstate.store.contract import ItemQuery, StoredChange, StoredItem, StoredJob
from actorstate.store.jsonfiles.find import adopted_job, best_of, is_stranger
from actorstate.store.jsonfiles.ledger import Ledger, ledger_in
from actorstate.store.jsonfiles.past import Past, past_in
from actorstate.store.jsonfiles.places import Places, content_of, print_of
from actorstate.store.jsonfiles.text import Held, held_in, is_ours, parsed
from actorstate.store.view import Row


class JsonView:
    """See `view.View`. The job looked at last stays in memory with its past and its items."""

    def __init__(self, directory: Path) -> None:
        self._places = Places(directory)
        self._job: str = ""
        self._held: Held | CorruptJob | None = None
        self._past, self._ledger = Past(), Ledger()
        self._faults: list[str] = []

    def open(self) -> None:
        """Nothing is needed."""

    def close(self) -> None:
        """Nothing to release."""

    def forget(self) -> None:
        """See View."""
        self._job = ""

    def general_faults(self) -> Iterator[str]:
        """Each job is a file by itself."""
        yield from ()

    def known_jobs(self) -> list[str]:
        """See View. A backup of the older tool's alone is a job that it has deleted."""
        places = self._places
        known = places.known()
        return sorted(job for job in known if self._is_job(places, job))

    def row(self, job: str) -> Row | None:
        """See View."""
        held = self._read(job)
        return Row(held.index, held.deleted)

    def faults(self, job: str) -> Iterator[str]:
        """See View."""
        try:
            self._read(job)
        except CorruptJob:
            return  # `load` tells
        yield from self._faults
        yield from self._past.damaged

    def load(self, job: str) -> StoredJob | None:
        """See Store. Raises ForeignEdit, CorruptJob."""
        held = self._read(job)
        return StoredJob(held.keyframe.body if held.keyframe else None, tuple(change.body for change in held.since))

    def changes(self, job: str, after_revision: int, limit: int) -> list[StoredChange]:
        """See Store; what is damaged of the past is left out, and told by `faults`."""
        held = self._read(job)
        page = [change for change in self._past.in_order() if after_revision < change.revision <= held.revision]
        return page[:limit]

    def keyframe_at(self, job: str, revision: int) -> StoredChange | None:
        """See Store."""
        self._read(job)
        found = [frame for frame in self._past.frames if frame <= revision]
        return self._past.frames[max(found)] if found else None

    def list_items(self, job: str, query: ItemQuery) -> list[StoredItem]:
        """See Store."""
        try:
            self._read(job)
        except CorruptJob:
            return []
        return self._ledger.page(query)

    @staticmethod
    def _is_job(places: Places, job: str) -> bool:
        content = content_of(places.main(job))
        if content is not None:
            return not is_stranger(places, job, content)
        return places.past(job).exists() or places.tombstone(job).exists()

    def _read(self, job: str) -> Held:
        if job != self._job:
            self._look(job)
        if not isinstance(self._held, Held):
            raise self._held or CorruptJob(f"job {job!r} is gone", job=job)
        return self._held

    def _look(self, job: str) -> None:
        self._job, self._held, self._faults = job, None, list[str]()
        self._past = past_in(job, self._places.past(job))
        self._ledger = ledger_in(job, self._places.ledger(job))
        try:
            held = self._held = self._found(job)
        except CorruptJob as error:
            self._held = error
            return
        if held.keyframe is not None:
            self._past.frames[held.keyframe.revision] = held.keyframe

    def _found(self, job: str) -> Held:
        places = self._places
        if not places.main(job).exists() and places.tombstone(job).exists():
            content = places.tombstone(job).read_bytes()
            return held_in(job, content, parsed(content))
        content = content_of(places.main(job)) or b""
        try:
            found = parsed(content)
            if not is_ours(found):
                return adopted_job(places, job, found)
            held = held_in(job, content, found)
        except ForeignEdit:
            raise
        except CorruptJob as error:
            return self._recovered(job, error)
        if content_of(places.second(job)) != content:
            self._faults.append("its second copy is another one, damaged or gone")
        return held

    def _recovered(self, job: str, error: CorruptJob) -> Held:
        """Dated by the damaged file, so that each look gives the same."""
        seen = print_of(self._places.main(job)) or print_of(self._places.second(job)) or (0, 0, 0)
        best, _ = best_of(self._places, job, datetime.fromtimestamp(seen[1] / 1e9, UTC))
        if best is None:
            raise CorruptJob(f"{error.message}; neither its second copy nor its past helps", job=job) from error
        self._faults.append(f"its file is damaged or gone ({error.message})")
        return best
