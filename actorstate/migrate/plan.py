"""What a migration will do, as values made from facts: no clock, no file, the same facts give the same plan.

A dry run prints the very `Plan` that the run carries out, and the journal of each user keeps his part of it.
"""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from actorstate.migrate.layouts import Layout, Move, Registry

Action = Literal["migrate", "finish", "record", "skip", "refuse"]
"""finish: an earlier run was interrupted. record: only the row is written."""
Kind = Literal["absent", "file", "folder", "symlink", "mount", "other"]

MARGIN_BYTES = 1024 * 1024
MARGIN_SHARE = 0.05
"""Room that must stay free on a file system beyond what is needed: the larger of the two."""
INODES = 16
"""New names that one user needs beside his images."""
GUESSED_BYTES_PER_S = 20e6
GUESSED_USER_S = 0.02
"""What the estimate of a plan rests on; the run tells its own speed."""
_ROWS = uuid.UUID("9f2c4d0e-6a53-4b0e-8f57-8a3f8f1d2b11")


@dataclass(frozen=True, slots=True)
class Seen:
    """What lies at a place: `files` and `bytes` of all below it, `device` of it or of where it would be made."""

    kind: Kind = "absent"
    bytes: int = 0
    files: int = 0
    device: int = 0

    @property
    def is_there(self) -> bool:
        """Whether something with content is there: an empty file or folder is in nobody's way."""
        return self.kind in {"symlink", "other"} or self.bytes > 0 or (self.kind != "file" and self.files > 0)


@dataclass(frozen=True, slots=True)
class UserFacts:
    """One folder in DATA, as it was found."""

    user: str
    old: Seen
    new: Seen
    log_bytes: int = 0
    """In the old database's `-wal` or `-journal`."""
    folders: tuple[tuple[Seen, Seen], ...] = ()
    recorded: bool = False
    problem: str = ""
    """Why he is refused whatever lies in his folder."""
    journal: str = ""
    """State of the last migration, empty without one."""


@dataclass(frozen=True, slots=True)
class Part:
    """A database or folder to move. `crosses`: to another file system, where a rename cannot take it."""

    old: str
    new: str
    bytes: int = 0
    files: int = 0
    crosses: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    """The row to write; `new`: there is none yet."""

    registry: Registry
    id: str
    new: bool


@dataclass(frozen=True, slots=True)
class UserPlan:
    """What is done for one user. `needs` is the room per device: what is written there before anything is freed."""

    user: str
    action: Action
    reason: str = ""
    database: Part | None = None
    folders: tuple[Part, ...] = ()
    record: Record | None = None
    backups: str = ""
    needs: tuple[tuple[int, int], ...] = ()
    budget_bytes: int | None = None

    @property
    def bytes(self) -> int:
        """Of the data that changes its place."""
        parts = (*([self.database] if self.database else []), *self.folders)
        return sum(part.bytes for part in parts)


@dataclass(frozen=True, slots=True)
class Plan:
    """All users of DATA, in the order of their names."""

    data: str
    layout: str
    users: tuple[UserPlan, ...]

    @property
    def at_work(self) -> tuple[UserPlan, ...]:
        """Those for whom something is done."""
        return tuple(one for one in self.users if one.action in {"migrate", "finish", "record"})

    @property
    def bytes(self) -> int:
        """Of all data that changes its place."""
        return sum(one.bytes for one in self.at_work)

    @property
    def estimate_s(self) -> float:
        """A guess at how long one worker takes."""
        return self.bytes / GUESSED_BYTES_PER_S + GUESSED_USER_S * len(self.at_work)


def plan_all(data: str, layout: Layout, facts: Iterable[UserFacts]) -> Plan:
    """The plan for these users."""
    return Plan(data, layout.name, tuple(plan_user(layout, one) for one in facts))


def plan_user(layout: Layout, facts: UserFacts) -> UserPlan:
    """What will be done for this user, or why nothing."""
    action, reason = _judged(layout, facts)
    plan = UserPlan(facts.user, action, reason, backups=layout.backups, budget_bytes=layout.backup_budget_bytes)
    if action in {"skip", "refuse", "finish"}:
        return plan
    plan = replace(plan, record=_record(layout, facts))
    return plan if action == "record" else _with_parts(plan, layout, facts)


def settle(layout: Layout, facts: UserFacts) -> UserPlan:
    """All parts of this user, whatever is there of them: for mending what another tool has left half-way."""
    plan = UserPlan(facts.user, "migrate", backups=layout.backups, record=_record(layout, facts))
    plan = _with_parts(plan, layout, facts)
    pairs = zip(layout.folders, facts.folders, strict=True)
    there = [(move, old, new) for move, (old, new) in pairs if "folder" in {old.kind, new.kind}]
    folders = (Part(move.old, move.new, old.bytes, old.files, old.device != new.device) for move, old, new in there)
    return replace(plan, folders=tuple(folders))


