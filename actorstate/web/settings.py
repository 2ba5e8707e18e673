"""What the host of the pages decides. Every bound says what happens when it is reached."""

from dataclasses import dataclass

from actorstate.web.values import Check


@dataclass(frozen=True, slots=True)
class WebSettings:
    """Read-only unless `control` is given: it says who may pause, resume, cancel, retry and approve."""

    control: Check | None = None
    origins: tuple[str, ...] = ()
    """Origins (`https://jobs.example.org`) from which controls are taken beside the server's own."""
    hosts: tuple[str, ...] | None = None
    """Names that this server answers to (421 for others), addresses besides: where no login is in front, another site
    could make its own name lead here and read along (DNS rebinding). None: to all."""
    timeout_s: float = 2.0
    """How long a request waits for the writer before it is answered with 503 or the last known state."""
    stale: bool = True
    """Whether the last known state of a job, or of a list, is shown and marked while the writer is away; else 503."""
    fresh_s: float = 3.0
    """Jobs that the change feed does not name are answered from this process's memory, without a question to the
    writer; after a silence of the feed for so long (it beats each second) all is asked for. 0: always."""
    max_wait_s: float = 25.0
    """A longer `?wait=` is answered after this long, as if nothing had changed."""
    max_waiting: int | None = None
    """Requests of one process held by `?wait=`; further ones are answered at once. Under WSGI each takes a thread."""
    max_streams: int | None = None
    """Event streams of one process; one more is refused with 503. Under WSGI each takes a thread, but for gevent."""
    stream_s: float = 25.0
    """A stream ends after this long and its reader comes back, so that no shutdown waits for one longer."""
    stream_every_s: float = 0.25
    """At most one event in this time; what changed meanwhile is in the next one."""
    max_known_bytes: int = 64 * 1024 * 1024
    """States kept as JSON in one process, and answers as they came; above it all are dropped and asked for anew."""
    max_body_bytes: int = 16 * 1024
    """A larger request body is refused with 413."""


@dataclass(frozen=True, slots=True)
class Held:
    """How many requests and event streams of one process may be held."""

    waiting: int
    streams: int


THREADS = Held(waiting=4, streams=0)
TASKS = Held(waiting=1_000, streams=1_000)


def held(settings: WebSettings, usual: Held) -> Held:
    """What the host has set, and what is usual under this kind of server where it has not."""
    return Held(
        usual.waiting if settings.max_waiting is None else settings.max_waiting,
        usual.streams if settings.max_streams is None else settings.max_streams,
    )
