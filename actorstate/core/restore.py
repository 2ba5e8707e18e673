"""What a restore makes of a job: the work as it was, in a job that goes on.

An older state never lowers a revision: it comes back as the next one, paused, and `recovered` says from
which revision and what came after it. Brought back are progress, checkpoints, tracks, steps, phase, meta
and errors; the item ledger stays as it is. All that says who works on the job now, and who was told what,
stays out: workers are detached and so fenced, incarnations and exactly-once receipts count on, the last
control is the pause that this is. A job that has ended gets a new attempt.
"""

from datetime import datetime

from msgspec.structs import replace

from actorstate.core.attempts import reopened
from actorstate.core.messages.document import Control, Document, Rate, Recovered, Track
from actorstate.core.messages.replies import JobRestored


def restored(document: Document, body: JobRestored, at: datetime) -> Document:
    """`document` with the work of `body.state`."""
    state, lost_up_to = body.state, document.revision - 1
    open_ = reopened(document, at, by=body.by) if document.finished else document
    return replace(
        open_,
        status="paused",
        reason=None,
        workers={},
        health=None,
        control=Control("pause", at, "done", body.by, document.revision),
        rate=_without_measures(document.rate),
        progress=state.progress,
        checkpoints=state.checkpoints,
        tracks={name: _left(track) for name, track in state.tracks.items()},
        steps=state.steps,
        phase=state.phase,
        packed_meta=state.packed_meta,
        errors=state.errors,
        error_count=state.error_count,
        recovered=Recovered(state.revision, lost_up_to, at),
    )


def _left(track: Track) -> Track:
    return replace(track, worker="", incarnation=0)


def _without_measures(rate: Rate) -> Rate:
    """The time that was spent stays; a speed measured between counts of two pasts would be none."""
    return replace(rate, samples=(), per_s=None, window_s=0.0, eta=None, eta_low=None, eta_high=None)
