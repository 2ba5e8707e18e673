"""The answers to GET: jobs, one job, its items, its events, and the state of the server itself."""

import logging
import time
from typing import NamedTuple, cast, get_args

from actorstate.client.calls import checked_job_id
from actorstate.client.operations import Emit, Operation, Stream, ask, asked, get
from actorstate.config import VERSION
from actorstate.core import codec
from actorstate.core.messages.document import Health, ItemOutcome, JobState, Status
from actorstate.core.messages.replies import HistoryPage, ItemsListed, Listed
from actorstate.core.messages.requests import MAX_COUNT, ListItems, ListJobs, ReadHistory
from actorstate.errors import ActorStateError, DiskFull, WriterUnavailable
from actorstate.web.legacy import MAX_FAILED_ITEMS, legacy_job
from actorstate.web.metrics import metrics
from actorstate.web.newest import Newest, Shown, revision_of, shown
from actorstate.web.parameters import MAX_CHANGES, moment, number, one_of, page_size, text, whole
from actorstate.web.problem import LATER, problem, problem_of
from actorstate.web.settings import Held, WebSettings
from actorstate.web.values import (
    FORGET,
    REVALIDATE,
    Request,
    Response,
    json_bytes,
    json_response,
    known_tags,
    tag_of,
    unless_known,
)

log = logging.getLogger("actorstate.web")
SLICE_S = 1.0
"""How long a stream or a held request waits for news before it looks whether it should end; a comment then keeps a
stream open."""
STALE = "X-Actorstate-Stale"
MAX_LISTS = 32
"""Lists that are kept as JSON; of one more all are made anew."""
SUMMARY = (
    "id", "kind", "status", "phase", "reason", "health", "labels", "progress", "rate", "control", "attempt",
    "error_count", "created_at", "started_at", "updated_at", "finished_at", "epoch", "revision",
)  # fmt: skip
"""What a list tells of each job; the rest is in the job's own page."""


class List(NamedTuple):
    """An answer of the writer as it is told, made once."""

    page: Listed
    tag: str
    body: bytes


