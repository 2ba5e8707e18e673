"""The ASGI application: for uvicorn and others, alone or mounted in Starlette and FastAPI, with event streams.

    application = actorstate.web.asgi.application("data/jobs")

Nothing is opened at import or before the first request. One process holds thousands of readers.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import cast
from urllib.parse import parse_qsl

from actorstate.client.aio import AsyncClient, connect_async
from actorstate.client.mirror.news import News
from actorstate.client.operations import Stream, next_item
from actorstate.web.flights import AsyncFlights
from actorstate.web.kept import Kept
from actorstate.web.problem import problem
from actorstate.web.router import Router
from actorstate.web.settings import TASKS, WebSettings
from actorstate.web.shutdown import end_streams_at_exit
from actorstate.web.values import Request, Response

Event = MutableMapping[str, object]
Scope = MutableMapping[str, object]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
log = logging.getLogger("actorstate.web")


class Application:
    """An ASGI application over one asyncio client, which it may share with the rest of the program."""

    def __init__(self, client: AsyncClient, settings: WebSettings | None = None) -> None:
        self._client = client
        self._router = Router(settings or WebSettings(), TASKS)
        self._flights: dict[asyncio.AbstractEventLoop, AsyncFlights] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection of the server. Whatever goes wrong is logged here and answered without a traceback."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            body = await _body(receive, self._router.settings.max_body_bytes)
            await self._answer(await self.respond(request_of(scope, body)), receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def respond(self, request: Request) -> Response:
        """The response to a request, for adapters and tests."""
        try:
            return await self._flights_here().result_of(self._router.respond(request))
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            return problem(500, "defect", "the server failed; its log tells more")

    def end_streams(self) -> None:
        """At shutdown: event streams and held requests end within a second, so that nothing waits for them."""
        self._router.end_streams()

    async def _live(self, receive: Receive, send: Send) -> None:
        """The process's life, where the application stands alone: told before the server waits for its streams."""
        while (await receive())["type"] == "lifespan.startup":
            end_streams_at_exit(self.end_streams)
            await send({"type": "lifespan.startup.complete"})
        await self._client.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, response: Response, receive: Receive, send: Send) -> None:
        headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in response.headers]
        if response.stream is None and response.status not in {204, 304}:
            headers.append((b"content-length", str(len(response.body)).encode()))
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        if response.stream is not None:
            await self._sent(response.stream, receive, send)
        await send({"type": "http.response.body", "body": response.body})

    async def _sent(self, stream: Stream[bytes], receive: Receive, send: Send) -> None:
        """Sends the stream's pieces until it ends, its time is over, or its reader has gone."""
        sending = asyncio.ensure_future(self._send_pieces(stream, send))
        gone = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, gone):
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await sending
            stream.close()

    async def _send_pieces(self, stream: Stream[bytes], send: Send) -> None:
        settings, flights = self._router.settings, self._flights_here()
        ends_at = time.monotonic() + settings.stream_s
        while time.monotonic() < ends_at and (item := await flights.result_of(next_item(stream))) is not None:
            await send({"type": "http.response.body", "body": item.item, "more_body": True})
            await asyncio.sleep(settings.stream_every_s)

    def _flights_here(self) -> AsyncFlights:
        loop = asyncio.get_running_loop()
        if loop not in self._flights:
            for closed in [other for other in self._flights if other.is_closed()]:
                del self._flights[closed]
            transport, settings = self._client.transport, self._router.settings
            kept = Kept(News(transport.blocking, settings.fresh_s), settings.max_known_bytes)
            self._flights[loop] = AsyncFlights(transport.call, kept, settings.timeout_s)
        return self._flights[loop]


def application(directory: str | Path, settings: WebSettings | None = None) -> Application:
    """The application for a directory whose writer its supervisor runs; opens nothing yet."""
    return Application(connect_async(directory, autostart=False), settings)


def request_of(scope: Scope, body: bytes) -> Request:
    """The request in an ASGI scope."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in cast("list[tuple[bytes, bytes]]", scope["headers"]):
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    query = cast("bytes", scope.get("query_string", b"")).decode("latin-1")
    return Request(
        method=str(scope["method"]),
        path=str(scope["path"]).removeprefix(str(scope.get("root_path") or "")),
        query=dict(parse_qsl(query, keep_blank_values=True, errors="replace")),
        headers=headers,
        body=body,
        context=scope,
    )


async def _body(receive: Receive, max_bytes: int) -> bytes:
    """The request's body; of one that is too large not much more than is allowed is read."""
    body, more = b"", True
    while more and len(body) <= max_bytes:
        event = await receive()
        body += cast("bytes", event.get("body", b""))
        more = bool(event.get("more_body", False))
    return body


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
