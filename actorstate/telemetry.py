"""The one seam for logs, metrics and injected faults: named events with fields.

A listener is called in the thread where the event happens, before the code goes on. What it raises is
raised there: this is how tests make the n-th commit fail, or hold it until they have looked. On the
message path an event is guarded by `if NAME in telemetry.heard`, so that it costs nothing unheard.
"""

from collections.abc import Callable

Listener = Callable[[str, dict[str, object]], None]

_listeners: tuple[tuple[Listener, frozenset[str]], ...] = ()
heard: frozenset[str] = frozenset()
"""Names that somebody listens to; replaced whole, so that threads read it without a lock."""


def event(name: str, **fields: object) -> None:
    """Tell whoever listens that `name` (`area.past_participle`) happened."""
    for listener, names in _listeners:
        if name in names:
            listener(name, fields)


def listen(listener: Listener, *names: str) -> Callable[[], None]:
    """Call `listener` for the events `names`; the returned function removes it again."""
    entry = (listener, frozenset(names))
    _replace((*_listeners, entry))
    return lambda: _replace(tuple(kept for kept in _listeners if kept is not entry))


def _replace(listeners: tuple[tuple[Listener, frozenset[str]], ...]) -> None:
    global _listeners, heard  # noqa: PLW0603 - the seam is one per process, like the logging module
    _listeners = listeners
    heard = frozenset[str]().union(*(names for _, names in listeners))
