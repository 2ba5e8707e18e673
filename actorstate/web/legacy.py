"""A job under the names of the older tool (`GET /api/migration/items/{jobId}`), so that its page keeps working.

Its page asks every three seconds, stops at 404 and at completed, failed and cancelled, and leaves out
what is not there. Counts that the older tool did not have (skipped, duplicates) are in `processed`.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from actorstate.core.messages.document import Attempt, ItemState, JobState, Progress

MAX_FAILED_ITEMS = 1000
"""The older tool sent its whole log with every answer; the rest is paged under `api/jobs/{id}/items`."""
STATUSES = {"pending": "planning", "running": "in_progress", "waiting": "waiting_approval"}
PHASES = {"detecting", "deleting"}
RETRIED_BY_ITSELF = {"network", "rate_limit", "unknown"}


def legacy_job(state: JobState, failed: Sequence[ItemState]) -> dict[str, object]:
    """The answer of the older tool; `failed` are the items that are to be listed one by one."""
    meta = state.meta
    told = {
        "jobId": state.id,
        "status": _status(state),
        "mode": meta.get("mode", "create"),
        "progress": _progress(state.progress, state.updated_at),
        "throughput": _throughput(state),
        "errors": [
            {"itemId": error.key, "message": error.message, "code": error.category, "timestamp": error.at}
            for error in state.errors
        ],
        "fieldMapping": meta.get("fieldMapping"),
        "errorsByCategory": _by_category(state.progress),
        "resumeToken": meta.get("resumeToken"),
        "canResume": state.status == "paused" or (state.status == "failed" and bool(state.checkpoints)),
        "startedAt": state.started_at or state.created_at,
        "completedAt": state.finished_at,
        "failedItems": [{"sourceItemId": item.key, "error": item.error, "timestamp": item.last_at} for item in failed],
        "retryAttempts": state.attempt - 1,
        "dryRunPreview": meta.get("dryRunPreview"),
        **(_last_attempt(state.attempts[-1]) if state.attempts else {}),
    }
    return {name: value for name, value in told.items() if value is not None}


def _status(state: JobState) -> str:
    if state.status == "running" and state.phase in PHASES:
        return state.phase or ""
    return STATUSES.get(state.status, state.status)


def _progress(progress: Progress, at: datetime) -> dict[str, object]:
    return {
        "total": progress.total or 0,
        "processed": progress.processed,
        "successful": progress.succeeded,
        "failed": progress.failed,
        "percent": int(progress.percent or 0.0),
        "lastUpdate": at,
    }


def _throughput(state: JobState) -> dict[str, object] | None:
    rate = state.rate
    if rate.per_s is None:
        return None
    return {
        "itemsPerSecond": rate.per_s,
        "batchesPerMinute": 0,
        "avgBatchDuration": 0,
        **({"estimatedCompletionTime": rate.eta} if rate.eta else {}),
        "rateLimitPauses": rate.throttles,
        "totalRateLimitDelay": round(timedelta(seconds=rate.throttled_s) / timedelta(milliseconds=1)),
    }


def _by_category(progress: Progress) -> dict[str, object] | None:
    return {
        category: {
            "count": count,
            "percentage": round(100 * count / progress.failed) if progress.failed else 0,
            "shouldRetry": category in RETRIED_BY_ITSELF,
        }
        for category, count in progress.by_category.items()
        if count
    } or None


def _last_attempt(attempt: Attempt) -> dict[str, object]:
    if attempt.ended_at is None:
        return {}
    return {"lastRetryTimestamp": attempt.ended_at, "preRetrySnapshot": _progress(attempt.progress, attempt.ended_at)}
