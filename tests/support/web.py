"""The WSGI application asked without an HTTP server: real client and real writer, requests and responses as values."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from actorstate.client.mirror.news import News
from actorstate.client.sync import connect
from actorstate.config import ClientSettings
from actorstate.web.kept import Kept
from actorstate.web.settings import WebSettings
from actorstate.web.values import Request, Response
from actorstate.web.wsgi import Application

ALWAYS = Kept(News(connect("nowhere", autostart=False).transport, silence_s=0.0), max_bytes=0)
"""Keeps nothing: each question is asked."""
OURS = {"x-actorstate": "1", "host": "jobs.example"}
"""Headers that our own page sends with a control."""


@contextmanager
def served(directory: Path | str, **settings: Any) -> Iterator[Application]:
    """The application of a directory with these settings."""
    client = connect(directory, autostart=False, settings=ClientSettings(timeout_s=10.0))
    application = Application(client, WebSettings(**settings))
    try:
        yield application
    finally:
        application.close()


def ask(
    application: Application,
    path: str,
    headers: Mapping[str, str] | None = None,
    method: str = "GET",
    body: bytes = b"",
) -> Response:
    """The response to one request; the query stands in the path."""
    path, _, query = path.partition("?")
    pairs = dict(part.split("=", 1) for part in query.split("&") if part)
    return application.respond(Request(method, path, pairs, dict(headers or {}), body))


def act(application: Application, path: str, told: object = None, **headers: str) -> Response:
    """A control as our own page sends it, but for `headers` (underscores for dashes; empty: left out)."""
    changed = {**OURS, **{name.replace("_", "-"): value for name, value in headers.items()}}
    sent = {name: value for name, value in changed.items() if value}
    return ask(application, path, sent, "POST", b"" if told is None else json.dumps(told).encode())


def header(response: Response, name: str) -> str:
    """A header's value; empty when there is none."""
    return next((value for each, value in response.headers if each.lower() == name.lower()), "")


def told(response: Response) -> Any:
    """The JSON of a response."""
    return json.loads(response.body)
