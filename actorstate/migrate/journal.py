"""`{user}/.actorstate-migration.json`: with the file system itself, the truth about one user's migration.

It is replaced as a whole (temporary file, fsync, rename, fsync of the folder) before and after each step, and holds
the plan that is carried out, so that a later run needs neither the layout nor a writer to go on.

    state: migrating | rolling_back | done | rolled_back | undone | needs_attention

A user is the folder that is looked at. A journal in it that names another one came with a copy or a new name, and
what it tells is true of that other folder: such a folder is refused by all commands, like one that is only a link.
"""

import json
import shlex
import time
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Literal, cast

from actorstate.errors import UserRefused
from actorstate.migrate.clocks import Moment
from actorstate.migrate.layouts import Registry
from actorstate.migrate.nextline import command_line
from actorstate.migrate.plan import Part, Record, UserPlan
from actorstate.migrate.sqlitefiles.content import Contents
from actorstate.store.files import write_durably

JOURNAL_NAME = ".actorstate-migration.json"
SCHEMA = 1
MAX_HISTORY = 200
"""Steps that are remembered; the oldest leave first."""

State = Literal["migrating", "rolling_back", "done", "rolled_back", "undone", "needs_attention"]
UNFINISHED = frozenset({"migrating", "rolling_back"})


@dataclass(frozen=True, slots=True)
class Journal:
    """One user's migration. Paths are relative to the user's folder."""

    layout: str
    state: State
    step: str
    plan: UserPlan
    contents: Contents | None = None
    """Of the source, while it was held."""
    backup: str = ""
    """The verified backup of this migration."""
    backups: tuple[str, ...] = ()
    """All backups made by us that are still there."""
    stage_sha256: str = ""
    ended: Moment | None = None
    reason: str = ""
    copies: tuple[tuple[str, str], ...] = ()
    """Where each copy lies, and what it is: for a person, when attention is needed."""
    history: tuple[tuple[str, float], ...] = ()
    origin: str = ""
    """From a rollback on: the backup of the migration. It outlives a backup that is brought back after it."""
    from_backup: str = ""
    """A rollback brings back this backup, not the present content."""


def read_journal(folder: Path) -> Journal | None:
    """The user's journal, None where there is none.

    Raises UserRefused, with what to type, for one that cannot be read or is of another folder, and for a link.
    """
    if folder.is_symlink():
        told = f"the user's folder {folder} is a symbolic link: put the folder itself into DATA"
        raise UserRefused(told, hint=f"see where it leads: ls -l {shlex.quote(str(folder))}")
    place = folder / JOURNAL_NAME
    try:
        kept = _understood(json.loads(place.read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        hint = f"run it as the user who owns it: ls -ld {shlex.quote(str(folder))}"
        raise UserRefused(f"{place} cannot be read: {error.strerror}", hint=hint) from error
    except OSError as error:
        raise UserRefused(f"{place} cannot be read: {error.strerror}", hint=_set_aside(folder)) from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        told = f"{place} cannot be understood: it is damaged, or no journal of this release"
        raise UserRefused(told, hint=_set_aside(folder)) from error
    if kept.plan.user != folder.name:
        raise _of_another(folder, kept)
    return kept


def _of_another(folder: Path, kept: Journal) -> UserRefused:
    other = folder.with_name(kept.plan.user)
    copied = other.is_dir()
    if copied:
        told, out = "a copy of the user's", f"mv -n {shlex.quote(str(folder))} {shlex.quote(str(folder.parent.parent))}"
    else:
        told, out = "renamed, and was the user's", f"mv -n {shlex.quote(str(folder))} {shlex.quote(str(other))}"
    hint = f"{'put it elsewhere' if copied else 'give it its name again'}: {out}"
    if kept.state not in UNFINISHED:
        hint += f"; or, if {shlex.quote(folder.name)} is to be a user: {_set_aside(folder, '--mend')}"
    return UserRefused(f"{folder} is {told} {kept.plan.user!r}, as its journal tells; nothing was touched", hint=hint)


def _set_aside(folder: Path, *options: str) -> str:
    """Without the journal the audit judges by what lies there."""
    place = shlex.quote(str(folder / JOURNAL_NAME))
    return f"mv -n {place} {place}.aside && {command_line('audit', folder.parent, folder.name, *options)}"


def write_journal(folder: Path, journal: Journal) -> None:
    """Makes it the user's journal, durably. Raises OSError; the old one stands then."""
    content = {"actorstate": SCHEMA, **_plain(journal)}
    write_durably(folder / JOURNAL_NAME, json.dumps(content, default=_plain).encode() + b"\n")


def noted(journal: Journal, event: str) -> Journal:
    """The same with a line of history."""
    return replace(journal, history=(*journal.history, (event, round(time.time(), 3)))[-MAX_HISTORY:])


def _plain(value: object) -> dict[str, object]:
    """A dataclass for json, without the deep copy of `asdict`."""
    if not is_dataclass(value):
        raise TypeError(f"{value!r} has no place in a journal")
    return {one.name: getattr(value, one.name) for one in fields(value)}


def _understood(raw: dict[str, object]) -> Journal:
    if raw.pop("actorstate") != SCHEMA:
        raise ValueError("it is of another release")
    told: dict[str, object] = dict(raw)
    told["plan"] = plan_from(_mapping(raw["plan"]))
    contents, ended = raw["contents"], raw["ended"]
    told["contents"] = None if contents is None else Contents.from_plain(_mapping(contents))
    told["ended"] = None if ended is None else Moment(**_mapping(ended))  # type: ignore[arg-type]  # our own file
    told["backups"] = tuple(_sequence(raw["backups"]))
    for name in ("copies", "history"):
        told[name] = tuple(tuple(_sequence(one)) for one in _sequence(raw[name]))
    return Journal(**told)  # type: ignore[arg-type]  # our own file


def plan_from(raw: dict[str, object]) -> UserPlan:
    """The plan that `dataclasses.asdict` made these values of."""
    database, record = raw["database"], raw["record"]
    told = dict(raw)
    told["database"] = None if database is None else Part(**_mapping(database))  # type: ignore[arg-type]  # ours
    told["folders"] = tuple(Part(**_mapping(one)) for one in _sequence(raw["folders"]))  # type: ignore[arg-type]  # ours
    told["needs"] = tuple(tuple(_sequence(one)) for one in _sequence(raw["needs"]))
    if record is not None:
        row = _mapping(record)
        told["record"] = Record(**{**row, "registry": Registry(**_mapping(row["registry"]))})  # type: ignore[arg-type]  # ours
    return UserPlan(**told)  # type: ignore[arg-type]  # our own file


def _mapping(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise TypeError("not a mapping")
    return cast("dict[str, object]", value)


def _sequence(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError("not a list")
    return cast("list[object]", value)
