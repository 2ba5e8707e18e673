"""A worker's words as they go over the wire: names, texts and outcomes of items, bounded, and redacted if asked."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, cast, get_args

from actorstate.core.messages.requests import Counts, ItemReport
from actorstate.errors import BadRequest, CorruptItem, CorruptJob

MAX_TEXT = 2_000
MAX_KEY = 256
MAX_NAME = 128
MAX_CHUNK_ITEMS = 256
MAX_CHUNK_BYTES = 32 * 1024
"""Items that are said together go in pieces of this size; a message takes a few of them (`client/pending.py`)."""
UNKNOWN = "unknown"
DAMAGED_TOLD = 20

Outcome = Literal["failed", "skipped", "duplicate", "succeeded"]
Redact = Callable[[str], str]


def checked_name(text: str) -> str:
    """A name of 1 to 128 characters; raises BadRequest."""
    if not 1 <= len(text) <= MAX_NAME:
        raise BadRequest(f"a name has 1 to {MAX_NAME} characters, not {len(text)}")
    return sendable_text(text, MAX_NAME)


def sendable_text(value: object, limit: int) -> str:
    """Text as it may go over the wire: bounded, and without lone surrogates, which error texts can hold."""
    return str(value)[:limit].encode("utf-8", "replace").decode()


def redacted_text(value: object, redact: Redact | None) -> str:
    """An error's text. Redacted before it is cut, since half a secret is recognised by nobody.

    A `redact` that fails lets nothing through, and does not stand in the way of what is to be reported.
    """
    if redact is None:
        return sendable_text(value, MAX_TEXT)
    try:
        return sendable_text(redact(str(value)), MAX_TEXT)
    except Exception as error:  # noqa: BLE001 - somebody else's code, in the middle of reporting a failure
        return f"(not shown: the redaction failed with {type(error).__name__})"


def outcome_of(key: object, outcome: Outcome, category: str | None, error: str = "") -> ItemReport:
    """The report of one item; a failure without a category is `unknown`."""
    name = UNKNOWN if category is None and outcome == "failed" else category
    text = "" if key is None else sendable_text(key, MAX_KEY)
    return ItemReport(text, outcome, "" if name is None else checked_name(name), error)


def in_chunks(
    outcome: str, rows: Mapping[Any, object] | Iterable[object], category: str | None, redact: Redact | None
) -> Iterator[tuple[ItemReport, ...]]:
    """The reports of many items, in pieces that fit into a message. Raises BadRequest for no outcome."""
    if outcome not in get_args(Outcome):
        raise BadRequest(f"an outcome is {', '.join(get_args(Outcome))}, not {outcome!r}")
    word = cast("Outcome", outcome)
    texts: Mapping[object, object] = cast("Mapping[object, object]", rows) if isinstance(rows, Mapping) else {}
    return chunked(
        outcome_of(_checked_key(key), word, category, redacted_text(texts.get(key, ""), redact)) for key in rows
    )


def _checked_key(key: object) -> object:
    """The key as it is; pairs are most likely keys with their texts, and would be stored as odd keys."""
    if isinstance(key, tuple | list | dict):
        raise BadRequest(f"{key!r:.80} is no key", hint="give keys, or a mapping of keys to error texts: dict(pairs)")
    return key


def chunked(items: Iterable[ItemReport]) -> Iterator[tuple[ItemReport, ...]]:
    """The items in pieces that fit into a message."""
    chunk: list[ItemReport] = []
    size = 0
    for item in items:
        chunk.append(item)
        size += bytes_of(item)
        if len(chunk) >= MAX_CHUNK_ITEMS or size >= MAX_CHUNK_BYTES:
            yield tuple(chunk)
            chunk, size = [], 0
    if chunk:
        yield tuple(chunk)


def bytes_of(item: ItemReport) -> int:
    """About how many bytes the item takes in a message, never less."""
    return 64 + len(item.key.encode()) + len(item.category.encode()) + len(item.error.encode())


def counts_of(items: Iterable[ItemReport]) -> Counts:
    """What the items count for."""
    outcomes = dict.fromkeys(get_args(Outcome), 0)
    by_category: dict[str, int] = {}
    for item in items:
        outcomes[item.outcome] += 1
        if item.outcome == "failed":
            by_category[item.category] = by_category.get(item.category, 0) + 1
    return Counts(
        outcomes["succeeded"],
        outcomes["failed"],
        outcomes["skipped"],
        outcomes["duplicate"],
        by_category=by_category,
    )


def check_damaged(job: str, keys: list[str]) -> None:
    """Raises CorruptItem, once all others were handed out, where some items of the ledger cannot be read."""
    if not keys:
        return
    raise CorruptItem(f"{len(keys)} items of job {job!r} are damaged: {_some(keys)}", job=job, key=keys[0])


def check_readable(jobs: list[str]) -> None:
    """Raises CorruptJob, once all others were handed out, where some (`number`) of the jobs cannot be read."""
    if jobs:
        left_out = f"damaged, and left out, {'is 1 job' if len(jobs) == 1 else f'are {len(jobs):,} jobs'}"
        hint = "see what is wrong with them: actorstate verify DIR"
        raise CorruptJob(f"{left_out}: {_some(jobs)}", hint=hint, job=jobs[0], number=len(jobs))


def _some(names: list[str]) -> str:
    return ", ".join(map(repr, names[:DAMAGED_TOLD])) + (", ..." if len(names) > DAMAGED_TOLD else "")
