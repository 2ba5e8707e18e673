"""All that the web serves, as one table: values in, values out, no sockets.

    router = Router(WebSettings(), THREADS)
    response = client.transport.result_of(router.respond(Request("GET", "/api/jobs")))

`respond` is an operation (`client/operations.py`): it yields what it wants of the writer and returns the
response, so WSGI, ASGI and tests drive the same code. Errors of the tree become problem+json here.
"""

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from urllib.parse import quote, urlsplit

from actorstate.client.operations import Operation
from actorstate.errors import ActorStateError, JobNotFound
from actorstate.web.control import ACTIONS, Control
from actorstate.web.openapi import described
from actorstate.web.page import Page
from actorstate.web.problem import problem, problem_of
from actorstate.web.reading import Reading
from actorstate.web.settings import Held, WebSettings, held
from actorstate.web.values import FORGET, SECURITY, Request, Response, json_bytes, json_response, tag_of, unless_known

Handler = Callable[..., Response | Operation[Response]]
LEGACY = "/api/migration/items/"


@dataclass(frozen=True, slots=True)
class Route:
    """A place: parts of the path in braces are handed to the handler, in their order."""

    method: str
    path: str
    handler: Handler

    def match(self, path: str) -> tuple[str, ...] | None:
        """The parts in braces, when the path is of this shape."""
        found = _shape(self.path).fullmatch(path)
        return None if found is None else found.groups()


@cache
def _shape(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\\{\w+\\\}", "([^/]+)", re.escape(path)))


class Router:
    """Finds the handler, and makes of whatever comes of it one response."""

    def __init__(self, settings: WebSettings, usual: Held) -> None:
        self.settings = settings
        self._reading = Reading(settings, held(settings, usual))
        self._routes = _table(self._reading, Control(settings), Page())

    def end_streams(self) -> None:
        """The server shuts down: streams and held requests end within a second; their readers come to the next one."""
        self._reading.ending = True

    def respond(self, request: Request) -> Operation[Response]:
        """The response to a request; never raises an error of the tree."""
        if not _is_meant(request, self.settings.hosts):
            told = "this server does not answer to that name; its host may allow it (actorstate web --allow-host NAME)"
            return _secured(problem(421, "wrong_host", told))
        if request.path == "":
            return Response(308, (("Location", quote(_mount(request)) + "/"),))
        if len(request.body) > self.settings.max_body_bytes:
            return _secured(problem(413, "too_large", f"a body has at most {self.settings.max_body_bytes:,} bytes"))
        try:
            answer = self._handled(request)
            response = answer if isinstance(answer, Response) else (yield from answer)
        except JobNotFound as error:
            response = _legacy_404(error) if request.path.startswith(LEGACY) else problem_of(error)
        except ActorStateError as error:
            response = problem_of(error)
        return _secured(response if request.method != "HEAD" else replace(response, body=b"", stream=None))

    def _handled(self, request: Request) -> Response | Operation[Response]:
        method = "GET" if request.method == "HEAD" else request.method
        here = [(route, parts) for route in self._routes if (parts := route.match(request.path)) is not None]
        for route, parts in here:
            if route.method == method:
                return route.handler(request, *parts)
        if not here:
            return problem(404, "no_such_page", "there is nothing here; see api/openapi.json")
        methods = {route.method for route, _ in here}
        allowed = ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))
        return problem(405, "method_not_allowed", f"this takes {allowed}", (("Allow", allowed),))


def _table(reading: Reading, control: Control, page: Page) -> tuple[Route, ...]:
    description = json_bytes(described())

    def openapi(request: Request) -> Response:
        return unless_known(request, tag_of(description), json_response(description))

    actions = [Route("POST", f"/api/jobs/{{id}}/{action}", partial(control.act, action)) for action in ACTIONS]
    return (
        Route("GET", "/", page.start),
        Route("GET", "/static/{name}", page.file),
        Route("GET", "/api/about", reading.about),
        Route("GET", "/api/jobs", reading.jobs),
        Route("GET", "/api/jobs/{id}", reading.job),
        Route("GET", "/api/jobs/{id}/items", reading.items),
        Route("GET", "/api/jobs/{id}/history", reading.history),
        Route("GET", "/api/jobs/{id}/events", reading.events),
        *actions,
        Route("GET", LEGACY + "{id}", reading.legacy),
        Route("GET", "/api/openapi.json", openapi),
        Route("GET", "/healthz", reading.health),
        Route("GET", "/readyz", reading.readiness),
        Route("GET", "/metrics", reading.metrics),
    )


def _mount(request: Request) -> str:
    return str(request.context.get("SCRIPT_NAME") or request.context.get("root_path") or "")


def _is_meant(request: Request, hosts: tuple[str, ...] | None) -> bool:
    """Whether its Host is an address, or one of the names."""
    if hosts is None:
        return True
    try:
        host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    except ValueError:
        return False
    return host in {name.lower() for name in hosts} or _is_address(host)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _secured(response: Response) -> Response:
    return replace(response, headers=(*response.headers, *SECURITY))


def _legacy_404(error: JobNotFound) -> Response:
    return json_response(json_bytes({"error": "Job not found", "message": error.message}), FORGET, 404)
