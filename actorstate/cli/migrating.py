"""How a migration is shown: one line that is drawn anew on a terminal, at most one line a second in a pipe."""

import argparse
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from actorstate.cli.views import clean
from actorstate.migrate.plan import Plan, UserPlan
from actorstate.migrate.prune import Pruned
from actorstate.migrate.run import Outcome, Report, Watcher
from actorstate.migrate.status import Standing
from actorstate.migrate.verification import Checked
from actorstate.migrate.words import outcome_lines, size, span

UNITS = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
FRAME_S = 0.2
LINE_S = 2.0
"""At most one line or frame in this time."""
WINDOW_S = 30.0
"""The speed is that of so much time, without pauses."""
EARLIEST_S = 3.0
"""Before that there is no honest estimate."""
BAR = 24


def span_of_time(text: str) -> float:
    """Seconds of a time such as 30d, 12h, 90s; raises what argparse makes a usage error of."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write 30d, 12h, 15m or 90s")
    return float(found[1]) * UNITS[found[2]]


class Following(Watcher):
    """Shows users and bytes, speed and the time that is left; hands all on to `inner`. Safe to `tell` from threads."""

    def __init__(self, inner: Watcher, *, drawing: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self.inner, self._drawing, self._clock = inner, drawing, clock
        self._lock = threading.Lock()
        self._plan: Plan | None = None
        self._users = self._bytes = 0
        self._under_way: dict[str, int] = {}
        self._shown = 0.0
        self._paused_s = 0.0
        self._samples: deque[tuple[float, int]] = deque([(clock(), 0)])

    def begun(self, plan: Plan) -> None:
        self._plan = plan
        self.inner.begun(plan)

    def may_go_on(self) -> None:
        before = self._clock()
        try:
            self.inner.may_go_on()
        finally:
            self._paused_s += self._clock() - before

    def ended(self, outcome: Outcome, plan: UserPlan) -> None:
        with self._lock:
            self._users += 1
            self._bytes += plan.bytes
            self._under_way.pop(plan.user, None)
        self.inner.ended(outcome, plan)
        if outcome.result in {"refused", "failed", "needs_attention"}:
            self._wipe()
            for text in outcome_lines(outcome):
                print(clean(text), file=sys.stderr, flush=True)
        self._show()

    def finished(self, report: Report) -> None:
        self._wipe()
        self.inner.finished(report)

    def tell(self, user: str, done: int, total: int) -> None:
        """So many bytes of the user at work are done with."""
        with self._lock:
            self._under_way[user] = min(done, total)
        self._show()

    def _show(self) -> None:
        now = self._clock()
        with self._lock:
            if self._plan is None or now < self._shown + (FRAME_S if self._drawing else LINE_S):
                return
            self._shown = now
            text = self._text(now, self._plan)
        drawn_over(text, drawing=self._drawing)

    def _text(self, now: float, plan: Plan) -> str:
        done, total = self._bytes + sum(self._under_way.values()), max(plan.bytes, 1)
        active = now - self._paused_s
        self._samples.append((active, done))
        while len(self._samples) > 2 and self._samples[0][0] < active - WINDOW_S:  # noqa: PLR2004 - two make a speed
            self._samples.popleft()
        passed, gone = active - self._samples[0][0], done - self._samples[0][1]
        parts = [f"{self._users:,} of {len(plan.users):,} users", f"{size(done)} of {size(plan.bytes)}"]
        if passed >= EARLIEST_S and gone > 0:
            parts += [f"{size(gone / passed)}/s", f"{span((total - done) * passed / gone)} left"]
        filled = min(BAR, BAR * done // total)
        return (f"[{'#' * filled}{'.' * (BAR - filled)}]  " if self._drawing else "") + "  ".join(parts)

    def _wipe(self) -> None:
        drawn_over("", drawing=self._drawing)


def drawn_over(text: str, *, drawing: bool) -> None:
    """A line of progress on standard error: in place of the last one, or as one more; an empty one only wipes."""
    if drawing:
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)


def standing_lines(one: Standing) -> Iterator[str]:
    """One user's state, where his copies lie, and what to type next."""
    at = "" if one.ended is None else f", since {datetime.fromtimestamp(one.ended, UTC):%Y-%m-%d %H:%M} UTC"
    step = f" at step {one.step}" if one.step else ""
    yield clean(f"{one.user}: {one.state.replace('_', ' ')}{step}{at}{f': {one.reason}' if one.reason else ''}")
    for path in one.backups:
        yield f"  backup: {path}"
    for path, what in one.copies:
        yield f"  {what}: {path}"
    if one.next:
        yield f"  next: {one.next}"


def checked_lines(one: Checked) -> Iterator[str]:
    """What verification found for one user."""
    yield clean(f"{one.user}: {'good' if one.good else 'WRONG'} ({one.state.replace('_', ' ')})")
    for text in one.wrong:
        yield f"  wrong: {text}"
    for text in one.changed:
        yield f"  changed since the migration: {text}"


def pruned_line(one: Pruned) -> str:
    """What became of one backup."""
    what = one.backup or one.user
    return f"removed {what} ({size(one.bytes)})" if not one.stays else f"kept {what}: {one.stays}"
