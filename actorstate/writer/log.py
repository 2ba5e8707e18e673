"""The writer's log: one line an event, its name first and then its fields, as text or as JSON.

    2026-11-23T04:19:12.071Z INFO writer.started directory=/srv/jobs epoch=7 pid=4711 release=0.1.0

It is about the writer's life and what is wrong, never about one message that is as it should be. An event is
written at most `MAX_LINES` times in `WINDOW_S`, a refusal of one code once in `REFUSALS_S`; what was left out is
counted, and told with the next line of that event, or at the end. Only a defect has lines below its own: the
traceback, indented (within the line where it is JSON).
"""

import json
import logging
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, cast

from actorstate import telemetry
from actorstate.errors import ActorStateError

Format = Literal["text", "json"]
_log = logging.getLogger("actorstate.writer")

MAX_LINES, WINDOW_S = 60, 60.0
REFUSALS_S = 3_600.0
MAX_VALUE = 500
"""Longer values are cut."""

LEVELS = {
    "actor.failed": logging.ERROR,
    "actor.lost": logging.ERROR,
    "disk.filled": logging.WARNING,
    "disk.freed": logging.INFO,
    "epoch.damaged": logging.ERROR,
    "expiry.failed": logging.ERROR,
    "history.kept": logging.WARNING,
    "list.left_out": logging.ERROR,
    "recall.failed": logging.ERROR,
    "recovery.failed": logging.ERROR,
    "reply.undelivered": logging.INFO,
    "request.refused": logging.INFO,
    "store.counts_mended": logging.WARNING,
    "store.damage_found": logging.ERROR,
    "store.foreign_edit": logging.WARNING,
    "store.job_adopted": logging.INFO,
    "store.job_recovered": logging.WARNING,
    "store.parse_failed": logging.ERROR,
    "store.quarantined": logging.WARNING,
    "store.read_retried": logging.WARNING,
    "store.second_copy_made": logging.INFO,
    "store.second_copy_used": logging.WARNING,
    "store.stranger_left": logging.WARNING,
    "writer.absent": logging.WARNING,
    "writer.drain_failed": logging.CRITICAL,
    "writer.ended": logging.INFO,
    "writer.failed": logging.CRITICAL,
    "writer.not_started": logging.CRITICAL,
    "writer.started": logging.INFO,
    "writer.took_over": logging.WARNING,
    "writer.was_killed": logging.WARNING,
}


def write(name: str, fields: dict[str, object]) -> None:
    """One line. A defect (an error that is none of the tree) brings its traceback along."""
    error = fields.get("error")
    defect = error if isinstance(error, BaseException) and not isinstance(error, ActorStateError) else None
    _log.log(LEVELS[name], name, exc_info=defect, extra={"fields": fields})


@dataclass(slots=True)
class _Window:
    """How many lines of one kind there were since `began` (monotonic), and how many were left out."""

    began: float
    lines: int = 0
    left_out: int = 0


class Log:
    """Writes the events that it hears, within the bounds in this module's head."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._windows: dict[tuple[str, object], _Window] = {}

    @contextmanager
    def listening(self) -> Generator[None]:
        """Writes while the block is open."""
        stop = telemetry.listen(self.hear, *LEVELS)
        try:
            yield
        finally:
            stop()
            for (name, code), window in self._windows.items():
                if window.left_out:
                    write(name, {**({"code": code} if code else {}), "left_out": window.left_out})

    def hear(self, name: str, fields: dict[str, object]) -> None:
        """Writes the event, or counts it."""
        code, now = fields.get("code"), self._monotonic()
        most, window_s = (1, REFUSALS_S) if name == "request.refused" else (MAX_LINES, WINDOW_S)
        window = self._windows.setdefault((name, code), _Window(now))
        if now - window.began >= window_s:
            fields = {**fields, "left_out": window.left_out} if window.left_out else fields
            window = self._windows[name, code] = _Window(now)
        if window.lines < most:
            window.lines += 1
            write(name, fields)
        else:
            window.left_out += 1


def configure(style: Format) -> None:
    """Everything that this process logs goes to standard error, in this style."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(style))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


class _Formatter(logging.Formatter):
    def __init__(self, style: Format) -> None:
        super().__init__()
        self._json = style == "json"

    def format(self, record: logging.LogRecord) -> str:
        """A record of `write`; another library's has its words as the field `message`."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        fields = cast("dict[str, object] | None", getattr(record, "fields", None))
        name, told = record.name, fields or {}
        if fields is None:
            told = {"message": record.getMessage()}
        else:
            name = record.msg
        traceback = self.formatException(record.exc_info) if record.exc_info and record.exc_info[0] else ""
        plain = {key: _plain(value) for key, value in told.items()}
        if self._json:
            line = {"at": at, "level": record.levelname, "event": name, **plain}
            return json.dumps(line | ({"traceback": traceback} if traceback else {}))
        words = [at, record.levelname, name, *(f"{key}={_quoted(value)}" for key, value in plain.items())]
        return "\n  ".join([" ".join(words), *traceback.splitlines()])


def _plain(value: object) -> str | float | bool | None:
    if value is None or isinstance(value, str | int | float | bool):
        return value[:MAX_VALUE] if isinstance(value, str) else value
    if isinstance(value, ActorStateError):
        return value.message[:MAX_VALUE]
    return (repr(value) if isinstance(value, BaseException) else str(value))[:MAX_VALUE]


def _quoted(value: object) -> str:
    """In quotation marks, as JSON has them, unless it can be told from what is around it without."""
    text = value if isinstance(value, str) else json.dumps(value)
    plain = text and text.isprintable() and not set(text) & set(" \"'=\\")
    return text if plain else json.dumps(text, ensure_ascii=False)
