"""Every call ends by its deadline, whatever has become of the writer, and says what is known of its effect."""

import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from actorstate.client.calls import Call, NoAnswer
from actorstate.client.sync import Client, connect
from actorstate.client.sync.pool import Transport
from actorstate.config import ClientSettings
from actorstate.core.messages.replies import Reply
from actorstate.errors import ActorStateError, Busy, JobNotFound, OutcomeUnknown, WriterUnavailable
from tests.support.processes import HASTY, SLOW, Aside, ends_within, frozen, together, unchanged
from tests.support.writer import WriterProcess, Writers, writers

__all__ = ["writers"]

BRIEF = replace(HASTY, timeout_s=0.25, attempt_s=0.2)
DEADLINE_S = BRIEF.timeout_s
READS: dict[str, Callable[[Client], object]] = {
    "get": lambda client: client.get("job"),
    "get_if_newer": lambda client: client.get_if_newer("job", 1),
    "jobs": lambda client: list(client.jobs()),
    "ask": Client.ask,
    "watch": lambda client: next(client.watch("job")),
}
CHANGES: dict[str, Callable[[Client], object]] = {
    "create": lambda client: client.create("new"),
    "pause": lambda client: client.pause("job"),
    "complete": lambda client: client.complete("job"),
    "delete": lambda client: client.delete("job"),
    "attach": lambda client: client.attach("job").__enter__(),
    "run": lambda client: client.run("job").__enter__(),
}


# --- a writer that is dead, stopped or was never there --------------------------------------------------------


