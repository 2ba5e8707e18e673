"""What a job can be told at its creation, checked before it is sent."""

from datetime import UTC, datetime
from typing import TypedDict, get_args

from actorstate.client.calls import checked_job_id
from actorstate.core.messages.document import HealthRules, OnDead
from actorstate.core.messages.payload import pack
from actorstate.core.messages.requests import MAX_COUNT, CreateJob
from actorstate.errors import BadRequest

LEAST, MOST = 0.001, 1e9
"""Bounds of ages (seconds) and speeds (rows a second)."""
MAX_KEY = 128
MAX_QUESTION = 2_000


class JobOptions(TypedDict, total=False):
    """The further options of `create` and `run`; what they mean is told there."""

    unique_key: str | None
    needs_approval: bool | str
    late_after_s: float | None
    dead_after_s: float | None
    stalled_after_s: float | None
    on_dead: OnDead
    expire_after_s: float | None


_OPTIONS = ", ".join(JobOptions.__annotations__)


def new_job(
    job: str,
    kind: str,
    total: int | None,
    unit: str,
    *,
    labels: dict[str, str] | None = None,
    meta: dict[str, object] | None = None,
    options: JobOptions,
) -> CreateJob:
    """The request. Raises BadJobId, BadRequest, and TypeError for an option that there is none of."""
    if unknown := options.keys() - JobOptions.__annotations__.keys():
        raise TypeError(f"there is no option {', '.join(map(repr, sorted(unknown)))}; those there are: {_OPTIONS}")
    return CreateJob(
        checked_job_id(job),
        kind,
        total,
        unit,
        labels or {},
        {key: pack(value) for key, value in (meta or {}).items()},
        unique_key=_checked_key(options.get("unique_key")),
        health_rules=_health_rules(options),
        expire_after_s=_checked("expire_after_s", options.get("expire_after_s")),
        question=_question(job, asked=options.get("needs_approval", False)),
    )


def checked_speed(rows_per_s: float | None) -> float | None:
    """The speed as it is. Raises BadRequest outside the bounds."""
    return _checked("rows_per_s", rows_per_s)


def checked_moment(at: int | datetime) -> tuple[int | None, datetime | None]:
    """A revision, or a time. Raises BadRequest for a naive time, and for what is no revision."""
    if isinstance(at, datetime):
        if at.utcoffset() is None:
            raise BadRequest(
                f"the time {at.isoformat()} has no time zone",
                hint="say which it is in: datetime(..., tzinfo=UTC), or datetime.now(UTC) - timedelta(minutes=5)",
            )
        try:
            return None, at.astimezone(UTC)
        except OverflowError as error:
            raise BadRequest(f"the time {at.isoformat()} lies in no year from 1 to 9999 of UTC") from error
    if isinstance(at, bool) or not 1 <= at <= MAX_COUNT:
        raise BadRequest(f"{at!r} is no revision", hint="revisions count from 1; see: actorstate log DIR JOB")
    return at, None


def _health_rules(options: JobOptions) -> HealthRules:
    on_dead = options.get("on_dead", "nothing")
    if on_dead not in get_args(OnDead):
        raise BadRequest(f"on_dead is one of {', '.join(get_args(OnDead))}, not {on_dead!r}")
    return HealthRules(
        late_after_s=_checked("late_after_s", options.get("late_after_s")),
        dead_after_s=_checked("dead_after_s", options.get("dead_after_s")),
        stalled_after_s=_checked("stalled_after_s", options.get("stalled_after_s")),
        on_dead=on_dead,
    )


def _checked(name: str, value: float | None) -> float | None:
    if value is not None and not LEAST <= value <= MOST:
        raise BadRequest(f"{name} is {LEAST:g} to {MOST:g}, or None; not {value!r}")
    return value


def _checked_key(key: str | None) -> str | None:
    if key is not None and not 1 <= len(key) <= MAX_KEY:
        raise BadRequest(f"a unique key has 1 to {MAX_KEY} characters, not {len(key)}")
    return key


def _question(job: str, *, asked: bool | str) -> str | None:
    if not asked:
        return None
    return f"may {job} begin?" if asked is True else asked[:MAX_QUESTION]
