"""Values as JSON takes them: times ISO 8601 with Z, bytes base64, no field left out, so that scripts need not guess."""

import base64
import math
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import cast

from actorstate.core.messages.document import Checkpoint, Document, Progress, Step
from actorstate.core.messages.payload import unpack
from actorstate.errors import CorruptJob

_INTERNAL = {"samples"}


def as_plain(value: object) -> object:
    """What `json` can write: Structs and dataclasses become dicts by field; NaN and infinity become null.

    One frame a level: user data may nest 511 levels deep, and the interpreter allows 1,000 frames.
    """
    if isinstance(value, dict):
        mapping: dict[str, object] = {}
        for key, item in cast("dict[object, object]", value).items():
            mapping[key if isinstance(key, str) else str(_scalar(key))] = as_plain(item)
        return mapping
    if isinstance(value, list | tuple):
        sequence: list[object] = []
        for item in cast("list[object]", value):
            sequence.append(as_plain(item))  # noqa: PERF401 - a comprehension is a frame of its own
        return sequence
    fields = getattr(value, "__struct_fields__", None) or getattr(value, "__dataclass_fields__", None)
    return _scalar(value) if fields is None else _fields(value, fields)


def _scalar(value: object) -> object:
    if isinstance(value, datetime):
        return time_text(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def time_text(at: datetime) -> str:
    """ISO 8601 in UTC with milliseconds and Z."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fields(value: object, names: Iterable[str]) -> dict[str, object]:
    plain: dict[str, object] = {}
    for name in names:
        if name == "packed" and isinstance(value, Checkpoint | Step):
            plain["data"] = _unpacked(value.packed)
        elif name == "packed_meta" and isinstance(value, Document):
            plain["meta"] = {key: _unpacked(packed) for key, packed in value.packed_meta.items()}
        elif name not in _INTERNAL:
            plain[name] = as_plain(getattr(value, name))
    if isinstance(value, Progress):
        plain["percent"] = value.percent
    return plain


def _unpacked(packed: bytes) -> object:
    """The user's data; bytes that no client of ours has packed are shown as they are, not hidden by an error."""
    try:
        return as_plain(unpack(packed)) if packed else None
    except CorruptJob:
        return {"unreadable": base64.b64encode(packed).decode()}
