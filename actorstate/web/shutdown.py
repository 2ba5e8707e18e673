"""Streams and held requests end when their server is told to: most wait for open responses first, for half a minute."""

import signal
import threading
from collections.abc import Callable
from types import FrameType


def end_streams_at_exit(end_streams: Callable[[], None]) -> None:
    """At SIGTERM and SIGINT calls `end_streams` first, then whatever the server had installed for them.

    For the worker process, in its main thread, after the server's own handlers are in place; elsewhere, and
    where a signal has no handler, nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        before = signal.getsignal(number)
        if callable(before):
            signal.signal(number, _first(end_streams, before))


def _first(
    end_streams: Callable[[], None], before: Callable[[int, FrameType | None], object]
) -> Callable[[int, FrameType | None], None]:
    def handle(number: int, frame: FrameType | None) -> None:
        end_streams()
        before(number, frame)

    return handle
