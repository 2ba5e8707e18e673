"""The demo on a terminal, in a pipe, or as one JSON object."""

import importlib.util
import json
import signal
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

from actorstate.demo.options import DemoOptions
from actorstate.demo.processes import DemoFailed
from actorstate.demo.run import Moment, View, run_demo
from actorstate.demo.verdict import Verdict
from actorstate.demo.words import facts, printable, verdict_lines

FINE, NO, INTERRUPTED, TERMINATED = 0, 1, 130, 143
TELL_EVERY_S = 1.0
"""How often a pipe gets a line about the progress."""

Play = Callable[[DemoOptions, View], Verdict]


def show_demo(options: DemoOptions, *, as_json: bool, play: Play = run_demo) -> int:
    """Plays the demo where the user can see it, and returns 0 when all of the verdict held, 1 otherwise.

    Ctrl-C ends all of its processes and returns 130. Raises SourceUnreadable and BadRequest for options
    that cannot be played.
    """
    try:
        with _terminable():
            verdict = _played(options, play, as_json=as_json)
    except KeyboardInterrupt:
        print("demo: interrupted, all of its processes have ended", file=sys.stderr)
        return INTERRUPTED
    except DemoFailed as error:
        print(f"demo: {printable(str(error))}", file=sys.stderr)
        if as_json:
            print(json.dumps({"ok": False, "error": error.code, "message": error.message}))
        return NO
    return FINE if verdict.ok else NO


class SilentView:
    """Tells nobody."""

    def tell(self, event: str) -> None:
        """Something happened."""

    def show(self, moment: Moment) -> None:
        """This is how it stands."""


class LineView:
    """Lines for a pipe: every event, and the progress now and then."""

    def __init__(self) -> None:
        self._shown_at = 0.0

    def tell(self, event: str) -> None:
        """A line at once."""
        print(printable(event), flush=True)

    def show(self, moment: Moment) -> None:
        """A line every TELL_EVERY_S."""
        if moment.seconds - self._shown_at >= TELL_EVERY_S:
            self._shown_at = moment.seconds
            print("; ".join(f"{name} {told}" for name, told in facts(moment)), flush=True)


def _played(options: DemoOptions, play: Play, *, as_json: bool) -> Verdict:
    if as_json:
        verdict = play(options, SilentView())
        print(json.dumps(verdict.as_json()))
    elif sys.stdout.isatty() and importlib.util.find_spec("rich") is not None:
        from actorstate.demo.live import LiveView, print_verdict  # noqa: PLC0415 - rich is optional, and slow to import

        with LiveView() as view:
            verdict = play(options, view)
        print_verdict(verdict)
    else:
        verdict = play(options, LineView())
        print("\n".join(verdict_lines(verdict)))
    return verdict


@contextmanager
def _terminable() -> Generator[None]:
    """SIGTERM and SIGHUP end the demo like Ctrl-C does, with its processes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(TERMINATED)

    wanted = [one for one in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(one) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, end) for number in wanted}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
