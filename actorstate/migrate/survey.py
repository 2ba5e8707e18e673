"""Looks at DATA without a single change: what a plan is made of.

Nothing here creates, locks or writes anything below DATA: a registry with a `-wal` is copied to a temporary
folder and read there (`sqlitefiles/content.py`), all else is `stat` and listing folders.
"""

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from actorstate.errors import UserRefused
from actorstate.migrate.folders import walked
from actorstate.migrate.journal import read_journal
from actorstate.migrate.layouts import Layout
from actorstate.migrate.nextline import whole
from actorstate.migrate.plan import Kind, Plan, Seen, UserFacts, plan_all
from actorstate.migrate.runlock import must_exist
from actorstate.migrate.sqlitefiles.registry import recorded_users


def survey(data: Path, layout: Layout, user: str | None = None) -> Plan:
    """The plan for all users in `data`, or for one. Raises UserRefused when there is no such folder or user."""
    must_exist(data, layout)
    recorded = registered(data, layout)
    return plan_all(str(data), layout, (_facts(data, layout, one, one in recorded) for one in users_in(data, user)))


def users_in(data: Path, user: str | None = None) -> tuple[str, ...]:
    """The folders in `data`, hidden ones left out, or only `user`. Raises UserRefused."""
    must_exist(data)
    if user is not None:
        if user in {"", ".", ".."} or "/" in user or not (data / user).is_dir():
            raise UserRefused(
                f"there is no user {user!r} in {data}", hint=f"see who is there: ls {shlex.quote(str(data))}"
            )
        return (user,)
    try:
        entries = os.scandir(data)
    except OSError as error:
        hint = f"run it as the user who owns it: ls -ld {shlex.quote(str(data))}"
        raise UserRefused(f"{data} cannot be listed: {error.strerror}", hint=hint) from error
    with entries:
        return tuple(sorted(one.name for one in entries if not one.name.startswith(".") and one.is_dir()))


def registered(data: Path, layout: Layout) -> frozenset[str]:
    """Users that have a row."""
    if layout.registry is None:
        return frozenset()
    return recorded_users(data / layout.registry.database, layout.registry.table, layout.registry.slug)


def _facts(data: Path, layout: Layout, user: str, recorded: bool) -> UserFacts:  # noqa: FBT001 - as below
    try:
        return facts_of(data, layout, user, recorded)
    except UserRefused as error:
        return UserFacts(user, Seen(), Seen(), problem=whole(data, error))
    except OSError as error:
        return UserFacts(user, Seen(), Seen(), problem=f"his folder cannot be looked at: {error}")


def facts_of(data: Path, layout: Layout, user: str, recorded: bool) -> UserFacts:  # noqa: FBT001 - a fact like the others
    """What lies in one user's folder. Raises UserRefused as `read_journal` does, OSError where it cannot be listed."""
    folder = data / user
    kept = read_journal(folder)
    old = folder / layout.database.old
    logs = (old.with_name(old.name + suffix) for suffix in ("-wal", "-journal"))
    return UserFacts(
        user=user,
        old=seen(old),
        new=seen(folder / layout.database.new),
        log_bytes=sum(log.stat().st_size for log in logs if log.is_file()),
        folders=tuple((seen(folder / move.old), seen(folder / move.new)) for move in layout.folders),
        recorded=recorded,
        journal="" if kept is None else kept.state,
    )


def seen(path: Path) -> Seen:
    """What lies at `path`, without following a symbolic link."""
    device = _device(path)
    if path.is_symlink():
        return Seen("symlink", device=device)
    if path.is_file():
        return Seen("file", path.stat().st_size, 1, device)
    if path.is_dir():
        kind: Kind = "mount" if os.path.ismount(path) else "folder"
        sizes = list(_sizes(path))
        return Seen(kind, sum(sizes), len(sizes), path.stat().st_dev)
    return Seen("other" if os.path.lexists(path) else "absent", device=device)


def _sizes(folder: Path) -> Iterator[int]:
    return (path.lstat().st_size for path in walked(folder))


def _device(path: Path) -> int:
    """Of the folder that the name is in, or would be made in."""
    parent = path.parent
    while not parent.is_dir():
        parent = parent.parent
    return parent.stat().st_dev
