"""What a reader checks in each state it is given. Pure: states in, findings out."""

from dataclasses import dataclass

from actorstate.core.messages.document import Document


@dataclass(slots=True)
class Observer:
    """Findings of one reader so far.

    `torn`: the counts do not add up, or one revision was seen with two contents. `backwards`: (epoch,
    revision) fell, or the revision alone: then a state had been shown that a crash could undo.
    `revived`: a finished job was seen unfinished.
    """

    reads: int = 0
    torn: int = 0
    backwards: int = 0
    revived: int = 0
    last: Document | None = None

    def see(self, state: Document) -> None:
        """Take one state that was read."""
        self.reads += 1
        self.torn += not adds_up(state)
        if self.last is not None:
            before, now = (self.last.epoch, self.last.revision), (state.epoch, state.revision)
            self.backwards += now < before or state.revision < self.last.revision
            self.torn += now == before and (state.progress, state.tracks) != (self.last.progress, self.last.tracks)
            self.revived += self.last.finished and not state.finished
        self.last = state


def adds_up(state: Document) -> bool:
    """Whether processed is the sum of the outcomes, and of what each part has counted: the demo counts nothing else."""
    progress = state.progress
    outcomes = progress.succeeded + progress.failed + progress.skipped + progress.duplicates
    return progress.processed == outcomes == sum(track.counted for track in state.tracks.values())
