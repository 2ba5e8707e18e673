"""The older tool's words and times, and ours."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal, cast

from actorstate.core.messages.document import Status

JOB_TYPES = ("flow_clone", "item_migration", "cleanup")
OTHER_JOB_TYPE = "item_migration"
"""What a job of a kind that the older tool has no word for is to it; our word stays under our own key."""

STATUS_OF: Mapping[str, tuple[Status, str | None]] = {
    "planning": ("pending", None),
    "in_progress": ("running", None),
    "detecting": ("running", "detecting"),
    "deleting": ("running", "deleting"),
    "waiting_approval": ("waiting", None),
    "paused": ("paused", None),
    "completed": ("completed", None),
    "failed": ("failed", None),
    "cancelled": ("cancelled", None),
}
"""Our status and phase for each of the older tool's words."""
UNKNOWN_STATUS: tuple[Status, str | None] = ("paused", None)

StepStatus = Literal["running", "done", "failed", "skipped"]
STEP_STATUS_OF: Mapping[str, StepStatus] = {"in_progress": "running", "completed": "done", "failed": "failed"}
STEP_WORDS: Mapping[StepStatus, str] = {
    "running": "in_progress",
    "done": "completed",
    "failed": "failed",
    "skipped": "completed",
}
CATEGORIES = ("network", "validation", "permission", "rate_limit", "duplicate", "unknown")
"""All categories of failure that the older tool has; it counts every other one as `unknown`."""

Plain = dict[str, object]
"""A JSON object, in the order in which it stands in the file."""


def status_word(status: Status, phase: str | None) -> str:
    """The older tool's word for our status."""
    for word, (ours, its_phase) in STATUS_OF.items():
        if status == ours and its_phase is not None and phase == its_phase:
            return word
    return next(word for word, (ours, its_phase) in STATUS_OF.items() if status == ours and its_phase is None)


def time_text(at: datetime) -> str:
    """ISO 8601 as JavaScript writes it: UTC, milliseconds, Z."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def time_of(text: object) -> datetime | None:
    """The aware time that a text means; None when it means none. Without a zone it is taken for UTC."""
    if not isinstance(text, str):
        return None
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def plain_object(value: object) -> Plain:
    """The value if it is a JSON object, else an empty one."""
    return cast("Plain", value) if isinstance(value, dict) else {}


def plain_list(value: object) -> list[object]:
    """The value if it is a JSON array, else an empty one."""
    return cast("list[object]", value) if isinstance(value, list) else []


def count_of(value: object) -> int:
    """A whole number that is not negative; 0 for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 2**53:
        return 0
    return int(value)


def seconds_of(value: object) -> float:
    """A number that is not negative; 0 for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:  # noqa: PLR2004 - 30,000 years, and no infinity
        return 0.0
    return float(value)
