"""Where an app keeps its users' data, and where it shall be: small definitions, a few lines for another app.

    DATA/{user}/{database.old}   becomes   DATA/{user}/{database.new}
    DATA/{user}/{folder.old}/    becomes   DATA/{user}/{folder.new}/     for each of `folders`
    DATA/{registry.database}     gets a row for each user

A layout that does not move (`moves=False`) only writes the rows, and changes nothing else, any number of times.
"""

from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import PurePosixPath

from actorstate.errors import BadRequest

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Move:
    """From one place to another, both relative to the user's folder."""

    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Registry:
    """The table in which each user gets a row: id, user_id, slug, name, created_at, last_used_at."""

    database: str
    """Relative to DATA."""
    table: str = "profiles"
    slug: str = "default"
    label: str = "Default"


@dataclass(frozen=True, slots=True)
class Layout:
    """One app's layout. Raises BadRequest for places that meet each other or leave the user's folder."""

    name: str
    database: Move
    """The SQLite database that makes a folder a user's; folders without it are left alone."""
    folders: tuple[Move, ...] = ()
    registry: Registry | None = None
    moves: bool = True
    ignored: tuple[str, ...] = ("backups",)
    """Folders in DATA that are no users', where a layout that only records would take each folder for one."""
    backups: str = ""
    """Where backups lie, relative to the user's folder; empty: beside the database."""
    backup_budget_bytes: int | None = None
    """A user whose backup would be larger is refused. None: no limit."""

    def __post_init__(self) -> None:
        places = [place for move in (self.database, *self.folders) for place in (move.old, move.new)]
        for place in (*places, *([self.backups] if self.backups else [])):
            if not _is_plain(place):
                raise BadRequest(f"layout {self.name!r}: {place!r} is no plain path below the user's folder")
        for at, one in enumerate(places):
            for other in places[at + 1 :]:
                if _meet(one, other):
                    raise BadRequest(f"layout {self.name!r}: {one!r} and {other!r} are in each other's way")

    @property
    def key(self) -> str:
        """Tells two layouts of one name apart: one that moves has more to do than one that only records."""
        return f"{self.name}{'' if self.moves else ', records only'}"


def _is_plain(place: str) -> bool:
    parts = PurePosixPath(place).parts
    return bool(parts) and "/".join(parts) == place and not place.startswith("/") and not {".", ".."} & set(parts)


def _meet(one: str, other: str) -> bool:
    return PurePosixPath(one).is_relative_to(other) or PurePosixPath(other).is_relative_to(one)


SERVER = Layout(
    name="server",
    database=Move("peek.db", "profiles/default/datastore.sqlite"),
    folders=(Move("images", "profiles/default/images"),),
    registry=Registry("system.db"),
)
DESKTOP = replace(SERVER, name="desktop", registry=Registry("profiles.db"), moves=False)
MOBILE = replace(DESKTOP, name="mobile")
MOBILE_MOVE = replace(MOBILE, moves=True, backups="no_backup", backup_budget_bytes=256 * MIB)
"""`no_backup` is the folder that Android leaves out of its cloud backup."""

_NAMED = {(one.name, one.moves): one for one in (SERVER, DESKTOP, MOBILE, MOBILE_MOVE)}


def layout_named(name: str, *, move: bool = False) -> Layout:
    """`server`, `desktop`, `mobile` (with `move`, the moving one), or `module:NAME` of a layout of your own.

    Raises BadRequest.
    """
    if ":" in name:
        return _imported(name)
    found = _NAMED.get((name, True)) if move or name == "server" else _NAMED.get((name, False))
    if found is None:
        known = "server, desktop, mobile or module:NAME"
        raise BadRequest(f"there is no{' moving' if move else ''} layout {name!r}", hint=f"use {known}")
    return found


def _imported(name: str) -> Layout:
    module, _, attribute = name.partition(":")
    try:
        found: object = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise BadRequest(f"no layout {name!r}: {error}", hint="name it as module:NAME, importable from here") from error
    if not isinstance(found, Layout):
        raise BadRequest(f"{name!r} is no Layout", hint="see actorstate/migrate/layouts.py")
    return found
