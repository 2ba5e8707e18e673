"""Starting a directory's writer: the one place. Asked only when an attempt found nobody.

A start is `python -m actorstate serve LOCATION --detach`, in a session of its own, awaited and reaped by a
thread: callers wait for it no longer than they have time. Threads that ask at once share one start, and
clients take turns by DIR/.actorstate/starting: 30 web workers after a reboot are one start, not 30. That
only saves work; it is the writer's lock that elects one of those that start all the same.
"""

import contextlib
import fcntl
import json
import os
import site
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import cast

from actorstate.config import ClientSettings
from actorstate.endpoint import is_begun, lock_holder, private_folder, user_name
from actorstate.errors import WriterRunning, WriterUnavailable
from actorstate.store.files import make_private_folder
from actorstate.store.location import Location, quoted

SWITCH = "ACTORSTATE_AUTOSTART"
"""Set to 0, no, false or off in the environment it forbids every start: there a supervisor owns the writer."""
REPEAT_AFTER_S = 0.2
"""A start that went well is not repeated sooner: the writer may be about to answer."""
REPEAT_FAILED_AFTER_S = 5.0
"""A start that failed is not repeated sooner; until then callers get its error at once."""
TURN_S, LOOK_EVERY_S = 5.0, 0.05
"""How long another client's start is waited for before we start ourselves (it may be stopped), and how often
we look whether it is over."""
TAIL_LINES = 5
_OF_OTHERS = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID")
"""A service manager's words to the client; the writer must not answer them in its place."""


class Starter:
    """Starts the writer of one location for one client in one process."""

    def __init__(self, location: Location, settings: ClientSettings) -> None:
        self._location, self._directory, self._settings = location, location.directory, settings
        self._lock = threading.Lock()
        self._start: _Start | None = None

    def start_unless_held(self, deadline: float, *, may_begin: bool) -> None:
        """Returns once a writer serves or somebody holds the lock; at once where starting is switched off.

        Only with `may_begin` a directory is begun in which there never was a writer. `deadline` is monotonic.
        Raises WriterUnavailable, with the reason and what to type, when no writer could be started by then.
        """
        if not self._settings.autostart or is_switched_off():
            return
        try:
            if lock_holder(self._directory) is not None:
                return
            self._check(may_begin=may_begin)
        except PermissionError as error:
            hint = f"look who may: ls -ld {quoted(self._directory)}"
            raise self._unavailable(f"this user may not look at {error.filename}", hint) from error
        with self._lock:
            start = self._start
            if start is None or time.monotonic() >= start.repeat_at:
                start = self._start = _Start(self._command(), self._directory)
        if not start.over.wait(max(0.0, deadline - time.monotonic())):
            raise self._unavailable("a writer is being started, and did not serve in time", "try again")
        if start.failure:
            raise self._unavailable(f"its writer could not be started: {start.failure}", start.hint)

    def _check(self, *, may_begin: bool) -> None:
        if not may_begin and not is_begun(self._location):
            hint = f"check the path; the first job begins it, or: actorstate serve {quoted(self._location)}"
            raise self._unavailable("there are no jobs there yet", hint)
        folder = private_folder(self._directory)
        owner = folder.stat().st_uid if folder.is_dir() else os.geteuid()
        if owner != os.geteuid():
            hint = f"start it as its owner: sudo -u {user_name(owner)} actorstate serve {quoted(self._location)}"
            raise self._unavailable(f"it has no writer and belongs to {user_name(owner)}", hint)

    def _command(self) -> list[str]:
        python = sys.executable
        if not is_python(python):
            what = f"this program ({python}) is no Python that could" if python else "no Python is known that could"
            raise self._unavailable(f"it has no writer, and {what} start one")
        idle = f"{self._settings.writer_idle_exit_s:g}"
        return [
            python,
            "-P",
            "-m",
            "actorstate",
            "serve",
            str(self._location),
            "--detach",
            "--json",
            "--idle-exit",
            idle,
        ]

    def _unavailable(self, why: str, hint: str = "") -> WriterUnavailable:
        return WriterUnavailable(f"{self._location}: {why}", hint=hint, directory=str(self._location))


class _Start:
    """One start, under way in a thread. Once `over`, `failure` says why no writer came of it, if none did."""

    def __init__(self, command: list[str], directory: Path) -> None:
        self._command, self._directory = command, directory
        self.over = threading.Event()
        self.repeat_at = float("inf")
        self.failure = self.hint = ""
        threading.Thread(target=self._run, name="actorstate-start", daemon=True).start()

    def _run(self) -> None:
        try:
            with _turn(private_folder(self._directory)):
                if lock_holder(self._directory) is None:
                    self._judge(_output(self._command))
        except OSError as error:
            self.failure = f"{error.filename or self._command[0]}: {error.strerror or error}"
        except Exception as error:  # noqa: BLE001 - the edge of a thread: told to all who wait for it
            self.failure = f"{error!r}"
        finally:
            self.repeat_at = time.monotonic() + (REPEAT_FAILED_AFTER_S if self.failure else REPEAT_AFTER_S)
            self.over.set()

    def _judge(self, output: str) -> None:
        """The launcher's last line is JSON; anything else is what an interpreter says that cannot even begin."""
        lines = output.strip().splitlines() or ["it said nothing"]
        try:
            said = json.loads(lines[-1])
        except ValueError:
            self.failure = " | ".join(lines[-TAIL_LINES:])
            return
        error = cast("dict[str, str] | None", said.get("error"))
        if error is not None and error["code"] != WriterRunning.code:
            self.failure, self.hint = error["message"], error["hint"]


@contextlib.contextmanager
def _turn(folder: Path) -> Generator[None]:
    """Our turn to start; after TURN_S without it as well.

    A POSIX lock: an flock would live on in a process that another thread forks meanwhile.
    """
    make_private_folder(folder)
    until = time.monotonic() + TURN_S
    with (folder / "starting").open("a") as file:
        while time.monotonic() < until:
            with contextlib.suppress(BlockingIOError):
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(LOOK_EVERY_S)
        yield


def _output(command: list[str]) -> str:
    """What the launcher printed, once it has ended and is reaped.

    Into memory, not through a pipe: a process that another thread forks meanwhile would hold that open. By
    its words, not its exit status: where the host program ignores or collects SIGCHLD there is none.
    """
    with os.fdopen(os.memfd_create("actorstate-start"), "rb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env=_environment(),
            start_new_session=True,  # Ctrl-C in a terminal is meant for the script in it
        )
        process.wait()
        return os.pread(output.fileno(), 100_000, 0).decode(errors="replace")


def _environment() -> dict[str, str]:
    """Ours, with which the launcher finds the same package in its own folder and keeps quiet to our supervisor."""
    root = str(Path(__file__).resolve().parents[2])
    given = [os.path.abspath(place) for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]  # noqa: PTH100 - absolute, links kept
    known = {*given, *site.getsitepackages(), site.getusersitepackages()}
    path = os.pathsep.join([*given, *([] if root in known else [root])])
    return {**{name: value for name, value in os.environ.items() if name not in _OF_OTHERS}, "PYTHONPATH": path}


def is_switched_off() -> bool:
    """Whether the environment forbids starting."""
    return os.environ.get(SWITCH, "").strip().lower() in {"0", "no", "false", "off"}


def is_python(executable: str) -> bool:
    """Whether it is an interpreter by its name: under uWSGI, or frozen into one file, it is the program itself."""
    name = Path(executable).name.lower()
    return not getattr(sys, "frozen", False) and ("python" in name or "pypy" in name)
