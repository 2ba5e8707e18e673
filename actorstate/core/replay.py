"""A job as it was: from a keyframe through the changes after it, one by one."""

from actorstate.core import codec
from actorstate.core.evolve import evolve
from actorstate.core.messages.document import Document
from actorstate.core.messages.replies import Change
from actorstate.errors import CorruptJob


def followed(document: Document | None, revision: int, change: Change, job: str) -> Document | None:
    """The job after the change that comes next. Raises CorruptJob where this one does not follow `revision`."""
    if change.revision != revision + 1:
        raise CorruptJob(f"job {job!r}: revision {change.revision} follows {revision}", job=job)
    return evolve(document, change)


class Replay:
    """`document` is the job at `revision`; None before its creation and after its deletion."""

    __slots__ = ("document", "job", "revision")

    def __init__(self, job: str, keyframe: bytes | None = None) -> None:
        self.job = job
        start = codec.decode_keyframe(keyframe) if keyframe is not None else None
        self.document: Document | None = start.document if start else None
        self.revision = start.revision if start else 0

    def follow(self, stored: bytes) -> Change:
        """Takes the next change and returns it. Raises CorruptJob where it does not follow."""
        try:
            change = codec.decode_change(stored)
        except CorruptJob as error:
            told = f"job {self.job!r}: revision {self.revision + 1}: {error.message}"
            raise CorruptJob(told, job=self.job) from error
        self.document, self.revision = followed(self.document, self.revision, change, self.job), change.revision
        return change