@pytest.fixture(scope="module", params=[pytest.param("dead", marks=SLOW), "stopped", "absent"])
def away(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory whose writer does not answer; the job `job` is in it unless there never was one."""
    directory = tmp_path_factory.mktemp("away") / "jobs"
    if request.param == "absent":
        yield directory
        return
    writer = WriterProcess(directory).start()
    with connect(directory) as client:
        client.create("job")
    writer.stop() if request.param == "stopped" else writer.kill()
    yield directory
    writer.kill()


@pytest.mark.parametrize("call", READS | CHANGES)
def test_a_call_outlives_its_deadline_or_claims_to_be_under_way(away: Path, call: str) -> None:
    with connect(away, settings=BRIEF) as client, ends_within(DEADLINE_S), pytest.raises(WriterUnavailable) as raised:
        (READS | CHANGES)[call](client)
    assert raised.value.code == "writer_unavailable"
    assert raised.value.retryable
    assert f"actorstate serve {away}" in raised.value.hint
    assert f"actorstate doctor {away}" in raised.value.hint


def test_a_wait_outlives_its_timeout_and_the_deadline(away: Path) -> None:
    with connect(away, settings=BRIEF) as client, ends_within(0.2 + DEADLINE_S), pytest.raises(WriterUnavailable):
        client.wait("job", after=1, timeout_s=0.2)


def test_a_deadline_of_its_own_is_not_kept(away: Path) -> None:
    with connect(away) as client:
        for timeout_s in (0.05, 0.3):
            with ends_within(timeout_s), pytest.raises(WriterUnavailable):
                client.get("job", timeout_s=timeout_s)


def test_one_of_many_calls_at_once_outlives_its_deadline(away: Path) -> None:
    with connect(away, settings=BRIEF) as client:
        with pytest.raises(WriterUnavailable):
            client.get("job", timeout_s=0)

        def call(place: int) -> None:
            use = (*READS.values(), *CHANGES.values())[place % len(READS | CHANGES)]
            with pytest.raises(WriterUnavailable):
                use(client)

        with ends_within(DEADLINE_S):
            together(24, call)


# --- a client that has been in touch -------------------------------------------------------------------------


@contextmanager
def in_touch(writers: Writers, settings: ClientSettings = BRIEF) -> Generator[tuple[WriterProcess, Client]]:
    """A writer, and a client that has an open connection to it."""
    writer = writers().start()
    with connect(writer.directory, settings=settings) as client:
        client.create("job")
        yield writer, client


def test_a_change_sent_to_a_stopped_writer_is_said_not_to_be_sent(writers: Writers) -> None:
    with in_touch(writers) as (writer, client):
        with frozen(writer):
            with ends_within(DEADLINE_S), pytest.raises(OutcomeUnknown) as raised:
                client.create("new")
            assert raised.value.job == "new"
            assert "actorstate get" in raised.value.hint
            assert not raised.value.retryable
            with ends_within(DEADLINE_S), pytest.raises(WriterUnavailable):
                client.get("job")
        assert client.get("job").id == "job"


def test_a_change_whose_outcome_was_unknown_is_applied_later(writers: Writers) -> None:
    with in_touch(writers) as (writer, client), connect(writer.directory) as other:
        numbers = range(5)
        with frozen(writer):
            for number in numbers:
                with pytest.raises(OutcomeUnknown if number == 0 else ActorStateError):
                    client.create(f"new-{number}")
        other.create("something-else")
        assert [state.id for state in other.jobs()] == ["job", "something-else"]
        for number in numbers:
            with pytest.raises(JobNotFound):
                client.get(f"new-{number}")


@pytest.mark.parametrize("how", [pytest.param("stopped", marks=SLOW), "killed"])
def test_a_client_is_lost_with_its_writer(writers: Writers, how: str) -> None:
    with in_touch(writers) as (writer, client):
        for number in range(2):
            pause: AbstractContextManager[None] = frozen(writer) if how == "stopped" else nullcontext()
            with pause:
                if how == "killed":
                    writer.kill()
                for use in (READS["get"], READS["jobs"], CHANGES["pause"]):
                    with ends_within(DEADLINE_S), pytest.raises((WriterUnavailable, OutcomeUnknown)):
                        use(client)
            if how == "killed":
                writer.start()
            assert client.get("job").id == "job"
            client.create(f"after-{number}")
            assert client.get(f"after-{number}").status == "pending"


def test_a_call_gives_up_while_its_writer_is_only_restarting(writers: Writers) -> None:
    with in_touch(writers, ClientSettings(timeout_s=30.0)) as (writer, client), client.attach("job") as run:
        writer.kill()
        calls = [
            Aside(lambda: client.get("job").id),
            Aside(lambda: client.create("new").id),
            Aside(lambda: client.wait("job", after=0).id),
        ]
        run.progress(succeeded=1)
        flushed = Aside(run.flush)
        writer.start()
        assert [call.result() for call in calls] == ["job", "new", "job"]
        flushed.result()
        assert client.get("job").progress.processed == 1


def test_a_call_just_before_the_writers_first_start_gives_up(writers: Writers) -> None:
    writer = writers()
    with connect(writer.directory, settings=ClientSettings(timeout_s=30.0)) as client:
        begun = threading.Event()

        def create() -> str:
            begun.set()
            return client.create("job").id

        call = Aside(create)
        assert begun.wait(10)
        writer.start()
        assert call.result() == "job"


def test_a_late_answer_is_taken_for_that_of_another_request(writers: Writers) -> None:
    """Each request is given up before its answer comes; the next one goes over the same sockets, about another job."""
    hasty = replace(HASTY, timeout_s=0.05, attempt_s=0.02)
    with in_touch(writers) as (writer, client), connect(writer.directory, settings=hasty) as impatient:
        jobs = [f"job-{number}" for number in range(8)]
        for job in jobs:
            client.create(job, meta={"of": job})
            assert impatient.get(job, timeout_s=5.0).id == job
        turns = count()
        for _ in range(15):
            with frozen(writer):
                given_up = jobs[next(turns) % 8]
                with pytest.raises(WriterUnavailable):
                    impatient.get(given_up)
            wanted = jobs[next(turns) % 8]
            state = impatient.get(wanted, timeout_s=5.0)
            assert (state.id, state.meta) == (wanted, {"of": wanted})


def test_late_answers_in_many_threads_are_taken_for_those_of_others(writers: Writers) -> None:
    hasty = replace(HASTY, timeout_s=0.1, attempt_s=0.03)
    with in_touch(writers) as (writer, client), connect(writer.directory, settings=hasty) as impatient:
        for place in range(8):
            client.create(f"job-{place}")
            impatient.get(f"job-{place}", timeout_s=5.0)

        def ask(place: int) -> None:
            for _ in range(30):
                try:
                    assert impatient.get(f"job-{place}").id == f"job-{place}"
                except WriterUnavailable:
                    continue

        def disturb() -> None:
            for _ in range(10):
                with frozen(writer):
                    unchanged_for(0.05)
                client.get("job")

        disturber = Aside(disturb)
        together(8, ask)
        disturber.result()


def unchanged_for(seconds: float) -> None:
    """Lets others work for so long."""
    threading.Event().wait(seconds)


def test_a_change_that_may_have_been_accepted_is_said_to_have_changed_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first attempt is sent and its answer lost; all others come to a writer that is busy or is just ending."""

    def attempt(_transport: Transport, call: Call) -> Reply:
        if not call.first_sent:
            call.first_sent = time.monotonic()
            raise NoAnswer("the answer was lost")
        raise Busy("the writer is stopping", retry_after_s=0.01)

    monkeypatch.setattr(Transport, "_attempt", attempt)
    with connect(tmp_path, settings=BRIEF) as client, pytest.raises(OutcomeUnknown):
        client.pause("job")


def test_idle_sockets_to_an_address_that_moved_use_up_the_deadline(writers: Writers, tmp_path: Path) -> None:
    """The path is over libzmq's limit, so that each life of the writer listens at another address."""
    writer = writers(tmp_path / ("long" * 30) / "jobs")
    writer.directory.parent.mkdir(parents=True)
    writer.start()
    with connect(writer.directory, settings=ClientSettings(timeout_s=5.0)) as client:
        before = client.create("job")
        waiting = [Aside(lambda: client.wait("job", after=before.revision, timeout_s=2)) for _ in range(30)]
        client.pause("job")
        for each in waiting:
            each.result()
        writer.restart()
        assert client.get("job").id == "job"


def test_a_wait_ends_late_when_nothing_happens(writers: Writers) -> None:
    with in_touch(writers) as (_writer, client):
        for timeout_s in (0.0, 0.05, 0.3):
            with ends_within(timeout_s):
                unchanged(client, "job", timeout_s)