def reverse(plan: UserPlan) -> UserPlan:
    """The way back: what moved moves again, the other way."""
    database = plan.database
    return replace(
        plan,
        database=None if database is None else replace(database, old=database.new, new=database.old),
        folders=tuple(replace(part, old=part.new, new=part.old) for part in plan.folders),
    )


def margin(needed: int) -> int:
    """What must stay free beside `needed` bytes."""
    return max(MARGIN_BYTES, int(needed * MARGIN_SHARE))


def _judged(layout: Layout, facts: UserFacts) -> tuple[Action, str]:
    if objection := _untouchable(facts):
        return "refuse", objection
    if facts.journal in {"migrating", "rolling_back"}:
        return "finish", "an earlier run was interrupted"
    if layout.moves:
        return _judged_by_files(layout, facts)
    if facts.user in layout.ignored:
        return "skip", "no user's folder"
    return ("skip", "recorded already") if facts.recorded else ("record", "")


def _untouchable(facts: UserFacts) -> str:
    if not facts.user.isprintable():
        return "the folder's name cannot be written into a database or a terminal"
    if facts.problem:
        return facts.problem
    if facts.journal == "needs_attention":
        return "an earlier migration needs attention; `status` tells where each copy lies"
    return ""


def _judged_by_files(layout: Layout, facts: UserFacts) -> tuple[Action, str]:
    if facts.old.kind == "absent" or (facts.new.is_there and not facts.old.is_there and facts.old.kind == "file"):
        return _without_old(layout, facts)
    if facts.new.is_there:
        return "refuse", f"both {layout.database.old} and {layout.database.new} are there; see `audit`"
    if facts.old.kind != "file":
        return "refuse", f"{layout.database.old} is a {facts.old.kind}, not a file"
    for move, (old, new) in zip(layout.folders, facts.folders, strict=True):
        if objection := _objection(move, old, new):
            return "refuse", objection
    return "migrate", ""


def _without_old(layout: Layout, facts: UserFacts) -> tuple[Action, str]:
    if not facts.new.is_there:
        left = f", but a log of {facts.log_bytes:,} bytes is left of one; see `audit`" if facts.log_bytes else ""
        return "skip", f"no {layout.database.old}{left}"
    left_over = [move.old for move, (old, _) in zip(layout.folders, facts.folders, strict=True) if old.is_there]
    wrong = [f"{name}/ stayed behind" for name in left_over]
    if facts.log_bytes:
        wrong.append(f"{layout.database.old}-wal with {facts.log_bytes:,} bytes stayed behind")
    if layout.registry is not None and not facts.recorded:
        wrong.append("it has no row")
    return "skip", "migrated already" + (f", but {', '.join(wrong)}; see `audit`" if wrong else "")


def _objection(move: Move, old: Seen, new: Seen) -> str:
    if not old.is_there:
        return ""
    if old.kind == "mount":
        return f"{move.old} is a mount point: mount it at {move.new} instead"
    if new.kind == "mount":
        return f"{move.new} is a mount point, which no folder can be put in the place of: mount the folder above it"
    if old.kind != "folder":
        return f"{move.old} is a {old.kind}, not a folder"
    if new.kind not in {"absent", "folder"}:
        return f"{move.new} is a {new.kind}, not a folder"
    return f"both {move.old} and {move.new} have files; see `audit`" if new.files else ""


def _record(layout: Layout, facts: UserFacts) -> Record | None:
    if layout.registry is None:
        return None
    row = uuid.uuid5(_ROWS, f"{layout.registry.database}/{layout.registry.slug}/{facts.user!r}")
    return Record(layout.registry, str(row), not facts.recorded)


def _with_parts(plan: UserPlan, layout: Layout, facts: UserFacts) -> UserPlan:
    size = facts.old.bytes + facts.log_bytes
    database = Part(layout.database.old, layout.database.new, size, 1, facts.old.device != facts.new.device)
    folders = tuple(
        Part(move.old, move.new, old.bytes, old.files, old.device != new.device)
        for move, (old, new) in zip(layout.folders, facts.folders, strict=True)
        if old.kind == "folder"
    )
    needs: dict[int, int] = {facts.old.device: size}
    needs[facts.new.device] = needs.get(facts.new.device, 0) + size
    for part, (_, new) in zip(folders, (pair for pair in facts.folders if pair[0].kind == "folder"), strict=True):
        if part.crosses:
            needs[new.device] = needs.get(new.device, 0) + part.bytes
    return replace(plan, database=database, folders=folders, needs=tuple(sorted(needs.items())))
