"""What to type next, ready to be copied into a shell whatever the names are."""

import shlex
from pathlib import Path


def command_line(verb: str, data: Path, user: str = "", *options: str) -> str:
    """`actorstate migrate VERB profiles DATA`, for one user with `--user`."""
    asked = [f"--user={shlex.quote(user)}" if user.startswith("-") else f"--user {shlex.quote(user)}"] if user else []
    return " ".join(("actorstate migrate", verb, "profiles", shlex.quote(str(data)), *asked, *options))
