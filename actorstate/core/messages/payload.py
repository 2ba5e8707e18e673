"""The user's own data (checkpoints, meta, step details): packed at the edges, opaque to the writer."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import cast

import msgpack

from actorstate.errors import BadRequest, CorruptJob, TooLarge

_packb = cast("Callable[..., bytes]", msgpack.packb)  # pyright: ignore[reportUnknownMemberType] - it ships no types
_unpackb = cast("Callable[..., object]", msgpack.unpackb)  # pyright: ignore[reportUnknownMemberType] - as above

MAX_PAYLOAD_BYTES = 256 * 1024
MAX_ITEMS = 100_000
"""Larger values are refused with `TooLarge`, before anything is sent."""


def pack(value: object) -> bytes:
    """msgpack bytes of None, bool, int, float, str, bytes, list, tuple, dict and aware datetime.

    Raises BadRequest for any other type and for a naive datetime, TooLarge above 256 KiB.
    """
    try:
        packed = _packb(value, datetime=True, default=_as_utc)
        _unpacked(packed)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        if "exceeds max_" in str(error):
            raise TooLarge(f"a list or dict has more than {MAX_ITEMS:,} items") from error
        raise BadRequest(
            f"this value cannot be saved: {error}",
            hint="use numbers, text, bytes, lists, dicts with text keys and datetimes with a time zone",
        ) from error
    if len(packed) > MAX_PAYLOAD_BYTES:
        raise TooLarge(f"a value of {len(packed):,} bytes is over the limit of {MAX_PAYLOAD_BYTES:,}")
    return packed


def unpack(packed: bytes) -> object:
    """The value that `pack` was given; tuples come back as lists, datetimes as aware UTC."""
    try:
        return _unpacked(packed)
    except (ValueError, OverflowError, TypeError, RecursionError) as error:
        raise CorruptJob(f"a saved value cannot be read: {error}") from error


def _unpacked(packed: bytes) -> object:
    """Read as strictly when a value is packed, so that nothing is saved that cannot be read again."""
    return _unpackb(packed, timestamp=3, ext_hook=_no_extension, max_array_len=MAX_ITEMS, max_map_len=MAX_ITEMS)


def _no_extension(code: int, _data: bytes) -> object:
    raise ValueError(f"msgpack extension {code} is not supported")


def _as_utc(value: object) -> object:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC)
    raise TypeError(f"{type(value).__name__} {value!r}"[:200])
