"""A job as a reader sees it: the committed document, and beside it how long ago each worker was heard."""

from msgspec.structs import asdict

from actorstate.core.messages.document import Document


class JobState(Document, frozen=True):
    """`Document` and `last_beat_s`, seconds since each worker's last beat when the writer answered."""

    last_beat_s: dict[str, float] = {}


def job_state(document: Document, last_beat_s: dict[str, float]) -> JobState:
    """The document with its liveness."""
    return JobState(**asdict(document), last_beat_s=last_beat_s)
