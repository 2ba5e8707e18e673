"""What can be set about a demo, and where it puts its files."""

from dataclasses import dataclass
from pathlib import Path

JOB = "demo"
"""The id of the demo's job."""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """How the demo is played; the defaults take about ten seconds."""

    source: Path | None = None
    """The SQLite database to migrate; without it, this Python's standard library is indexed."""
    directory: Path | None = None
    """A new or empty directory that is kept; without it, a temporary one that goes when all went well."""
    workers: int = 4
    readers: int = 8
    kills: int = 2
    """How often the writer is killed; each one waits until the workers have got that far."""
    seconds: float = 5.0
    """Rows are handed out evenly over this time, so that there is something to see; 0 is as fast as they go."""
    patience_s: float = 60.0
    """Without any progress for this long, the demo ends with an error."""


@dataclass(frozen=True, slots=True)
class Place:
    """The files of one demo."""

    directory: Path

    @property
    def jobs(self) -> Path:
        """The writer's directory: `actorstate get JOBS demo` works on it."""
        return self.directory / "jobs"

    @property
    def source(self) -> Path:
        """The snapshot that is migrated; there is none when the standard library is indexed."""
        return self.directory / "source.sqlite"

    @property
    def target(self) -> Path:
        """The database that the workers fill."""
        return self.directory / "target.sqlite"

    @property
    def logs(self) -> Path:
        """What the processes printed."""
        return self.directory / "logs"
