"""Errors as problem+json (RFC 9457): what happened, its code and whether to come again; no paths and no traceback."""

import logging
from functools import lru_cache
from pathlib import Path

from actorstate.errors import (
    ActorStateError,
    BadRequest,
    Busy,
    Conflict,
    CorruptJob,
    DiskFull,
    HistoryPruned,
    IllegalTransition,
    JobFinished,
    JobNotFound,
    OutcomeUnknown,
    RequestRefused,
    TooLarge,
    WriterUnavailable,
)
from actorstate.store.location import JSON_SCHEME, quoted
from actorstate.web.values import FORGET, Headers, Response, json_bytes

log = logging.getLogger("actorstate.web")
LATER: Headers = (("Retry-After", "1"),)
"""When to come again (seconds)."""

STATUSES: dict[type[ActorStateError], int] = {
    TooLarge: 413,
    BadRequest: 400,
    JobNotFound: 404,
    HistoryPruned: 410,
    Conflict: 409,
    IllegalTransition: 409,
    JobFinished: 409,
    Busy: 503,
    DiskFull: 503,
    WriterUnavailable: 503,
    OutcomeUnknown: 504,
    CorruptJob: 500,
}
"""The first class that an error belongs to tells its status; a refusal of another kind is 409, all else 500."""

TITLES = {
    400: "the request is wrong",
    403: "not allowed",
    404: "not found",
    405: "method not allowed",
    409: "not possible now",
    410: "not kept any more",
    411: "length required",
    413: "too large",
    421: "not this server's name",
    500: "the server failed",
    501: "not offered here",
    503: "try again soon",
    504: "no answer tells whether it was done",
}


def problem(status: int, code: str, detail: str, headers: Headers = ()) -> Response:
    """One error; 503 says when to come again."""
    told = {"type": "about:blank", "title": TITLES[status], "status": status, "detail": detail, "code": code}
    later = LATER if status == 503 else ()  # noqa: PLR2004 - Service Unavailable
    return Response(
        status,
        (("Content-Type", "application/problem+json"), *FORGET, *later, *headers),
        json_bytes(told),
    )


def problem_of(error: ActorStateError) -> Response:
    """The error for the eyes of strangers: what the writer refused with, else only the kind of trouble."""
    if isinstance(error, WriterUnavailable) and _is_missing(str(error.details.get("directory", ""))):
        return problem(503, error.code, "this server was given a directory that there is not; its log names it")
    known = isinstance(error, RequestRefused)
    detail = error.message if known else (type(error).__doc__ or "").partition("\n")[0]
    return problem(status_of(error), error.code, detail)


def _is_missing(place: str) -> bool:
    """Whether no writer can be there, ever: a mistyped path looks like an outage otherwise."""
    folder = place.removeprefix(JSON_SCHEME)
    missing = folder.startswith("/") and not Path(folder).exists()
    if missing:
        _log_missing(place)
    return missing


@lru_cache(16)
def _log_missing(place: str) -> None:
    """Once in a process: each request meets it."""
    log.error(
        "there is no directory %s: check the path that this server was given, or begin it with: actorstate serve %s",
        place,
        quoted(place),
    )


def status_of(error: ActorStateError) -> int:
    """The HTTP status of an error."""
    found = (status for kind, status in STATUSES.items() if isinstance(error, kind))
    return next(found, 409 if isinstance(error, RequestRefused) else 500)
