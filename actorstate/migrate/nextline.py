"""What to type next, ready to be copied into a shell whatever the names are."""

import re
import shlex
from pathlib import Path

from actorstate.errors import ActorStateError


def command_line(verb: str, data: Path, user: str = "", *options: str) -> str:
    """`actorstate migrate VERB profiles DATA`, for one user with `--user`."""
    asked = [f"--user={shlex.quote(user)}" if user.startswith("-") else f"--user {shlex.quote(user)}"] if user else []
    return " ".join(("actorstate migrate", verb, "profiles", shlex.quote(str(data)), *asked, *options))


def attention_step(data: Path, user: str) -> str:
    """What to type for a user who needs attention."""
    line = command_line("audit", data, user, "--mend --keep old")
    return f"look at both copies; the one to keep: {line} (or: --keep new)"


def look_closer(data: Path, user: str, reason: str) -> str:
    """The line for the command that a reason names; empty where it names none."""
    named = re.search("`(audit|status)`", reason)
    return f"look closer: {command_line(named[1], data, user)}" if named else ""


def hint_of(data: Path, error: Exception) -> str:
    """The error's own word on what to type, for this DATA; empty where it has none."""
    hint = error.hint if isinstance(error, ActorStateError) else ""
    return re.sub(r"\bDIR\b", lambda _: shlex.quote(str(data)), hint)


def whole(data: Path, error: Exception) -> str:
    """What happened and what to type, in one line."""
    return "; next: ".join(filter(None, (str(getattr(error, "message", error)), hint_of(data, error))))
