"""A backup of a whole store in a new directory, and what is in it. A writer can be started on it as it is.

It grows under another name and takes its own when it is whole and has been verified by the caller.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from actorstate.config import VERSION
from actorstate.errors import OtherStore
from actorstate.store.choice import kind_of
from actorstate.store.files import make_private_folder, sync_folder, write_durably
from actorstate.store.jsonfiles.fence import MARK, PRIVATE
from actorstate.store.jsonfiles.places import Places
from actorstate.store.location import Location
from actorstate.store.sqlite.view import SqliteView

MANIFEST = "manifest.json"
CHUNK_BYTES = 1024 * 1024


def partial(target: Path) -> Path:
    """Where the backup grows. Raises OtherStore where `target` exists."""
    if target.exists():
        raise OtherStore(
            f"{target} exists; it was not touched",
            hint=f"name a new one: {target}.{datetime.now(UTC):%Y%m%d-%H%M%S}",
            location=str(target),
        )
    growing = target.with_name(f".{target.name}.partial")
    shutil.rmtree(growing, ignore_errors=True)  # left behind by a backup that was killed; never one that counted
    make_private_folder(growing / PRIVATE)
    return growing


def copy_store(location: Location, target: Path) -> None:
    """All files of a store, on the disk on return. SQLite: of one moment, also beside a running writer. JSON files:
    only where none runs. Raises StoreError, OSError.
    """
    source = location.directory
    if location.kind == "sqlite":
        view = SqliteView(source / "jobs.sqlite", source / PRIVATE / "head")
        view.open()
        try:
            view.copy_to(target / "jobs.sqlite")
        finally:
            view.close()
    else:
        for path in _job_files(source):
            _copy(path, target / path.relative_to(source))
        _copy(source / PRIVATE / MARK, target / PRIVATE / MARK)
    _copy(source / PRIVATE / "epoch", target / PRIVATE / "epoch")


def finish(growing: Path, target: Path, location: Location, jobs: int) -> dict[str, object]:
    """Writes the manifest, and gives the backup its name. Raises OSError."""
    files = [
        {"name": str(path.relative_to(growing)), "bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in sorted(growing.rglob("*"))
        if path.is_file()
    ]
    manifest: dict[str, object] = {
        "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "release": VERSION,
        "location": str(location),
        "kind": kind_of(growing) or location.kind,
        "jobs": jobs,
        "files": files,
    }
    write_durably(growing / PRIVATE / MANIFEST, json.dumps(manifest, indent=1).encode() + b"\n")
    growing.rename(target)
    sync_folder(target.parent)
    return manifest


def _job_files(source: Path) -> Iterator[Path]:
    places = Places(source)
    for folder in places.folders:
        if folder.is_dir():
            yield from sorted(path for path in folder.iterdir() if path.is_file())


def _copy(source: Path, target: Path) -> None:
    if not source.exists():
        return
    make_private_folder(target.parent)
    with source.open("rb") as reading, target.open("wb") as writing:
        os.fchmod(writing.fileno(), 0o600)
        shutil.copyfileobj(reading, writing, CHUNK_BYTES)
        writing.flush()
        os.fsync(writing.fileno())
    sync_folder(target.parent)


def _sha256(path: Path) -> str:
    signed = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            signed.update(chunk)
    return signed.hexdigest()
