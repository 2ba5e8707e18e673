"""One client in many threads: each gets the answers to its own questions, and none waits for another."""

import contextlib
import faulthandler
import gc
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator

import pytest

from actorstate.client.sync import Client, connect
from actorstate.client.sync.pool import Link
from actorstate.errors import ActorStateError, JobNotFound
from tests.support.processes import LIVELY, WITHIN_S, Aside, Child, client, job, served, together
from tests.support.writer import WriterProcess

__all__ = ["client", "job", "served"]

THREADS = 8


def links_of(client: Client) -> list[Link]:
    """What its client holds in each process that it was used in."""
    return list(client.transport._links.values())  # pyright: ignore[reportPrivateUsage]


def asking(client: Client, job: str) -> Callable[[int], object]:
    return lambda _place: client.get(job)


def ask_for_own(client: Client, job: str, place: int, times: int) -> None:
    """Each thread reads a job of its own, and its own alone, and one that nobody has."""
    own = f"{job}-{place}"
    for number in range(times):
        state = client.get(own)
        assert (state.id, state.meta["of"]) == (own, place)
        if number % 10 == 0:
            with pytest.raises(JobNotFound) as missing:
                client.get(f"{own}-missing")
            assert missing.value.job == f"{own}-missing"


@pytest.fixture
def impatient_switching() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_a_thread_gets_the_answer_to_another_ones_question(client: Client, job: str) -> None:
    for place in range(THREADS):
        client.create(f"{job}-{place}", meta={"of": place})
    together(THREADS, lambda place: ask_for_own(client, job, place, 200))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("impatient_switching")
def test_the_first_calls_of_a_client_made_at_once_share_half_a_link(
    served: WriterProcess, client: Client, job: str
) -> None:
    for number in range(20):
        fresh = connect(served.directory, settings=LIVELY)

        def begin(place: int, fresh: Client = fresh, number: int = number) -> None:
            own = f"{job}-{number}-{place}"
            assert fresh.create(own, meta={"of": place}).id == own
            ask_for_own(fresh, f"{job}-{number}", place, 3)

        together(THREADS, begin)
        assert len(links_of(fresh)) == 1
        fresh.close()


@pytest.mark.usefixtures("impatient_switching")
def test_a_link_that_lost_the_race_to_be_first_is_never_closed(served: WriterProcess, client: Client, job: str) -> None:
    client.create(job)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(20):
            with connect(served.directory) as fresh:
                together(THREADS, asking(fresh, job))
        gc.collect()
    assert not [warning for warning in caught if issubclass(warning.category, ResourceWarning)]


@pytest.mark.usefixtures("impatient_switching")
def test_threads_that_count_in_one_run_lose_a_row(client: Client, job: str) -> None:
    each = 500
    client.create(job)
    with client.attach(job) as run:

        def count(place: int) -> None:
            for _ in range(each):
                run.progress(succeeded=1, bytes=place)

        together(THREADS, count)
    progress = client.get(job).progress
    assert (progress.processed, progress.bytes) == (THREADS * each, each * sum(range(THREADS)))


def test_threads_with_a_run_each_lose_a_row(client: Client, job: str) -> None:
    each = 100
    client.create(job)

    def work(place: int) -> None:
        with client.attach(job, worker=f"w-{place}") as run:
            for number in range(each):
                run.progress(succeeded=1)
                if number % 20 == 0:
                    run.checkpoint(number, name=run.worker)

    together(THREADS, work)
    state = client.get(job)
    assert (state.progress.processed, state.workers, len(state.checkpoints)) == (THREADS * each, {}, THREADS)


def test_a_thread_that_waits_keeps_the_others_from_asking(client: Client, job: str) -> None:
    before = client.create(job)
    waiting = [Aside(lambda: client.wait(job, after=before.revision).status) for _ in range(THREADS)]
    for _ in range(20):
        client.get(job)
    client.complete(job)
    assert {beside.result() for beside in waiting} == {"completed"}


def test_closing_under_a_waiting_thread_gives_it_an_untyped_error(
    served: WriterProcess, client: Client, job: str
) -> None:
    before = client.create(job)
    closed = connect(served.directory)
    beside = Aside(lambda: closed.wait(job, after=before.revision, timeout_s=0.3))
    for _ in range(20):
        closed.get(job)
    closed.close()
    with contextlib.suppress(ActorStateError):
        beside.result()
    with closed:
        assert closed.get(job).id == job


def closes_under_threads(directory: str, job: str) -> None:
    """Closes its client again and again while eight threads ask."""
    faulthandler.dump_traceback_later(WITHIN_S / 2, exit=True)
    sys.setswitchinterval(1e-6)
    over = threading.Event()
    closing = connect(directory)

    def ask() -> None:
        while not over.is_set():
            with contextlib.suppress(ActorStateError):
                assert closing.get(job).id == job

    asking = [Aside(ask) for _ in range(THREADS)]
    for _ in range(250):
        closing.get(job)
        closing.close()
    over.set()
    for beside in asking:
        beside.result()
    assert closing.get(job).id == job


def test_closing_under_busy_threads_aborts_the_process(served: WriterProcess, client: Client, job: str) -> None:
    client.create(job)
    with Child(closes_under_threads, served.directory, job) as child:
        code = child.wait()
        assert code != -signal.SIGABRT, child.errors()
        assert code == 0, child.errors()


def test_a_client_that_was_closed_cannot_be_used_again(served: WriterProcess, client: Client, job: str) -> None:
    client.create(job)
    closed = connect(served.directory)
    for _ in range(5):
        assert closed.get(job).id == job
        closed.close()
        closed.close()
    with closed:
        assert closed.get(job).id == job


def test_a_thread_that_ends_leaves_its_socket_unused(client: Client, job: str) -> None:
    client.create(job)
    before = threading.active_count()
    for _ in range(50):
        Aside(lambda: client.get(job)).result()
    [link] = links_of(client)
    assert len(link.idle) <= 2
    assert threading.active_count() == before
