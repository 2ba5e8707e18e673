"""Moments as people type them: a revision, a time, or how long ago."""

import argparse
import re
from datetime import UTC, datetime, timedelta

UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
MEANING = "a revision (41), a time (2026-11-23T01:30Z) or an age ('5m ago'; s, m, h, d, w)"
_AGE = re.compile(r"(\d+(?:\.\d+)?) ?([smhdw])(?: ?ago)?")


def moment(text: str) -> int | datetime:
    """What `client.get(at=)` takes; for argparse, which tells people what was wrong."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return int(text)
    if age := _AGE.fullmatch(text):
        return _before_now(float(age[1]) * UNITS_S[age[2]], text)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no moment: give {MEANING}") from None
    if at.utcoffset() is None:
        whole = text if len(text) > len("2026-11-23") else f"{text}T00:00"
        raise argparse.ArgumentTypeError(f"{text!r} has no time zone: write {whole}Z for UTC, or {whole}+02:00")
    return at


def _before_now(age_s: float, text: str) -> datetime:
    try:
        return datetime.now(UTC) - timedelta(seconds=age_s)
    except OverflowError:
        raise argparse.ArgumentTypeError(f"{text!r} is longer ago than anything") from None
