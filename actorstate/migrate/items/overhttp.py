"""An HTTP service as a target: each item is a resource, its natural key in the URL, its fields a JSON object.

GET URL        what is there: 200 with the object, or 404
PUT URL        creates (with If-None-Match: *, so that nothing is overwritten) or updates
Idempotency-Key   the same for each try to bring the same content there
"""

import http.client
import json
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Self, cast
from urllib.parse import quote, urlsplit

from actorstate.errors import BadRequest, ItemRefused, TargetFailed
from actorstate.migrate.items.rules import refused
from actorstate.migrate.items.shape import (
    DUPLICATE,
    NETWORK,
    PERMISSION,
    RATE_LIMIT,
    UNKNOWN,
    UNTRIED,
    VALIDATION,
    Fields,
    Item,
    Seen,
)

KEY = "{key}"
MAX_ANSWER_BYTES = 16 * 1024 * 1024
"""Of an answer no more is read; a longer one is no answer."""
TOLD = 200
"""Characters of a refusing answer that go into the ledger."""
_CATEGORIES = {403: PERMISSION, 408: NETWORK, 409: DUPLICATE, 412: DUPLICATE}
_CLIENT, _SERVER = range(400, 500), range(500, 600)
_GATEWAY = frozenset({502, 503, 504})
"""What stands before a service says so when it does not reach it."""
_NO_SUCH_PLACE = frozenset({404, 405, 501})
_AGAIN = frozenset({NETWORK, RATE_LIMIT, UNTRIED})
_NO_HEADERS: Mapping[str, str] = {}
_NEW: Mapping[str, str] = {"If-None-Match": "*"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    reason: str
    retry_after: str | None
    body: bytes


@dataclass(slots=True, eq=False)
class HttpTarget:
    """Items at `url`, in which `{key}` stands for the key (at its end where it is left out). Closes with its block.

    `headers` go with each request (Authorization). Redirects are not followed. Raises BadRequest for no such URL.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    timeout_s: float = 30.0
    _local: threading.local = field(default_factory=threading.local)
    _connections: list[http.client.HTTPConnection] = field(default_factory=list[http.client.HTTPConnection])

    def __post_init__(self) -> None:
        if not _is_address(self.url):
            raise BadRequest(
                f"{self.url!r} is no address of the form http://HOST/PATH/{KEY}",
                hint="a space is %20, a port is 1 to 65535, and credentials go into a header, not into the URL",
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections; it can be used again."""
        while self._connections:
            self._connections.pop().close()
        self._local = threading.local()

    def fields(self) -> Collection[str] | None:
        """See Target: any."""
        return None

    def look(self, items: Sequence[Item]) -> Sequence[Seen | ItemRefused | None]:
        """See Target: one GET an item."""
        found: list[Seen | ItemRefused | None] = []
        for item in items:
            found.append(_untried() if found and _stops(found[-1]) else self._looked(item))
        return found

    def write(self, creates: Sequence[Item], updates: Sequence[Item]) -> Mapping[str, ItemRefused]:
        """See Target: one PUT an item."""
        refusals: dict[str, ItemRefused] = {}
        last: ItemRefused | None = None
        for items, headers in ((creates, _NEW), (updates, _NO_HEADERS)):
            for item in items:
                last = _untried() if _stops(last) else self._put(item, headers)
                if last is not None:
                    refusals[item.key] = last
        return refusals

    def _looked(self, item: Item) -> Seen | ItemRefused | None:
        try:
            answer = self._answer("GET", item, None, _NO_HEADERS)
        except ItemRefused as refusal:
            return refusal
        if answer.status == http.client.NOT_FOUND:
            return None
        if answer.status != http.client.OK:
            return _refusal(answer)
        try:
            stored: object = json.loads(answer.body)
        except (ValueError, RecursionError):
            stored = None
        if not isinstance(stored, dict):
            return refused("what is there under its key is no JSON object", UNKNOWN)
        return Seen(cast("Fields", stored), item.fields)

    def _put(self, item: Item, headers: Mapping[str, str]) -> ItemRefused | None:
        try:
            body = json.dumps(item.fields, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            return refused(f"it cannot be JSON: {error}")
        told = {"Content-Type": "application/json", "Idempotency-Key": item.once, **headers}
        try:
            answer = self._answer("PUT", item, body, told)
        except ItemRefused as refusal:
            return refusal
        return None if answer.status in range(200, 300) else _refusal(answer)

    def _answer(self, method: str, item: Item, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        """One request; raises ItemRefused as NETWORK where no answer came.

        A connection that was kept may have been closed by the server meanwhile: then it is tried over a new one.
        """
        told = {"Accept": "application/json", **self.headers, **headers}
        connection = self._connection()
        while True:
            was_kept = connection.sock is not None
            try:
                connection.request(method, self._path(item.key), body, told)
                return self._checked(method, _read(connection.getresponse()))
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if not was_kept or isinstance(error, TimeoutError):
                    raise refused(f"no answer: {str(error) or type(error).__name__}", NETWORK) from error

    def _checked(self, method: str, answer: Answer) -> Answer:
        """Raises TargetFailed for what would be answered to every item: going on would only fail them all."""
        if answer.status == http.client.UNAUTHORIZED:
            hint = "give a valid Authorization (--headers FILE), then type the same line again"
        elif method == "PUT" and answer.status in _NO_SUCH_PLACE:
            hint = f"check the address: PUT {self.url}"
        else:
            return answer
        raise TargetFailed(f"the service answered a {method} with {answer.status} {answer.reason}", hint=hint)

    def _path(self, key: str) -> str:
        parts = urlsplit(self.url)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        place = quote(key, safe="")
        return path.replace(KEY, place) if KEY in path else f"{path.rstrip('/')}/{place}"

    def _connection(self) -> http.client.HTTPConnection:
        """This thread's own."""
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            parts = urlsplit(self.url)
            kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
            connection = self._local.connection = kind(parts.hostname or "", parts.port, timeout=self.timeout_s)
            self._connections.append(connection)
        return connection


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    plain = url.isascii() and url.isprintable() and " " not in url
    named = parts.scheme in {"http", "https"} and parts.hostname and not parts.username and not parts.password
    return plain and bool(named) and port != 0


def _read(response: http.client.HTTPResponse) -> Answer:
    body = response.read(MAX_ANSWER_BYTES + 1)
    if len(body) > MAX_ANSWER_BYTES:
        raise http.client.HTTPException(f"the answer is longer than {MAX_ANSWER_BYTES:,} bytes")
    return Answer(response.status, response.reason, response.getheader("Retry-After"), body)


def _refusal(answer: Answer) -> ItemRefused:
    text = " ".join(answer.body[: 4 * TOLD].decode(errors="replace").split())[:TOLD]
    message = f"{answer.status} {answer.reason}: {text}".rstrip(": ")
    if answer.status == http.client.TOO_MANY_REQUESTS or (answer.status in _SERVER and answer.retry_after):
        return refused(message, RATE_LIMIT, _seconds(answer.retry_after))
    kinds = ((_CLIENT, VALIDATION), (_SERVER, NETWORK))
    other = next((category for kind, category in kinds if answer.status in kind), UNKNOWN)
    return refused(message, _CATEGORIES.get(answer.status, other), answered=answer.status not in _GATEWAY)


def _seconds(told: str | None) -> float | None:
    """Of a Retry-After, which is a number of seconds or a date."""
    if told is None:
        return None
    if told.strip().isdecimal():
        return float(told)
    try:
        at = parsedate_to_datetime(told)
    except ValueError:
        return None
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _stops(last: Seen | ItemRefused | None) -> bool:
    """Whether those behind it need not be tried now."""
    return isinstance(last, ItemRefused) and last.details.get("category") in _AGAIN


def _untried() -> ItemRefused:
    return refused("its turn has not come", UNTRIED)
