"""How long ago something was, and whether the clocks can be believed: backups are removed by it.

The wall clock can be set; CLOCK_BOOTTIME cannot, but begins anew with each boot. Within one boot they must agree. Over
a reboot the date is believed where NTP kept it on both sides of it, or where this boot alone has lasted long enough.
"""

import ctypes
import time
from dataclasses import dataclass

from actorstate.endpoint import boot_id

MAX_CLOCK_ERROR_S = 3_600.0
_UNSYNCHRONIZED = 5
"""TIME_ERROR of <sys/timex.h>."""


@dataclass(frozen=True, slots=True)
class Moment:
    """One moment on two clocks, the boot whose clock the second is, and whether NTP kept the first."""

    wall: float
    boottime: float
    boot: str
    synchronized: bool = False


def present_moment() -> Moment:
    """The present moment."""
    return Moment(time.time(), time.clock_gettime(time.CLOCK_BOOTTIME), boot_id(), is_synchronized())


def is_synchronized() -> bool:
    """Whether the kernel says that something keeps the wall clock right; False where it may not be asked."""
    asked_nothing = ctypes.create_string_buffer(1_024)  # struct timex is 208 bytes; all zero, it changes nothing
    try:
        told: int = ctypes.CDLL(None).adjtimex(asked_nothing)
    except (OSError, AttributeError):
        return False
    return 0 <= told < _UNSYNCHRONIZED


def clock_problem(then: Moment, now: Moment) -> str:
    """Whether a clock was set since, in words; over a reboot only a step back can be seen."""
    if now.wall < then.wall:
        return "the clock is before the end of the migration: it was set"
    if now.boot != then.boot:
        return ""
    apart = (now.wall - then.wall) - (now.boottime - then.boottime)
    return f"the clock was set by {apart:,.0f} s since the migration" if abs(apart) > MAX_CLOCK_ERROR_S else ""


def doubt(then: Moment, now: Moment, age_s: float) -> str:
    """Why the date does not prove that `age_s` have passed, in words."""
    if now.boot == then.boot or now.boottime >= age_s or (then.synchronized and now.synchronized):
        return ""
    return "the machine was restarted since, and no NTP vouches for its date; if `date` is right: --trust-clock"
