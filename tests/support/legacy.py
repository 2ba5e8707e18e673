"""The older tool's job files: samples as it writes them, and a checker for what it can read.

After mission.md 4.1 of the evidence.
"""

import json
import math
from datetime import datetime
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "legacy-jobs"
CUT_OFF = "31ed3b7d-f7f0-4583-a692-fbe26dcf1a16"

STATUSES = {
    "planning", "in_progress", "completed", "failed", "paused", "cancelled",
    "detecting", "waiting_approval", "deleting",
}  # fmt: skip
JOB_TYPES = {"flow_clone", "item_migration", "cleanup"}
STEP_TYPES = {"clone_app", "clone_flow", "clone_hook", "update_references", "migrate_items"}
STEP_STATUSES = {"pending", "in_progress", "completed", "failed"}
CATEGORIES = {"network", "validation", "permission", "rate_limit", "duplicate", "unknown"}
COUNTS = ("total", "processed", "successful", "failed", "percent")


def written(job: dict[str, Any]) -> bytes:
    """As `JSON.stringify(job, null, 2)` does."""
    return json.dumps(job, indent=2, ensure_ascii=False).encode()


def a_job(job: str = "old-1", **more: object) -> dict[str, Any]:
    """A running migration with everything in it that the older tool ever writes, and a field of a later release."""
    whole: dict[str, Any] = {
        "id": job,
        "jobType": "item_migration",
        "sourceSpaceId": "6001",
        "targetSpaceId": "6002",
        "status": "in_progress",
        "startedAt": "2026-11-22T19:51:45.511Z",
        "steps": [
            {"id": "s-1", "type": "migrate_items", "sourceId": "111", "targetId": "222", "status": "in_progress",
             "startedAt": "2026-11-22T19:51:45.569Z"},
            {"id": "s-2", "type": "update_references", "sourceId": "111", "status": "pending"},
        ],
        "errors": [{"step": "migrate_items", "message": "Rate limited ✓", "code": "RATE_LIMIT",
                    "timestamp": "2026-11-22T19:51:45.708Z"}],
        "metadata": {"mode": "create", "fieldMapping": {"9": "1", "1": "9"}, "batchSize": 500, "dryRun": False,
                     "ratio": 0.1, "big": 2**60, "nothing": None, "text": 'ünïcode ✓ "quoted" \U0001f600'},
        "lastHeartbeat": "2026-11-22T19:51:45.564Z",
        "progress": {
            "total": 8715, "processed": 1500, "successful": 1491, "failed": 12, "percent": 17,
            "batchCheckpoints": [
                {"batchNumber": n, "offset": 500 * n, "limit": 500, "completedItemIds": [700000 + n],
                 "startedAt": "2026-11-22T19:51:41.587Z", "completedAt": "2026-11-22T19:51:45.587Z",
                 "status": "completed", "itemsProcessed": 500, "itemsSuccessful": 497, "itemsFailed": 3}
                for n in range(3)
            ],
            "failedItemsByCategory": dict.fromkeys(sorted(CATEGORIES), 0) | {"network": 9, "validation": 3},
            "lastUpdate": "2026-11-22T19:51:45.677Z",
            "throughput": {"itemsPerSecond": 14.5, "batchesPerMinute": 1.5, "avgBatchDuration": 40000,
                           "estimatedCompletionTime": "2026-11-22T20:01:45.696Z", "rateLimitPauses": 2,
                           "totalRateLimitDelay": 2000},
            "preRetrySnapshot": {"total": 10, "processed": 10, "successful": 9, "failed": 1, "percent": 100,
                                 "lastUpdate": "2026-11-22T19:51:45.677Z"},
        },
        "aLaterField": [{"kept": True}],
    }  # fmt: skip
    return whole | more


def complaints(path: Path) -> list[str]:
    """What the older tool could not read of a file: a missing field, another type, a word that it does not know."""
    job = json.loads(path.read_text())
    found = [
        *_missing("job", job, id=str, sourceSpaceId=str, targetSpaceId=str, status=str, startedAt=str, steps=list),
        *_missing("job", job, errors=list),
        *_words("jobType", {job.get("jobType", "cleanup")}, JOB_TYPES),
        *_words("status", {job["status"]}, STATUSES),
        *_times(job, "startedAt", "completedAt", "lastHeartbeat"),
    ]
    if job["id"] != path.name.removesuffix(".json").removesuffix(".backup"):
        found.append(f"id {job['id']} in {path.name}")
    for error in job["errors"]:
        found += [*_missing("error", error, step=str, message=str, timestamp=str), *_times(error, "timestamp")]
    for step in job["steps"]:
        found += _step(step)
    return found + _progress(job.get("progress"))


def _step(step: dict[str, Any]) -> list[str]:
    if isinstance(step.get("type"), dict):  # as the older tool itself writes it, by a defect
        return []
    return [
        *_missing("step", step, id=str, type=str, sourceId=str, status=str),
        *_words("step type", {step["type"]}, STEP_TYPES),
        *_words("step status", {step["status"]}, STEP_STATUSES),
        *_times(step, "startedAt", "completedAt"),
    ]


def _progress(progress: dict[str, Any] | None) -> list[str]:
    if progress is None:
        return []
    found = [
        *_missing("progress", progress, lastUpdate=str, **dict.fromkeys(COUNTS, int)),
        *_times(progress, "lastUpdate"),
        *_words("category", set(progress.get("failedItemsByCategory", {})), CATEGORIES),
    ]
    if throughput := progress.get("throughput"):
        numbers = ("itemsPerSecond", "batchesPerMinute", "avgBatchDuration", "rateLimitPauses", "totalRateLimitDelay")
        found += _missing("throughput", throughput, **dict.fromkeys(numbers, (int, float)))
        found += _times(throughput, "estimatedCompletionTime")
        found += [name for name in numbers if not math.isfinite(throughput[name])]
    return found


def _missing(where: str, record: dict[str, Any], **kinds: type | tuple[type, ...]) -> list[str]:
    return [f"{where}.{name} is {record.get(name)!r}" for name, kind in kinds.items()
            if not isinstance(record.get(name), kind)]  # fmt: skip


def _words(what: str, used: set[str], known: set[str]) -> list[str]:
    return [f"{what} {word!r}" for word in sorted(used - known)]


def _times(record: dict[str, Any], *names: str) -> list[str]:
    """As `new Date(...)` reads them."""
    given = [(name, record[name]) for name in names if name in record]
    return [f"{name} {text!r}" for name, text in given
            if not text.endswith("Z") or datetime.fromisoformat(text).tzinfo is None]  # fmt: skip
