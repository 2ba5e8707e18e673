"""How far a reader of the code must follow one progress message: at most 25 functions in 9 files, there and back.

The rule. From `run.progress` to the return of `run.flush`, every function that is defined in actorstate/ and
called in any thread counts once. Anonymous code (comprehension, generator expression, lambda) belongs to the
function it stands in. What the writer's loop calls in a round without any message is not counted; that is
measured, not listed.

The message itself begins where it gets its number (`Transport.start`): `client/run`, `client/sender` and
`client/pending` merge any number of calls into it before. They are counted apart, as the way to the message.
"""

import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType

import pytest

import actorstate
from actorstate.client.run import Run
from actorstate.client.sync import connect
from actorstate.config import ClientSettings, WriterSettings
from tests.support.inprocess import WriterThread

PACKAGE = str(Path(actorstate.__file__).parent) + "/"
IN_LOOP = WriterSettings(beside_above_s=10.0)
SILENT = ClientSettings(heartbeat_s=600.0)
BEFORE_THE_MESSAGE = frozenset({"client/run.py", "client/sender.py", "client/pending.py"})
AFTER_THE_ANSWER = ("writer/server.py", "Server._publish")
"""The feed is told once the answer is sent: in some rounds before the sender has woken up, in others later."""
MAX_FUNCTIONS, MAX_FILES = 25, 9

Step = tuple[str, str]


@contextmanager
def profiled(note: Callable[[CodeType], None]) -> Generator[None]:
    """Calls `note` for each call in this thread and in those that are started within the block."""

    def hook(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call":
            note(frame.f_code)

    threading.setprofile(hook)
    sys.setprofile(hook)
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


class Trail:
    """The functions of ours that were called while it was open, in their order, each once."""

    def __init__(self) -> None:
        self.steps: dict[Step, None] = {}
        self.open = False

    def note(self, code: CodeType) -> None:
        """Keeps the call if it is one of a named function of ours."""
        if self.open and code.co_filename.startswith(PACKAGE):
            named = code.co_qualname.split(".<locals>.<")[0]
            self.steps.setdefault((code.co_filename.removeprefix(PACKAGE), named))

    def take(self) -> list[Step]:
        """What it has, and an empty trail."""
        steps, self.steps = list(self.steps), {}
        return steps


def followed(trail: Trail, work: Callable[[], None]) -> list[Step]:
    """The trail of `work`."""
    trail.open = True
    work()
    trail.open = False
    return trail.take()


def say_one_row(run: Run) -> None:
    run.progress(succeeded=1)
    run.flush()


@pytest.fixture
def way(tmp_path: Path) -> list[Step]:
    """The functions on one row's way, those of an idle round of the loop taken out."""
    trail = Trail()
    with profiled(trail.note), WriterThread(tmp_path, IN_LOOP) as writer, connect(tmp_path, settings=SILENT) as client:
        client.create("job")
        with client.attach("job") as run:
            for _ in range(3):
                say_one_row(run)
            steps = min((followed(trail, lambda: say_one_row(run)) for _ in range(5)), key=len)  # one without a tick
            idle = followed(trail, lambda: idle_rounds(writer))
    assert ("writer/server.py", "Server._receive") in idle
    return [step for step in steps if step not in idle and step != AFTER_THE_ANSWER]


def idle_rounds(writer: WriterThread) -> None:
    """Returns when the loop has gone round twice for nothing but its tick."""
    assert writer.server is not None
    ticks = threading.Semaphore(0)
    writer.server.on_tick = lambda _last_commit: ticks.release()
    for _ in range(2):
        assert ticks.acquire(timeout=60.0)


def told(title: str, steps: list[Step]) -> tuple[int, int]:
    """Prints the steps; the numbers of functions and files."""
    files = {file for file, _ in steps}
    print(f"{title}: {len(steps)} functions in {len(files)} files")
    for place, (file, function) in enumerate(steps, start=1):
        print(f"{place:4} {file:22} {function}")
    return len(steps), len(files)


def test_a_progress_message_goes_through_few_functions_and_files(way: list[Step]) -> None:
    message = [step for step in way if step[0] not in BEFORE_THE_MESSAGE]
    functions, files = told("from its number to its answer", message)
    assert ("core/actor.py", "Actor.propose") in message
    assert ("store/sqlite/__init__.py", "SqliteStore.commit") in message
    assert functions <= MAX_FUNCTIONS
    assert files <= MAX_FILES


def test_a_call_of_progress_becomes_a_message_in_few_functions(way: list[Step]) -> None:
    before = [step for step in way if step[0] in BEFORE_THE_MESSAGE]
    functions, files = told("from the call to the message", before)
    assert files <= len(BEFORE_THE_MESSAGE)
    assert functions <= MAX_FUNCTIONS
