"""What must hold before a user is touched: room and names on each file system, permissions, nothing strange inside.

Reads only, so that a dry run asks the same questions. The integrity of the source is read here for a dry run;
the run reads it under the lock that it keeps to the end.
"""

import os
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from actorstate.errors import ActorStateError, UserRefused
from actorstate.migrate.folders import walked
from actorstate.migrate.plan import INODES, Part, Plan, UserPlan, margin
from actorstate.migrate.sqlitefiles.content import looked_at, problems_of


class Room:
    """What the users at work in this process have claimed of each file system, so that two do not count on one gap."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._claimed: dict[int, int] = {}

    @contextmanager
    def claimed(self, data: Path, plan: UserPlan, *, images: bool = False) -> Generator[None]:
        """Room for this user while the block lasts. Raises UserRefused, with the numbers, where there is too little."""
        needs = needed(data, plan, images=images)
        with self._lock:
            for device, size in needs.items():
                if told := _shortage(_folder_on(data, plan, device), size, self._claimed.get(device, 0)):
                    raise UserRefused(told, hint="free some space there, then run it again; nothing was changed")
            for device, size in needs.items():
                self._claimed[device] = self._claimed.get(device, 0) + size
        try:
            yield
        finally:
            with self._lock:
                for device, size in needs.items():
                    self._claimed[device] -= size


def needed(data: Path, plan: UserPlan, *, images: bool = False) -> dict[int, int]:
    """Bytes per device that will be written before anything is freed: twice the data, where all is on one."""
    needs = dict(plan.needs)
    if images and plan.folders:
        device = (data / plan.user).stat().st_dev
        needs[device] = needs.get(device, 0) + sum(part.bytes for part in plan.folders)
    return needs


def examined(plan: Plan, *, images: bool = False) -> Iterator[tuple[UserPlan, tuple[str, ...]]]:
    """Each user with why he would be refused, in words; nothing for those who would not. Changes nothing."""
    for one in plan.users:
        yield one, tuple(problems(Path(plan.data), one, images=images))


def problems(data: Path, plan: UserPlan, *, images: bool = False) -> Iterator[str]:
    """The same for one user."""
    if plan.action == "refuse":
        yield plan.reason
    if plan.action != "migrate" or plan.database is None:
        return
    yield from objections(data, plan)
    for device, size in needed(data, plan, images=images).items():
        if told := _shortage(_folder_on(data, plan, device), size, 0):
            yield told
    try:
        with looked_at(data / plan.user / plan.database.old) as connection:
            yield from (f"{plan.database.old} is damaged: {one}" for one in problems_of(connection))
    except (ActorStateError, OSError) as error:
        yield str(getattr(error, "message", error))


def objections(data: Path, plan: UserPlan) -> Iterator[str]:
    """Those that the run asks for as well, without reading the database."""
    folder = data / plan.user
    if plan.budget_bytes is not None and plan.database is not None and plan.database.bytes > plan.budget_bytes:
        yield f"a backup of {plan.database.bytes:,} bytes is over the budget of {plan.budget_bytes:,}"
    for part in (*([plan.database] if plan.database else []), *plan.folders):
        yield from _unwritable(folder, part)
    for part in plan.folders:
        yield from _strange(folder, part)


def _unwritable(folder: Path, part: Part) -> Iterator[str]:
    for place in {(folder / part.old).parent, _existing((folder / part.new).parent)}:
        if not os.access(place, os.W_OK | os.X_OK):
            yield f"{place} may not be written to by this user (uid {os.geteuid()})"
        if place.is_symlink():
            yield f"{place} is a symbolic link: mount the other disk there instead (mount --bind)"
        if os.statvfs(place).f_flag & os.ST_RDONLY:
            yield f"{place} is on a file system that is mounted read-only"
    if not os.access(folder / part.old, os.R_OK):
        yield f"{folder / part.old} may not be read by this user (uid {os.geteuid()})"


def _strange(folder: Path, part: Part) -> Iterator[str]:
    """Links that would point elsewhere after the move, and what is no file."""
    root = folder / part.old
    for path in walked(root):
        if path.is_symlink():
            target = Path(os.path.normpath(path.parent / path.readlink()))
            if not path.readlink().is_absolute() and not target.is_relative_to(root):
                yield f"{path} is a symbolic link out of the folder; it would point elsewhere from {part.new}"
        elif not path.is_file():
            yield f"{path} is neither a file nor a folder"
        elif not os.access(path, os.R_OK):
            yield f"{path} may not be read by this user (uid {os.geteuid()})"


def _shortage(folder: Path, size: int, claimed: int) -> str:
    room = os.statvfs(folder)
    free = room.f_bavail * room.f_frsize - claimed
    if free < size + margin(size):
        return f"{folder} has {max(free, 0):,} bytes free, and {size + margin(size):,} are needed"
    if room.f_files and room.f_favail < INODES:
        return f"{folder} has only {room.f_favail} names (inodes) left"
    return ""


def _folder_on(data: Path, plan: UserPlan, device: int) -> Path:
    """A folder of the user's on this file system."""
    folder = data / plan.user
    if plan.database is not None:
        for part in (plan.database, *plan.folders):
            for place in (part.new, part.old):
                found = _existing((folder / place).parent)
                if found.stat().st_dev == device:
                    return found
    return folder


def _existing(folder: Path) -> Path:
    while not folder.is_dir():
        folder = folder.parent
    return folder
