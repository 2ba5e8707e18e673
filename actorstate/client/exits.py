"""Loses nothing when the process ends: SIGTERM, normal exit, and the exit of multiprocessing children.

What cannot be covered: SIGKILL, `os._exit`, a crash of the interpreter. There the writer has what was
acknowledged, and the worker resumes from its checkpoint.
"""

import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Generator
from types import FrameType
from typing import Protocol

from actorstate.errors import ActorStateError

EXIT_TERMINATED = 128 + signal.SIGTERM


class Flushable(Protocol):
    """Something with words unsaid."""

    def flush(self, timeout_s: float) -> None:
        """Returns once all that was said is durable."""
        ...

    def close(self) -> None:
        """Nothing more is said; a later flush does not wait again."""
        ...


_open: dict[int, dict[int, tuple[Flushable, float]]] = {}
"""Open runs by process and identity: a forked child leaves its parent's alone."""


@contextlib.contextmanager
def covered(run: Flushable, timeout_s: float) -> Generator[None]:
    """While the block is open, every orderly end of the process waits up to `timeout_s` for the run's last words."""
    runs = _open.setdefault(os.getpid(), {})
    if not runs:
        _at_exit_of_this_process()
    runs[id(run)] = (run, timeout_s)
    try:
        with terminated_as_exit():
            yield
    finally:
        _open.get(os.getpid(), {}).pop(id(run), None)


def flush_open_runs() -> None:
    """The last words of every open run of this process; what cannot be said is printed."""
    for run, timeout_s in list(_open.get(os.getpid(), {}).values()):
        try:
            run.flush(timeout_s)
        except ActorStateError as error:
            print(f"actorstate: at exit: {error}", file=sys.stderr)  # noqa: T201 - logging may be gone by now
            run.close()


def _at_exit_of_this_process() -> None:
    """multiprocessing children skip atexit, and forget finalizers that were made before their fork."""
    atexit.unregister(flush_open_runs)
    atexit.register(flush_open_runs)
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.Finalize(None, flush_open_runs, exitpriority=100)


@contextlib.contextmanager
def terminated_as_exit() -> Generator[None]:
    """SIGTERM raises SystemExit(143) in the main thread, if nobody else handles it; restored when the block ends."""
    main = threading.current_thread() is threading.main_thread()
    if not main or not _is_ours_to_set(signal.getsignal(signal.SIGTERM)):
        yield
        return
    ending = _Ending(os.getpid())
    signal.signal(signal.SIGTERM, ending)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is ending:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextlib.contextmanager
def postponed() -> Generator[None]:
    """A SIGTERM that would raise in here is honoured when the block ends; a second one at once."""
    ending = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or not isinstance(ending, _Ending):
        yield
        return
    ending.waits = True
    try:
        yield
    finally:
        ending.waits = False
        if ending.asked:
            raise SystemExit(EXIT_TERMINATED)


class _Ending:
    """The handler of one process. A forked child without one of its own dies by the signal, as it would without us."""

    def __init__(self, owner: int) -> None:
        self.owner = owner
        self.waits = self.asked = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        if os.getpid() == self.owner:
            if self.waits and not self.asked:
                self.asked = True
                return
            raise SystemExit(EXIT_TERMINATED)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)


def _is_ours_to_set(handler: object) -> bool:
    """Nobody handles SIGTERM, or only the process that we were forked from did."""
    return handler == signal.SIG_DFL or (isinstance(handler, _Ending) and handler.owner != os.getpid())
