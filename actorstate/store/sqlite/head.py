"""The file `head`: how far the commits had come, kept beside the database so that a lost log is noticed.

Written about once a second and at close: with each commit it would cost a second sync.
"""

import json
from pathlib import Path

from actorstate.errors import StoreFailed
from actorstate.store.files import is_full, write_durably
from actorstate.store.location import quoted
from actorstate.store.sqlite.schema import committed


class Head:
    """Commit number and chained digest in one small file; without a path nothing is remembered."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._noted = 0

    def check(self, database: Path) -> None:
        """Looks before anything is moved: a damaged log is left as it is, for whoever can still read it."""
        if self._path is None or not self._path.exists():
            return
        found, kept = committed(database)
        try:
            head = json.loads(self._path.read_bytes())
            commits, chain = int(head["commits"]), bytes.fromhex(head["chain"])
        except (ValueError, KeyError, TypeError) as error:
            hint = f"keep a copy of the directory; if nothing else is wrong: rm {quoted(self._path)}"
            raise StoreFailed(f"{self._path} is damaged ({error!r})", hint=hint) from error
        if commits > found or (commits == found and chain != kept):
            raise StoreFailed(
                f"{database} is at commit {found}, but {commits} were acknowledged: "
                "its log is damaged, or the file was replaced; nothing was changed",
                hint=f"keep a copy of the directory; to go on without what is missing: rm {quoted(self._path)}",
            )

    def note(self, commits: int, chain: bytes) -> None:
        """Writes the head. A full disk only makes it lag: it then notices a little less."""
        if self._path is None or self._noted == commits:
            return
        head = {"commits": commits, "chain": chain.hex()}
        try:
            write_durably(self._path, json.dumps(head).encode() + b"\n")
            self._noted = commits
        except OSError as error:
            if not is_full(error):
                raise StoreFailed(f"{self._path} cannot be written: {error}") from error
