"""The running Python's own standard library as a source: each file one item."""

import hashlib
import os
import sysconfig
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from actorstate.errors import SourceUnreadable
from actorstate.migrate.rowcopy import Group, Range, Row, Text

FILES = "files"
SCHEMA = "CREATE TABLE files(path TEXT PRIMARY KEY, size INTEGER, lines INTEGER, sha256 TEXT) WITHOUT ROWID"
"""The table of the index; its columns are an item's values."""
_OTHERS = frozenset({"site-packages", "dist-packages", "__pycache__"})
_BLOCK_BYTES = 1024 * 1024


def standard_library() -> Path:
    """Where this Python's standard library lies."""
    return Path(sysconfig.get_path("stdlib"))


class FileTree:
    """The files under `root`, in the order of their paths; no installed packages and no caches."""

    def __init__(self, root: Path) -> None:
        self._root = os.fsencode(root)
        self._paths = sorted(_listed(self._root))

    def groups(self) -> Sequence[Group]:
        """One group of all files."""
        return [Group(FILES, len(self._paths))]

    def items(self, wanted: Range) -> Iterator[Row]:
        """Each file's path, size in bytes, number of line ends and SHA-256, read now."""
        for path in islice(self._paths, wanted.start, wanted.start + wanted.items):
            try:
                size, lines, digest = _measured(os.path.join(self._root, path))  # noqa: PTH118 - paths are bytes here
            except OSError as error:
                raise SourceUnreadable(f"{os.fsdecode(path)!r} cannot be read: {error}") from error
            yield Row(FILES, (Text(path),), (Text(path), size, lines, Text(digest.encode())))


def _listed(root: bytes) -> Iterator[bytes]:
    others = {os.fsencode(name) for name in _OTHERS}
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in others]
        for name in files:
            path = os.path.join(folder, name)  # noqa: PTH118 - paths are bytes here
            if os.path.isfile(path):  # noqa: PTH113 - as above
                yield os.path.relpath(path, root)


def _measured(path: bytes) -> tuple[int, int, str]:
    digest = hashlib.sha256()
    size = lines = 0
    with open(path, "rb") as file:  # noqa: PTH123 - paths are bytes here
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            size += len(block)
            lines += block.count(b"\n")
    return size, lines, digest.hexdigest()
