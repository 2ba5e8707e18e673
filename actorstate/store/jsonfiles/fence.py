"""Which writer may rename: `.actorstate/store` names the kind of store, its format and the epoch.

Between its check of the epoch and its last rename a commit holds a lock on `.actorstate/fence`, which a new
epoch needs too: an older writer that wakes up finds the new epoch before it renames anything.
"""

import contextlib
import json
import os
from collections.abc import Generator
from pathlib import Path

from actorstate.errors import EpochFenced, StoreFailed, StoreTooNew
from actorstate.store.files import lock, make_private_folder, open_lock, write_durably
from actorstate.store.jsonfiles.text import FORMAT
from actorstate.store.location import quoted

PRIVATE = ".actorstate"
MARK = "store"
WAIT_S = 5.0
"""How long a start waits for an older writer's commit to end; after it: StoreFailed."""


class Fence:
    """The epoch of one directory of JSON files."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._private = directory, directory / PRIVATE

    def epoch(self) -> int:
        """The epoch in the mark; 0 and a new mark where there is none. Raises StoreTooNew, StoreFailed, OSError."""
        path = self._private / MARK
        if not path.exists():
            self.write(0)
            return 0
        try:
            mark = json.loads(path.read_bytes())
            made, epoch = int(mark["format"]), int(mark["epoch"])
        except (ValueError, KeyError, TypeError) as error:
            hint = f"keep a copy of the directory; if nothing else is wrong: rm {quoted(path)}"
            raise StoreFailed(f"{path} is damaged ({error!r})", hint=hint) from error
        if made > FORMAT:
            raise StoreTooNew(f"{self._directory} has JSON files of format {made}, this release knows {FORMAT}")
        return epoch

    def write(self, epoch: int) -> None:
        """Makes the epoch durable. Raises OSError."""
        make_private_folder(self._private)
        mark = {"store": "json", "format": FORMAT, "epoch": epoch}
        write_durably(self._private / MARK, json.dumps(mark).encode() + b"\n")

    @contextlib.contextmanager
    def held(self, wait_s: float = WAIT_S) -> Generator[None]:
        """The right to rename, or to raise the epoch. Raises EpochFenced (without a wait), StoreFailed."""
        make_private_folder(self._private)
        descriptor = open_lock(self._private / "fence")
        try:
            if not lock(descriptor, wait_s):
                raise self._busy(wait_s)
            yield
        finally:
            os.close(descriptor)

    def _busy(self, wait_s: float) -> EpochFenced | StoreFailed:
        if not wait_s:
            return EpochFenced(f"another writer is taking {self._directory} over")
        hint = f"find it and end it: fuser -v {self._private / 'fence'}"
        return StoreFailed(f"another process is in the middle of a commit to {self._directory}", hint=hint)
