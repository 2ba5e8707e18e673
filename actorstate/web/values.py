"""Requests and responses as values: what the adapters translate from and to WSGI and ASGI."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

from actorstate.client.operations import Stream
from actorstate.core.plain import as_plain

Headers = tuple[tuple[str, str], ...]

SECURITY: Headers = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
REVALIDATE: Headers = (("Cache-Control", "private, no-cache"),)
"""Browsers keep it and ask again with If-None-Match."""
FORGET: Headers = (("Cache-Control", "no-store"),)


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request. `path` is below the mount point and begins with "/", or is "" at the mount point itself.

    Header names are lower case. `context` is the WSGI environ or the ASGI scope, for the host's own check.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict[str, str])
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""
    context: Mapping[str, object] = field(default_factory=dict[str, object])


@dataclass(frozen=True, slots=True)
class Response:
    """One answer: a body, or a stream of pieces that ends when its reader or the server goes."""

    status: int
    headers: Headers = ()
    body: bytes = b""
    stream: Stream[bytes] | None = None


Check = Callable[[Request], str | None]
"""The host's answer to "may this request control jobs?": the person's name (may be empty), or None for no."""


def json_bytes(value: object) -> bytes:
    """The value as JSON (`core/plain.py`), in ASCII."""
    return dumped(as_plain(value))


def dumped(plain: object) -> bytes:
    """The same of a value that is plain already."""
    return json.dumps(plain, allow_nan=False, separators=(",", ":")).encode()


def json_response(body: bytes, headers: Headers = REVALIDATE, status: int = 200) -> Response:
    """JSON that is encoded already."""
    return Response(status, (("Content-Type", "application/json"), *headers), body)


def unless_known(request: Request, tag: str, response: Response) -> Response:
    """The response under its ETag; 304 and no body where the reader has it."""
    headers = (("ETag", f'"{tag}"'), *response.headers)
    if not {tag, "*"}.isdisjoint(known_tags(request)):
        return Response(304, tuple(each for each in headers if each[0] != "Content-Type"))
    return Response(response.status, headers, response.body)


def known_tags(request: Request) -> set[str]:
    """Tags of If-None-Match, compared weakly: a proxy that compresses makes them weak."""
    listed = request.headers.get("if-none-match", "").split(",")
    return {tag.strip().removeprefix("W/").strip('"') for tag in listed}


def tag_of(body: bytes) -> str:
    """A tag for what has no revision of its own."""
    return blake2b(body, digest_size=12).hexdigest()
