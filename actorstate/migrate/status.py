"""What the journals tell: how far each user's migration is, where his copies lie, and what to type next. Reads only."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from actorstate.errors import UserRefused
from actorstate.migrate.journal import UNFINISHED, Journal, read_journal
from actorstate.migrate.nextline import attention_step, command_line, hint_of
from actorstate.migrate.survey import users_in


@dataclass(frozen=True, slots=True)
class Standing:
    """One user's migration as its journal tells it."""

    user: str
    state: str
    step: str = ""
    reason: str = ""
    backups: tuple[str, ...] = ()
    ended: float | None = None
    copies: tuple[tuple[str, str], ...] = ()
    next: str = ""
    history: tuple[tuple[str, float], ...] = ()


def standings(data: Path, user: str | None = None) -> Iterator[Standing]:
    """Every user with a journal, or one. Raises UserRefused for one who is not there."""
    for one in users_in(data, user):
        try:
            kept = read_journal(data / one)
        except UserRefused as error:
            yield Standing(one, "refused", reason=error.message, next=hint_of(data, error))
            continue
        if kept is not None:
            yield _standing(data, kept)


def _standing(data: Path, kept: Journal) -> Standing:
    return Standing(
        kept.plan.user,
        kept.state,
        kept.step,
        kept.reason,
        tuple(str(data / kept.plan.user / name) for name in kept.backups),
        None if kept.ended is None else kept.ended.wall,
        kept.copies,
        _next(data, kept),
        kept.history,
    )


def taken_up_by(data: Path, kept: Journal) -> str:
    """What finishes what was begun, in the direction that was asked for: `run` would migrate all others as well."""
    if kept.from_backup or (kept.origin and kept.state != "rolling_back"):
        return command_line("rollback", data, kept.plan.user, "--from-backup")
    if kept.state == "rolling_back":
        return command_line("rollback", data, kept.plan.user)
    return command_line("run", data)


def _next(data: Path, kept: Journal) -> str:
    if kept.state == "needs_attention":
        return attention_step(data, kept.plan.user)
    if kept.state in UNFINISHED or kept.state == "undone":
        return taken_up_by(data, kept)
    if kept.state == "done":
        return f"to undo it: {command_line('rollback', data, kept.plan.user)}"
    return ""
