"""Rate, ETA and health: functions of state, message and `Now`. No clock is read here."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from msgspec.structs import replace

from actorstate.core.messages.document import Document, Health, Progress, Rate

SAMPLE_EVERY_S = 1.0
FIRST_SAMPLES_S = 0.2
MAX_SAMPLES = 31
"""The window is at most 30 samples of at least a second (the first few come sooner); the oldest leaves."""
MIN_SPAN_S = 0.1
MAX_ETA_S = 10 * 365 * 86_400.0
"""A remaining time over ten years is not an estimate: None instead."""

SEVERITY: tuple[Health, ...] = ("healthy", "late", "stalled", "dead")


@dataclass(frozen=True, slots=True)
class Now:
    """The present: `wall` as aware UTC for people, `monotonic` in seconds for every duration."""

    wall: datetime
    monotonic: float


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Seconds after which a worker is late, dead (no beat) or stalled (beats, but no progress)."""

    late_after_s: float
    dead_after_s: float
    stalled_after_s: float


def measured(rate: Rate, progress: Progress, at: datetime, limit: float | None = None) -> Rate:
    """Rate and ETA after `progress`: least squares would be smoother, two ends of a window are honest.

    `limit` is a throttle in rows a second: the estimate never assumes more.
    """
    samples = (*rate.samples[-(MAX_SAMPLES - 1) :], (rate.active_s, progress.processed))
    (first_s, first), (last_s, last) = samples[0], (rate.active_s, progress.processed)
    span = last_s - first_s
    if span < MIN_SPAN_S or last <= first:
        stalled = 0.0 if span >= MIN_SPAN_S else None
        return replace(rate, samples=samples, per_s=stalled, eta=None, eta_low=None, eta_high=None)
    per_s = (last - first) / span
    return estimated(replace(rate, samples=samples, per_s=per_s, window_s=span), progress, at, limit)


def estimated(rate: Rate, progress: Progress, at: datetime, limit: float | None) -> Rate:
    """The same rate with its ETA anew. Where it is not known yet, workers that wait for `limit` reach it."""
    slow, fast = _extremes(rate.samples, rate.per_s) if rate.per_s and len(rate.samples) > 1 else (rate.per_s,) * 2
    likely, low, high = (_within(limit, per_s) for per_s in (rate.per_s, fast, slow))
    return replace(
        rate, eta=_eta(progress, likely, at), eta_low=_eta(progress, low, at), eta_high=_eta(progress, high, at)
    )


def _within(limit: float | None, per_s: float | None) -> float:
    known = [speed for speed in (limit, per_s) if speed is not None]
    return min(known, default=0.0)


def without_eta(rate: Rate) -> Rate:
    """A job that does not run has no arrival."""
    if rate.eta is None:
        return rate
    return replace(rate, eta=None, eta_low=None, eta_high=None)


def judge(beat_age_s: float, progress_age_s: float, limits: Thresholds, *, paused: bool) -> Health:
    """A worker's health from the writer's monotonic clock. A paused job cannot stall."""
    if beat_age_s >= limits.dead_after_s:
        return "dead"
    if beat_age_s >= limits.late_after_s:
        return "late"
    if progress_age_s >= limits.stalled_after_s and not paused:
        return "stalled"
    return "healthy"


def health_of(document: Document) -> Health | None:
    """The job's health: that of its worst worker; paused while it is paused; None without workers."""
    if document.finished or not document.workers:
        return None
    if document.status == "paused":
        return "paused"
    found = {worker.health for worker in document.workers.values()}
    return next(health for health in reversed(SEVERITY) if health in found)


def _extremes(samples: tuple[tuple[float, int], ...], per_s: float) -> tuple[float, float]:
    """The slower and the faster half of the window, in rows a second."""
    (first_s, first), (middle_s, middle), (last_s, last) = samples[0], samples[len(samples) // 2], samples[-1]
    if middle_s - first_s < MIN_SPAN_S or last_s - middle_s < MIN_SPAN_S:
        return per_s, per_s
    halves = ((middle - first) / (middle_s - first_s), (last - middle) / (last_s - middle_s))
    return min(halves), max(halves)


def _eta(progress: Progress, per_s: float, at: datetime) -> datetime | None:
    if progress.total is None or per_s <= 0:
        return None
    remaining_s = max(0, progress.total - progress.processed) / per_s
    return at + timedelta(seconds=remaining_s) if remaining_s <= MAX_ETA_S else None
