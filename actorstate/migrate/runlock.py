"""One run at a time for the users in DATA, and the note that nothing is left to do.

DATA/.actorstate-migration.lock   held by flock while a run lives; the kernel drops it with the process
DATA/.actorstate-migration.done   written when a run has left nothing unfinished; gone while one is at work
"""

import json
import os
import shlex
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from actorstate.endpoint import flock_holders
from actorstate.errors import MigrationRunning, UserRefused
from actorstate.migrate.journal import JOURNAL_NAME
from actorstate.migrate.layouts import SERVER, Layout
from actorstate.store.files import lock, open_lock, sign_lock, signer_of, sync_folder, write_durably

LOCK = ".actorstate-migration.lock"
DONE = ".actorstate-migration.done"


@contextmanager
def only_one(data: Path, wait_s: float = 0.0) -> Generator[None]:
    """Nobody else runs while the block lasts.

    Raises MigrationRunning when somebody still does after `wait_s`, UserRefused where there is no such folder or
    this user may not write to it.
    """
    must_exist(data)
    try:
        descriptor = open_lock(data / LOCK)
    except OSError as error:
        hint = f"run it as the user who owns it: ls -ld {shlex.quote(str(data))}"
        raise UserRefused(f"{data} cannot be written to: {error.strerror}; nothing was changed", hint=hint) from error
    try:
        if not lock(descriptor, wait_s):
            pid = signer_of(descriptor)
            told = f"process {pid} is migrating the users in {data}"
            raise MigrationRunning(told, pid=pid, directory=str(data))
        sign_lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def must_exist(data: Path, layout: Layout = SERVER) -> None:
    """Raises UserRefused where there is no such folder, or where it is a user's own."""
    if not data.is_dir():
        raise UserRefused(f"there is no folder {data}", hint="name the folder in which the users' folders are")
    for name in (JOURNAL_NAME, layout.database.old):
        if os.path.lexists(data / name):
            told = f"{data} is a user's own folder, for {name} is in it; nothing was changed"
            above = f"{shlex.quote(str(data.parent))} --user {shlex.quote(data.name)}"
            raise UserRefused(told, hint=f"name the folder above it as DATA: {above}")


def runner_of(data: Path) -> int | None:
    """The process whose run holds DATA, None when there is none. Only looks."""
    return next(flock_holders(data / LOCK), None)


def note_done(data: Path, layout: str) -> None:
    """Nothing is left to do for this layout."""
    write_durably(data / DONE, json.dumps({"layout": layout}).encode() + b"\n")


def forget_done(data: Path) -> None:
    """Something may be left to do from here on."""
    if (data / DONE).exists():
        (data / DONE).unlink()
        sync_folder(data)


def is_done(data: Path, layout: str) -> bool:
    """Whether the last run of this layout left nothing to do."""
    try:
        told: object = json.loads((data / DONE).read_bytes())
    except (OSError, ValueError):
        return False
    return told == {"layout": layout}