class Reading:
    """The handlers. `ending` is set when the server shuts down: streams and held requests then end."""

    def __init__(self, settings: WebSettings, held: Held) -> None:
        self._settings, self._held = settings, held
        self._newest = Newest(settings.timeout_s, settings.max_known_bytes)
        self._lists: dict[ListJobs, List] = {}
        self._waiting: set[object] = set()
        self._streams: set[object] = set()
        self.ending = False

    def about(self, request: Request) -> Response:
        """What this reader may do here."""
        control = self._settings.control
        try:
            by = control(request) if control is not None else None
        except Exception:  # the host's own code; whoever only looks is not to suffer from it
            log.exception("the host's check of controls failed")
            by = None
        told = {"version": VERSION, "controls": by is not None, "by": by, "events": self._held.streams > 0}
        return json_response(json_bytes(told), FORGET)

    def health(self, _request: Request) -> Response:
        """The web process lives; the writer is another matter."""
        return json_response(b'{"ok":true}', FORGET)

    def readiness(self, _request: Request) -> Operation[Response]:
        """The writer answers, and takes changes: 503 while its disk is full, though it goes on being read."""
        state = yield from ask(timeout_s=self._settings.timeout_s)
        if state.disk_full:
            return problem_of(DiskFull("changes are refused until the disk has space again"))
        told = {"ok": True, "writer": {"version": state.version, "epoch": state.epoch, "uptime_s": state.uptime_s}}
        return json_response(json_bytes(told), FORGET)

    def metrics(self, _request: Request) -> Operation[Response]:
        """The writer's numbers, for Prometheus."""
        return metrics(self._settings.timeout_s)

    def jobs(self, request: Request) -> Operation[Response]:
        """A page of jobs, the newest first; `after` of the answer is where the next one begins.

        `damaged` names those of the page that cannot be read.
        """
        query = request.query
        status, health = one_of(query, "status", get_args(Status)), one_of(query, "health", get_args(Health))
        kind, after = text(query, "kind", 128) or None, text(query, "after", 128)
        body = ListJobs(status, kind, health, after, page_size(query), newest=True)
        told = self._lists.get(body)
        try:
            page = yield from asked(body, Listed, self._settings.timeout_s)
        except WriterUnavailable:
            if told is None or not self._settings.stale:
                raise
            return stale(told.body)
        if told is None or told.page is not page:
            if len(self._lists) >= MAX_LISTS:
                self._lists.clear()
            told = self._lists[body] = listed(page)
        return unless_known(request, told.tag, json_response(told.body))

    def job(self, request: Request, job: str) -> Operation[Response]:
        """The newest state. With `wait` and If-None-Match, the next one; with `at` a past one."""
        at, wait_s = moment(request.query, "at"), number(request.query, "wait", 60.0)
        if at is not None:
            then = shown((yield from get(job, at=at, timeout_s=self._settings.timeout_s)))
            return unless_known(request, then.tag, json_response(then.body))
        tags = known_tags(request)
        seen = max((known for tag in tags if (known := revision_of(tag)) is not None), default=None)
        full = wait_s > 0 and len(self._waiting) >= self._held.waiting
        try:
            newest = None
            if wait_s and seen is not None:
                newest = yield from self._next(job, seen, min(wait_s, self._settings.max_wait_s))
            newest = newest or (yield from self._newest.of(job, seen or 0))
        except WriterUnavailable as error:
            return self._stale(job, seen or 0, error)
        return unless_known(request, newest.tag, json_response(newest.body, (*REVALIDATE, *(LATER if full else ()))))

    def items(self, request: Request, job: str) -> Operation[Response]:
        """A page of the job's item ledger, in the order of the keys."""
        query = request.query
        outcome = cast("ItemOutcome | None", one_of(query, "outcome", get_args(ItemOutcome)))
        after, category = text(query, "after", 2048), text(query, "category", 128) or None
        body = ListItems(checked_job_id(job), outcome, category, after, page_size(query))
        page = yield from asked(body, ItemsListed, self._settings.timeout_s)
        items = [codec.decode_item(packed) for packed in page.items]
        told = json_bytes({"items": items, "damaged": page.damaged, "after": page.after or None})
        return unless_known(request, tag_of(told), json_response(told))

    def history(self, request: Request, job: str) -> Operation[Response]:
        """A page of the job's changes, the newest first; `before` of the answer is where the next one begins."""
        before = whole(request.query, "before", MAX_COUNT, MAX_COUNT)
        body = ReadHistory(checked_job_id(job), 0, before, newest=True, limit=page_size(request.query, MAX_CHANGES))
        page = yield from asked(body, HistoryPage, self._settings.timeout_s)
        told = json_bytes({"changes": page.entries, "before": page.entries[-1].revision if page.more else None})
        return unless_known(request, tag_of(told), json_response(told))

    def events(self, request: Request, job: str) -> Operation[Response]:
        """Each newer state as a server-sent event, its id the state's ETag; 204 when there is no more to come."""
        if not self._held.streams:
            return problem(501, "no_event_streams", "this server has no event streams; ask again by ETag instead")
        if len(self._streams) >= self._held.streams or self.ending:
            return problem(503, "busy", "no further event stream here; ask again by ETag instead")
        newest = yield from self._newest.of(job)
        seen = request.headers.get("last-event-id", "")
        if newest.state.finished and seen == newest.tag:
            return Response(204, FORGET)
        headers = (("Content-Type", "text/event-stream"), *FORGET, ("X-Accel-Buffering", "no"))
        return Response(200, headers, stream=self._news(job, newest, seen))

    def legacy(self, request: Request, job: str) -> Operation[Response]:
        """The job under the older tool's names; unknown ones with its kind of 404, at which its page stops asking."""
        newest = yield from self._newest.of(job)
        failed = ListItems(job, "failed", limit=MAX_FAILED_ITEMS)
        page = yield from asked(failed, ItemsListed, self._settings.timeout_s)
        told = json_bytes(legacy_job(newest.state, [codec.decode_item(packed) for packed in page.items]))
        return unless_known(request, tag_of(told), json_response(told))

    def _next(self, job: str, seen: int, wait_s: float) -> Operation[Shown | None]:
        if len(self._waiting) >= self._held.waiting:
            return None
        turn = object()
        self._waiting.add(turn)
        try:
            until, newest = time.monotonic() + wait_s, (yield from self._newest.of(job, seen))
            while newest.state.revision <= seen and not (newest.state.finished or self.ending):
                if (left_s := until - time.monotonic()) <= 0:
                    break
                newest = (yield from self._newest.after(job, seen, min(left_s, SLICE_S))) or newest
            return newest
        finally:
            self._waiting.discard(turn)

    def _stale(self, job: str, seen: int, error: WriterUnavailable) -> Response:
        """The last known state, never one that is older than what the reader has; it must not be kept."""
        known = self._newest.last_known(job)
        if not self._settings.stale or known is None or known.state.revision < seen:
            return problem_of(error)
        return stale(known.body)

    def _news(self, job: str, newest: Shown, seen: str) -> Stream[bytes]:
        turn = object()
        self._streams.add(turn)
        try:
            yield Emit(b"retry: 1000\n\n" if seen == newest.tag else event(newest))
            while not newest.state.finished and not self.ending:
                try:
                    newer = yield from self._newest.after(job, newest.state.revision, SLICE_S)
                except ActorStateError:  # the reader comes back, and hears then what is wrong
                    return
                newest = newer or newest
                yield Emit(event(newer) if newer else b":\n\n")
        finally:
            self._streams.discard(turn)


def stale(body: bytes) -> Response:
    """What was so before the writer went away; it must not be kept."""
    return json_response(body, (*FORGET, (STALE, "1")))


def event(newest: Shown) -> bytes:
    """One state as a server-sent event."""
    return b"id: %s\ndata: %s\n\n" % (newest.tag.encode(), newest.body)


def listed(page: Listed) -> List:
    """A page of jobs as JSON; `damaged` names those of it that cannot be read."""
    jobs = [summary(codec.decode_state(packed)) for packed in page.documents]
    body = json_bytes({"jobs": jobs, "damaged": page.damaged, "after": page.after or None})
    return List(page, tag_of(body), body)


def summary(state: JobState) -> dict[str, object]:
    """One job of a list."""
    told = {name: getattr(state, name) for name in SUMMARY}
    return {**told, "workers": len(state.workers), "awaits_approval": state.awaits_approval}
