"""The WSGI application: for gunicorn, uWSGI, mod_wsgi, and mounted in Flask or Django.

    application = actorstate.web.wsgi.application("data/jobs")

Nothing is opened at import or before the first request; safe over threads, forks (`--preload`) and gevent.
"""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Protocol, cast
from urllib.parse import parse_qsl

from actorstate.client.mirror.news import News
from actorstate.client.operations import Stream, next_item
from actorstate.client.sync import Client, connect
from actorstate.web.flights import Flights
from actorstate.web.kept import Kept
from actorstate.web.problem import problem
from actorstate.web.router import Router
from actorstate.web.settings import THREADS, WebSettings
from actorstate.web.values import Request, Response

Environ = dict[str, object]
StartResponse = Callable[[str, list[tuple[str, str]]], object]
log = logging.getLogger("actorstate.web")


class Input(Protocol):
    """`wsgi.input`."""

    def read(self, size: int, /) -> bytes: ...


class Application:
    """A WSGI application over one client, which it may share with the rest of the program."""

    def __init__(self, client: Client, settings: WebSettings | None = None) -> None:
        self._client = client
        self._router = Router(settings or WebSettings(), THREADS)
        self._flights: dict[int, Flights] = {}

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """One request. Whatever goes wrong is logged here and answered without a traceback."""
        if _is_endless(environ):
            response = problem(411, "length_required", "this server needs Content-Length: it cannot tell a body's end")
        else:
            response = self.respond(request_of(environ, self._router.settings.max_body_bytes))
        phrase = HTTPStatus(response.status).phrase
        headers = list(response.headers)
        if response.stream is None and response.status not in {204, 304}:
            headers.append(("Content-Length", str(len(response.body))))
        start_response(f"{response.status} {phrase}", headers)
        return [response.body] if response.stream is None else self._pieces(response.stream)

    def respond(self, request: Request) -> Response:
        """The response to a request, for adapters and tests."""
        try:
            return self._flights_here().result_of(self._router.respond(request))
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            return problem(500, "defect", "the server failed; its log tells more")

    def end_streams(self) -> None:
        """At shutdown: event streams and held requests end within a second, so that nothing waits for them."""
        self._router.end_streams()

    def close(self) -> None:
        """Closes this process's sockets; the next request opens new ones."""
        self._client.close()

    def _pieces(self, stream: Stream[bytes]) -> Iterator[bytes]:
        """The stream's pieces, not too many in a second, for as long as one may live."""
        settings, flights = self._router.settings, self._flights_here()
        ends_at = time.monotonic() + settings.stream_s
        with contextlib.closing(stream):
            while time.monotonic() < ends_at and (item := flights.result_of(next_item(stream))) is not None:
                yield item.item
                time.sleep(settings.stream_every_s)

    def _flights_here(self) -> Flights:
        flights = self._flights.get(os.getpid())
        return flights or self._flights.setdefault(os.getpid(), self._made())

    def _made(self) -> Flights:
        transport, settings = self._client.transport, self._router.settings
        kept = Kept(News(transport, settings.fresh_s), settings.max_known_bytes)
        return Flights(transport.call, kept, settings.timeout_s)


def application(directory: str | Path, settings: WebSettings | None = None) -> Application:
    """The application for a directory whose writer its supervisor runs; opens nothing yet."""
    return Application(connect(directory, autostart=False), settings)


def request_of(environ: Environ, max_body_bytes: int) -> Request:
    """The request in a WSGI environ; of a body that is too large one byte more than is allowed is read."""
    headers = {
        name[5:].lower().replace("_", "-"): str(value) for name, value in environ.items() if name.startswith("HTTP_")
    }
    pairs = parse_qsl(str(environ.get("QUERY_STRING", "")), keep_blank_values=True, errors="replace")
    return Request(
        method=str(environ.get("REQUEST_METHOD", "GET")),
        path=str(environ.get("PATH_INFO", "")).encode("latin-1").decode("utf-8", "replace"),
        query=dict(pairs),
        headers=headers,
        body=_body(environ, max_body_bytes),
        context=environ,
    )


def _body(environ: Environ, max_bytes: int) -> bytes:
    length = str(max_bytes + 1 if _is_chunked(environ) else environ.get("CONTENT_LENGTH") or "0")
    if environ.get("REQUEST_METHOD") != "POST" or not length.isdigit():
        return b""
    return cast("Input", environ["wsgi.input"]).read(min(int(length), max_bytes + 1))


def _is_chunked(environ: Environ) -> bool:
    return bool(environ.get("HTTP_TRANSFER_ENCODING"))


def _is_endless(environ: Environ) -> bool:
    """A body in chunks, from a server that does not say where its input ends: reading it could wait for ever."""
    return _is_chunked(environ) and not environ.get("wsgi.input_terminated")
