"""Jobs and errors as lines of JSON (`core/plain.py` says how values are written)."""

import json

from actorstate.core.messages.document import JobState
from actorstate.core.plain import as_plain
from actorstate.errors import ActorStateError


def job_json(state: JobState) -> str:
    """The job in one line."""
    return line(as_plain(state))


def error_json(error: ActorStateError, hint: str) -> str:
    """`{"error": {code, message, hint, retryable, details}}` in one line."""
    told = {
        "code": error.code,
        "message": error.message,
        "hint": hint,
        "retryable": error.retryable,
        "details": error.details,
    }
    return line({"error": as_plain(told)})


def line(value: object) -> str:
    """One line of ASCII, whatever the locale."""
    return json.dumps(value, allow_nan=False)
