"""The one seam for logs, metrics and injected faults: named events with fields.

A listener is called in the thread where the event happens, before the code goes on. What it raises
is raised there: this is how tests make the n-th commit fail, or hold it until they have looked.
"""

from collections.abc import Callable

Listener = Callable[[str, dict[str, object]], None]

_listeners: tuple[Listener, ...] = ()


def event(name: str, **fields: object) -> None:
    """Tell every listener that `name` (`area.past_participle`) happened."""
    for listener in _listeners:
        listener(name, fields)


def listen(listener: Listener) -> Callable[[], None]:
    """Add a listener; the returned function removes it again."""
    global _listeners  # noqa: PLW0603 - replaced whole, so that event() iterates without a lock
    _listeners = (*_listeners, listener)

    def remove() -> None:
        global _listeners  # noqa: PLW0603 - as above
        _listeners = tuple(kept for kept in _listeners if kept is not listener)

    return remove
