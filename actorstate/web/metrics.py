"""The writer's numbers as Prometheus reads them. They come from the one writer, so web workers need no shared files.

What is told of each number stands here, and nowhere else; `deploy/` asks for these names alone, held by a test.
"""

from collections.abc import Mapping
from itertools import accumulate
from typing import get_args

from actorstate.client.operations import Operation, asked
from actorstate.core.messages.document import Health, Status
from actorstate.core.messages.replies import Histogram, Metrics
from actorstate.core.messages.requests import ReadMetrics
from actorstate.errors import WriterUnavailable
from actorstate.web.values import FORGET, Response

Labels = Mapping[str, float]
"""Values by their labels, written as Prometheus has them; the one under "" has none."""

UP = "Whether the writer answers."
STATE_COUNTERS = {
    "commits": ("commits_total", "Transactions that were made durable."),
    "changes": ("changes_total", "Changes in those transactions."),
    "expired": ("expired_requests_total", "Requests whose sender had given up before they were looked at."),
}
STATE_GAUGES = {
    "epoch": ("epoch", "The writer's fencing number; each start has a higher one."),
    "uptime_s": ("uptime_seconds", "Time since the writer serves."),
    "waiting": ("mailboxes_envelopes", "Changes that wait for a commit."),
    "resident": ("resident_jobs", "Jobs in the writer's memory."),
    "workers": ("attached_workers", "Workers whose beats are listened to."),
    "disk_full": ("disk_full", "1 from the first change that had no room on the disk until one succeeds."),
}
GAUGES = {
    "most_waiting": ("mailboxes_envelopes_max", "The most changes that waited for a commit, since the start."),
    "feed_topics": ("feed_topics", "Topics of the change feed that somebody listens to."),
    "damaged": ("damaged_jobs", "Jobs that were met since the start and could not be read whole."),
    "store_bytes": ("store_bytes", "What the store takes on the disk; of JSON files the jobs and their second copies."),
    "free_bytes": ("disk_free_bytes", "What is free for the writer on the disk of its directory."),
}
HISTOGRAMS = {
    "changes": ("commit_changes", "Changes in one commit."),
    "commit_s": ("commit_seconds", "Time of one commit, its sync to disk included."),
    "sync_s": ("sync_seconds", "Time of one sync to disk."),
    "feed_lag_s": (
        "feed_lag_seconds",
        "From the end of a commit to its news on the change feed, while it has readers.",
    ),
}
EVENTS = {
    "store.damage_found": ("damage_found_total", "Times that stored bytes did not match their digest."),
    "store.parse_failed": ("unreadable_files_total", "Files of jobs that were cut off, gone or no JSON."),
    "store.foreign_edit": ("foreign_edits_total", "Files of jobs that somebody else had changed."),
    "store.job_recovered": ("recovered_jobs_total", "Damaged jobs that were brought back."),
    "store.second_copy_used": ("second_copies_used_total", "Second copies that took the place of a damaged file."),
    "store.second_copy_made": ("second_copies_made_total", "Second copies that were missing or out of date."),
    "store.quarantined": ("quarantined_files_total", "Damaged or foreign files that were kept aside."),
    "recovery.failed": ("recovery_failures_total", "Jobs that could not be taken up again at the start."),
    "actor.failed": ("actor_failures_total", "Unexpected errors in one job's actor; the others went on."),
    "commit.refused": ("refused_commits_total", "Commits that had no room on the disk."),
    "history.forgotten": ("forgotten_changes_total", "Changes of jobs' history that were older or more than is kept."),
    "reply.undelivered": ("undelivered_replies_total", "Replies that their client did not take."),
}


def metrics(timeout_s: float) -> Operation[Response]:
    """The numbers; of a writer that does not answer only that it is down. Raises what else went wrong."""
    try:
        found = yield from asked(ReadMetrics(), Metrics, timeout_s)
    except WriterUnavailable:
        return _response(_one("up", "gauge", UP, {"": 0}))
    return _response("".join([_one("up", "gauge", UP, {"": 1}), *_plain(found), *_labelled(found), *_spread(found)]))


def _plain(found: Metrics) -> list[str]:
    state, started = found.state, {"": found.started_at.timestamp()}
    return [
        *(_one(name, "counter", told, {"": getattr(state, of)}) for of, (name, told) in STATE_COUNTERS.items()),
        *(_one(name, "gauge", told, {"": +getattr(state, of)}) for of, (name, told) in STATE_GAUGES.items()),
        *(_one(name, "gauge", told, {"": getattr(found, of)}) for of, (name, told) in GAUGES.items()),
        *(_one(name, "counter", told, {"": found.events.get(of, 0)}) for of, (name, told) in EVENTS.items()),
        _one("start_time_seconds", "gauge", "When the writer started, in seconds since 1970.", started),
        _one(
            "repeated_requests_total",
            "counter",
            "Changes that were asked for again, and answered as before.",
            {"": found.answered_again},
        ),
        _one("writer_info", "gauge", "The writer's release.", {f'{{version="{state.version}"}}': 1}),
    ]


def _labelled(found: Metrics) -> list[str]:
    jobs = {status: found.jobs.get(status, 0) for status in get_args(Status)}
    health = {one: found.health.get(one, 0) for one in get_args(Health)}
    refused = "Requests that were refused, by the error's code."
    return [
        _one("requests_total", "counter", "Requests, by their name on the wire.", _by("kind", found.requests)),
        _one("refusals_total", "counter", refused, _by("code", found.state.refusals)),
        _one("jobs", "gauge", "Stored jobs by their status.", _by("status", jobs)),
        _one(
            "attached_jobs", "gauge", "Jobs with workers, by the health of the worst of these.", _by("health", health)
        ),
    ]


def _spread(found: Metrics) -> list[str]:
    return [_histogram(name, told, getattr(found, of)) for of, (name, told) in HISTOGRAMS.items()]


def _by(label: str, numbers: Mapping[str, int]) -> Labels:
    return {f'{{{label}="{name}"}}': number for name, number in sorted(numbers.items())}


def _histogram(name: str, told: str, found: Histogram) -> str:
    upto = [f"{bound:g}" for bound in found.bounds] + ["+Inf"]
    totals = list(accumulate(found.counts))
    buckets = {f'_bucket{{le="{bound}"}}': total for bound, total in zip(upto, totals, strict=True)}
    return _one(name, "histogram", told, {**buckets, "_sum": found.sum, "_count": totals[-1]})


def _one(name: str, kind: str, told: str, values: Labels) -> str:
    head = f"# HELP actorstate_{name} {told}\n# TYPE actorstate_{name} {kind}\n"
    return head + "".join(f"actorstate_{name}{labels} {value!r}\n" for labels, value in values.items())


def _response(text: str) -> Response:
    return Response(200, (("Content-Type", "text/plain; version=0.0.4; charset=utf-8"), *FORGET), text.encode())
