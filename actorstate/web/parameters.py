"""Values out of a query string; what is not understood is refused with `BadRequest`, never guessed."""

from collections.abc import Mapping
from datetime import datetime

from actorstate.core.messages.requests import MAX_COUNT
from actorstate.errors import BadRequest

Query = Mapping[str, str]
USUAL_PAGE, MAX_PAGE = 100, 1000
MAX_CHANGES = 500


def one_of(query: Query, name: str, values: tuple[str, ...]) -> str | None:
    """One of few values, or None where it is not given."""
    value = query.get(name) or None
    if value is not None and value not in values:
        raise BadRequest(f"{name} is one of {', '.join(values)}")
    return value


def text(query: Query, name: str, max_length: int) -> str:
    """Any text that is not too long; empty where it is not given."""
    value = query.get(name, "")
    if len(value) > max_length or "\0" in value:
        raise BadRequest(f"{name} is a text of at most {max_length} characters")
    return value


def number(query: Query, name: str, highest: float) -> float:
    """A decimal number from 0 to `highest`; 0 where it is not given."""
    value = query.get(name, "0")
    plain = value.isascii() and value.replace(".", "", 1).isdigit()
    if not plain or len(value) > 20 or float(value) > highest:  # noqa: PLR2004 - more digits say nothing
        raise BadRequest(f"{name} is a number from 0 to {highest:g}")
    return float(value)


def whole(query: Query, name: str, usual: int, highest: int) -> int:
    """A whole number from 1 to `highest`; `usual` where it is not given."""
    value = query.get(name, str(usual))
    if not (value.isascii() and value.isdigit() and len(value) <= 16 and 1 <= int(value) <= highest):  # noqa: PLR2004 - the digits of 2**53
        raise BadRequest(f"{name} is a whole number from 1 to {highest}")
    return int(value)


def page_size(query: Query, highest: int = MAX_PAGE) -> int:
    """`limit`: how many of a list in one answer."""
    return whole(query, "limit", USUAL_PAGE, highest)


def moment(query: Query, name: str) -> int | datetime | None:
    """A revision, or a time with its zone in ISO 8601; None where it is not given."""
    value = query.get(name, "").replace(" ", "+")  # what a plus sign in an address means
    if value.isascii() and value.isdigit():
        return whole(query, name, 1, MAX_COUNT)
    try:
        return datetime.fromisoformat(value) if value else None
    except ValueError as error:
        raise BadRequest(f"{name} is a revision, or a time like 2026-11-23T02:00:00Z") from error
