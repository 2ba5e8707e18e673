"""Values out of a query string; what is not understood is refused with `BadRequest`, never guessed."""

from collections.abc import Mapping

from actorstate.errors import BadRequest

Query = Mapping[str, str]
USUAL_PAGE, MAX_PAGE = 100, 1000


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


def page_size(query: Query) -> int:
    """`limit`: how many of a list in one answer."""
    value = query.get("limit", str(USUAL_PAGE))
    if not (value.isascii() and value.isdigit() and len(value) <= 4 and 1 <= int(value) <= MAX_PAGE):  # noqa: PLR2004 - the digits of MAX_PAGE
        raise BadRequest(f"limit is a number from 1 to {MAX_PAGE}")
    return int(value)
