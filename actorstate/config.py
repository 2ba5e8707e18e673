"""Frozen settings, with units in the names. Every bound says what happens when it is reached."""

from collections.abc import Callable
from dataclasses import dataclass

VERSION = "0.1.0"


@dataclass(frozen=True, slots=True)
class WriterSettings:
    """The writer's bounds and times; the defaults suit a small machine."""

    max_mailbox: int = 512
    """Envelopes waiting for one actor; above it the sender gets `Busy`."""
    max_waiting: int = 20_000
    """Envelopes waiting for all actors; above it every sender gets `Busy`."""
    max_batch: int = 256
    """Changes in one commit; the rest waits for the next one."""
    max_turn: int = 32
    """Envelopes that one actor may put into a commit before the others had theirs."""
    max_drain: int = 512
    """Frames taken from the socket before the loop looks after commits again."""
    max_frame_bytes: int = 4 * 1024 * 1024
    """A larger frame ends the sender's connection (libzmq MAXMSGSIZE)."""
    max_waiters: int = 10_000
    """Readers held open by `wait_s`; above it a reader gets its answer at once."""
    max_resident: int = 2_000
    """Actors in memory; above it the idlest without work leave."""
    idle_after_s: float = 30.0
    """An actor that nobody wrote to or asked for this long leaves memory."""
    beside_above_s: float = 0.0005
    """Commits run beside the loop when the median sync takes longer than this, in it when shorter."""
    drain_s: float = 5.0
    """How long SIGTERM waits for what was accepted before it gives up with an error."""
    idle_exit_s: float = 0.0
    """The writer ends when nobody needed it for this long; 0 means never."""
    late_after_s: float = 10.0
    dead_after_s: float = 30.0
    stalled_after_s: float = 120.0
    """Ages of the last beat (late, dead) and of the last progress (stalled) at which health changes."""
    expire_after_s: float | None = None
    """How long after its end a new job is deleted, unless it was created with a time of its own; None: never."""
    history_changes: int = 100_000
    history_age_s: float = 30 * 86_400.0
    """Changes of a job behind so many newer ones, or older than that, are forgotten, up to the next keyframe. The
    stretch before the newest keyframe always stays: it is the second copy of the job's state."""
    max_recalls: int = 64
    """Looks into the past under way at once; above it the sender gets `Busy`."""
    max_actor_failures: int = 3
    """Unexpected errors in a row after which a job is parked."""


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """The client's deadlines and intervals."""

    timeout_s: float = 10.0
    """Deadline of a call; it ends by then with an answer or a typed error."""
    attempt_s: float = 0.25
    """How long one attempt waits for its answer before the same message is sent again."""
    linger_s: float = 0.2
    """How long closing waits for unsent frames."""
    heartbeat_s: float = 1.0
    """A worker's beat while nothing else is said; replies bring control intents."""
    exit_flush_s: float = 5.0
    """How long leaving a block or the process waits for the last progress to be acknowledged."""
    redact: Callable[[str], str] | None = None
    """Given the text of each error that a worker reports, whole; what it returns leaves the process."""
    autostart: bool = True
    """Whether a writer is started where none runs; ACTORSTATE_AUTOSTART=0 in the environment forbids it too."""
    writer_idle_exit_s: float = 300.0
    """A writer that was started so ends when nobody needed it for this long; 0 means never."""
