"""The answers to POST: pause, resume, cancel, retry and approve, for those whom the host lets.

A page of another site can make a browser send a POST with this site's cookies. It cannot add a header of
its own without asking first (we never answer that question), nor hide where it comes from: so the header
`X-Actorstate` is needed, and `Origin` and `Sec-Fetch-Site` must say this site where they are given.
"""

import json
from collections.abc import Callable
from typing import cast
from urllib.parse import urlsplit

from actorstate.client import operations
from actorstate.client.operations import Operation
from actorstate.errors import BadRequest
from actorstate.web.newest import shown
from actorstate.web.problem import problem
from actorstate.web.settings import WebSettings
from actorstate.web.values import FORGET, Request, Response, json_response

NEEDED = "x-actorstate"
Action = Callable[[str, dict[str, object], str], Operation[None]]


def _retry(job: str, told: dict[str, object], by: str) -> Operation[None]:
    from_start = told.get("from_start", False)
    if not isinstance(from_start, bool):
        raise BadRequest("from_start is true or false")
    return operations.retry(job, where=_text(told, "where"), from_start=from_start, by=by)


def _approve(job: str, told: dict[str, object], by: str) -> Operation[None]:
    return operations.approve(job, question=_text(told, "question"), by=by)


def _text(told: dict[str, object], name: str) -> str | None:
    value = told.get(name)
    if value is not None and not (isinstance(value, str) and len(value) <= LONGEST[name]):
        raise BadRequest(f"{name} is a text of at most {LONGEST[name]} characters")
    return value


ACTIONS: dict[str, Action] = {
    "pause": lambda job, _told, by: operations.pause(job, by=by),
    "resume": lambda job, _told, by: operations.resume(job, by=by),
    "cancel": lambda job, _told, by: operations.cancel(job, by=by),
    "retry": _retry,
    "approve": _approve,
}
FIELDS = {"retry": {"from_start", "where"}, "approve": {"question"}}
LONGEST = {"where": 128, "question": 2000}


class Control:
    """The handler of all actions."""

    def __init__(self, settings: WebSettings) -> None:
        self._settings = settings

    def act(self, action: str, request: Request, job: str) -> Response | Operation[Response]:
        """Does it, and answers with the job as it is then. 403 unless the host's check allows it."""
        check = self._settings.control
        if check is None:
            return problem(403, "not_allowed", "this server only shows jobs; its host may switch controls on")
        if not self._is_from_here(request):
            return problem(403, "not_allowed", "controls are taken from this server's own page only")
        by = check(request)
        if by is None:
            return problem(403, "not_allowed", "you may not control jobs here")
        return self._carried_out(job, action, _fields(request.body, action), by[:128])

    def _carried_out(self, job: str, action: str, told: dict[str, object], by: str) -> Operation[Response]:
        yield from ACTIONS[action](job, told, by)
        now = shown((yield from operations.get(job, timeout_s=self._settings.timeout_s)))
        return json_response(now.body, (("ETag", f'"{now.tag}"'), *FORGET))

    def _is_from_here(self, request: Request) -> bool:
        headers = request.headers
        if NEEDED not in headers or headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
            return False
        origin = headers.get("origin")
        if origin is None or origin in self._settings.origins:
            return True
        host = headers.get("host", "")
        return bool(host) and urlsplit(origin).netloc == host


def _fields(body: bytes, action: str) -> dict[str, object]:
    """The object in a request's body; none is as good as an empty one. Raises BadRequest."""
    try:
        told: object = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise BadRequest("the body is a JSON object, or empty") from error
    if not isinstance(told, dict):
        raise BadRequest("the body is a JSON object, or empty")
    fields = cast("dict[str, object]", told)
    if unknown := fields.keys() - FIELDS.get(action, set()):
        raise BadRequest(f"{action} takes no {min(unknown)!r:.60}")
    return fields
