"""The writer's numbers as Prometheus reads them. They come from the one writer, so web workers need no shared files."""

from collections.abc import Mapping

from actorstate.client.operations import Operation, asked
from actorstate.core.messages.document import Health, Status
from actorstate.core.messages.replies import Listed, WriterState
from actorstate.core.messages.requests import Ask, ListJobs
from actorstate.errors import ActorStateError
from actorstate.web.values import FORGET, Response

MOST_COUNTED = 200
"""Jobs of one kind counted for one scrape; more are told as so many."""
STATUSES: tuple[Status, ...] = ("running", "waiting", "paused")
HEALTHS: tuple[Health, ...] = ("late", "stalled", "dead")

COUNTERS = {
    "commits": ("commits", "Transactions that were made durable."),
    "changes": ("changes", "Changes in those transactions."),
    "reads": ("reads", "Requests that were answered from memory."),
    "expired": ("expired", "Requests whose sender had given up before they were looked at."),
    "undelivered": ("undelivered_replies", "Replies that their client did not take."),
}
GAUGES = {
    "uptime_s": ("uptime_seconds", "Time since the writer serves."),
    "sync_s": ("sync_seconds", "The usual time of one sync to disk."),
    "waiting": ("mailboxes_envelopes", "Changes that wait for a commit."),
    "resident": ("resident_jobs", "Jobs in the writer's memory."),
    "workers": ("attached_workers", "Workers whose beats are listened to."),
}


def metrics(timeout_s: float) -> Operation[Response]:
    """The numbers; of a writer that does not answer only that it is down."""
    try:
        state = yield from asked(Ask(), WriterState, timeout_s)
        jobs = yield from _jobs(timeout_s)
    except ActorStateError:
        return _response(_one("up", "gauge", "Whether the writer answers.", {"": 0}))
    parts = [_one("up", "gauge", "Whether the writer answers.", {"": 1})]
    parts += [_one(f"{name}_total", "counter", told, {"": getattr(state, of)}) for of, (name, told) in COUNTERS.items()]
    parts += [_one(name, "gauge", told, {"": getattr(state, of)}) for of, (name, told) in GAUGES.items()]
    refused = {f'{{code="{code}"}}': number for code, number in sorted(state.refusals.items())}
    parts.append(_one("refusals_total", "counter", "Requests that were refused, by the error's code.", refused))
    parts.append(_one("jobs", "gauge", f"Unfinished jobs; at most {MOST_COUNTED} of a kind are counted.", jobs))
    version = {f'{{version="{state.version}"}}': 1}
    return _response("".join([*parts, _one("writer_info", "gauge", "The writer's release.", version)]))


def _jobs(timeout_s: float) -> Operation[dict[str, float]]:
    counted: dict[str, float] = {}
    for status in STATUSES:
        page = yield from asked(ListJobs(status, limit=MOST_COUNTED), Listed, timeout_s)
        counted[f'{{status="{status}"}}'] = len(page.documents)
    for health in HEALTHS:
        page = yield from asked(ListJobs(health=health, limit=MOST_COUNTED), Listed, timeout_s)
        counted[f'{{health="{health}"}}'] = len(page.documents)
    return counted


def _one(name: str, kind: str, told: str, values: Mapping[str, float]) -> str:
    head = f"# HELP actorstate_{name} {told}\n# TYPE actorstate_{name} {kind}\n"
    return head + "".join(f"actorstate_{name}{labels} {value!r}\n" for labels, value in values.items())


def _response(text: str) -> Response:
    return Response(200, (("Content-Type", "text/plain; version=0.0.4; charset=utf-8"), *FORGET), text.encode())
