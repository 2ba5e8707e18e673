"""Mending a directory of JSON files, job by job."""

from pathlib import Path

from actorstate.errors import CorruptJob, ForeignEdit
from actorstate.store.jsonfiles.places import Places, content_of, typed
from actorstate.store.jsonfiles.recovery import adopt_edit, mend_past, quarantine, read_job, recover_job
from actorstate.store.jsonfiles.text import Held


class JsonMender:
    """See `view.Mender`."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._places = directory, Places(directory)

    def mend(self, job: str, *, adopt: bool) -> str:
        """See Mender. Raises ForeignEdit, DiskFull, StoreFailed."""
        try:
            self._places.prepare()
            told = self._mended(job, adopt=adopt)
            return f"{told}; damaged lines of its past are kept aside" if mend_past(self._places, job) else told
        except OSError as error:
            raise typed(error, self._directory) from error

    def _mended(self, job: str, *, adopt: bool) -> str:
        places = self._places
        content = content_of(places.main(job))
        if content is None and places.tombstone(job).exists():
            return "it was deleted"
        try:
            held = read_job(places, job, content or b"")
        except ForeignEdit:
            if not adopt or content is None:
                raise
            return f"adopted as it was edited, as revision {adopt_edit(places, job, content).revision}"
        except CorruptJob as error:
            return self._recovered(job, content, error)
        return f"whole at revision {held.revision}, its second copy too"

    def _recovered(self, job: str, content: bytes | None, error: CorruptJob) -> str:
        try:
            return _told(recover_job(self._places, job, content, error))
        except CorruptJob:
            return f"nothing of it can be read; its files are kept in {quarantine(self._places, job)}"


def _told(held: Held) -> str:
    return f"recovered as revision {held.revision}; the damaged file is kept beside it"
