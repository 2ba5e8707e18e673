"""Attempts: what an explicit retry makes of a job that has ended. Nothing else brings one back."""

from datetime import datetime

from msgspec.structs import replace

from actorstate.core.messages.document import Approval, Attempt, Document, Progress, Rate

MAX_ATTEMPTS = 50
"""The newest that have ended are kept; `attempt` goes on counting."""


def reopened(document: Document, at: datetime, *, from_start: bool = False, by: str = "") -> Document:
    """The next attempt of a finished job, pending; the ended one is kept beside it.

    Checkpoints, tracks, counts and answers stay, so that the work goes on where it was, unless `from_start`.
    Incarnations go on counting: whoever worked on the former attempt is fenced.
    """
    ended = Attempt(
        document.attempt,
        document.status,
        document.started_at,
        document.finished_at,
        document.reason,
        document.progress,
        by,
    )
    opened = replace(
        document,
        status="pending",
        attempt=document.attempt + 1,
        attempts=(*document.attempts, ended)[-MAX_ATTEMPTS:],
        started_at=None,
        finished_at=None,
        expires_at=None,
        reason=None,
        control=None,
        phase=None,
    )
    return _from_start(opened, at) if from_start else _unanswered_left(opened)


def _from_start(document: Document, at: datetime) -> Document:
    asked = document.question
    return replace(
        document,
        status="pending" if asked is None else "waiting",
        progress=Progress(total=document.progress.total, unit=document.progress.unit),
        rate=Rate(),
        checkpoints={},
        tracks={},
        steps=(),
        errors=(),
        error_count=0,
        approvals=() if asked is None else (Approval(asked, at),),
    )


def _unanswered_left(document: Document) -> Document:
    """A question that was open at the end is still to be answered where it was asked before the beginning."""
    if not document.awaits_approval:
        return document
    if document.approvals[-1].by:
        return replace(document, approvals=document.approvals[:-1])
    return replace(document, status="waiting")
