"""`{user}/.actorstate-migration.json`: with the file system itself, the truth about one user's migration.

It is replaced as a whole (temporary file, fsync, rename, fsync of the folder) before and after each step, and holds
the plan that is carried out, so that a later run needs neither the layout nor a writer to go on.

    state: migrating | rolling_back | done | rolled_back | undone | needs_attention
"""

import json
import time
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Literal, cast

from actorstate.migrate.clocks import Moment
from actorstate.migrate.layouts import Registry
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
    """During a rollback: the backup of the migration."""
    from_backup: str = ""
    """A rollback brings back this backup, not the present content."""


class JournalUnreadable(ValueError):
    """The file is there and is no journal of ours."""


def has_journal(folder: Path) -> bool:
    """Whether there is one, readable or not."""
    return (folder / JOURNAL_NAME).exists()


def read_journal(folder: Path) -> Journal | None:
    """The user's journal, None where there is none. Raises JournalUnreadable, OSError."""
    try:
        text = (folder / JOURNAL_NAME).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return _understood(json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise JournalUnreadable(f"{folder / JOURNAL_NAME} cannot be understood: {error!r}") from error


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
