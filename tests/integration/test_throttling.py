"""A limit from outside reaches the workers, is shared by them, is lifted, and does not keep them from hearing more.

Speeds are compared with each other in one run, never with a clock.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from actorstate.client.run import Run
from actorstate.client.sync import Client, connect
from actorstate.config import WriterSettings
from actorstate.errors import BadRequest, JobFinished
from tests.support.inprocess import WriterThread
from tests.support.processes import LIVELY, Aside, client, job, served, until
from tests.support.writer import Writers, writers

__all__ = ["client", "job", "served", "writers"]

MANY = 1_000_000


class Rows:
    """A worker in a thread: runs through rows until it is cancelled."""

    def __init__(self, run: Run, name: str = "default", *, by_hand: bool = False) -> None:
        self.seen = 0
        self._run, self._name = run, name
        self._beside = Aside(self._by_hand if by_hand else self._track)

    def ended(self) -> None:
        """Waits for its end by cancellation."""
        with pytest.raises(Exception, match="was cancelled"):
            self._beside.result()

    def _track(self) -> None:
        for _row in self._run.track(range(MANY), name=self._name, every=MANY):
            self.seen += 1

    def _by_hand(self) -> None:
        for _row in range(MANY):
            self._run.heed()
            self._run.progress(succeeded=1)
            self.seen += 1


@contextmanager
def working(client: Client, job: str, *names: str, by_hand: bool = False) -> Iterator[list[Rows]]:
    """Workers of the job, cancelled when the block ends."""
    with ExitStack() as stack:
        runs = [stack.enter_context(client.attach(job, worker=name)) for name in names]
        crew = [Rows(run, name, by_hand=by_hand) for run, name in zip(runs, names, strict=True)]
        yield crew
        client.cancel(job)
        for worker in crew:
            worker.ended()


def counted(client: Client, job: str, rows: int) -> int:
    return until(client, job, lambda state: state.progress.processed >= rows).progress.processed


@pytest.mark.parametrize("by_hand", [False, True], ids=["track", "by hand"])
@pytest.mark.alone
def test_a_limit_is_not_kept(client: Client, job: str, *, by_hand: bool) -> None:
    fast = f"{job}-fast"
    for name, limit in ((job, 100), (fast, 400)):
        client.create(name)
        client.throttle(name, limit)
    with working(client, job, "w", by_hand=by_hand), working(client, fast, "w", by_hand=by_hand):
        counted(client, job, 60)
        ratio = client.get(fast).progress.processed / client.get(job).progress.processed
    print(f"400 rows/s against 100: {ratio:.2f} times as many")
    assert 2.5 < ratio < 5.5


@pytest.mark.alone
def test_several_workers_share_a_limit_as_if_each_had_it_alone(client: Client, job: str) -> None:
    alone = f"{job}-alone"
    for name in (job, alone):
        client.create(name)
        client.throttle(name, 200)
    with working(client, job, "a", "b", "c", "d") as crew, working(client, alone, "w"):
        counted(client, alone, 100)
        ratio = client.get(job).progress.processed / client.get(alone).progress.processed
        shares = sorted(worker.seen for worker in crew)
    print(f"four workers against one under the same limit: {ratio:.2f} times as many, each {shares}")
    assert 0.5 < ratio < 2.0
    assert shares[-1] < 3 * max(1, shares[0])


def test_a_limit_reaches_nobody_who_is_at_work_or_is_never_lifted(client: Client, job: str) -> None:
    client.create(job)
    with working(client, job, "w"):
        counted(client, job, 1_000)
        client.throttle(job, 0.01, by="ops")
        until(client, job, lambda state: state.rate.throttles == 0 and state.throttle)
        slowed = settled(client, job)
        client.throttle(job, None)
        counted(client, job, slowed + 5_000)
    state = client.get(job)
    assert (state.status, state.throttle) == ("cancelled", None)
    assert state.rate.throttled_s > 0


def settled(client: Client, job: str) -> int:
    """Rows when the limit of next to nothing is in force: no further one comes between two looks."""
    rows = -1
    for _ in range(100):
        state = client.get(job)
        if state.progress.processed == rows:
            return rows
        rows = state.progress.processed
        client.wait(job, after=state.revision, timeout_s=0.5)
    raise AssertionError("the worker did not slow down")


@pytest.mark.parametrize("wish", ["pause", "cancel"])
def test_a_worker_that_waits_for_its_turn_hears_of_nothing(client: Client, job: str, wish: str) -> None:
    client.create(job)
    client.throttle(job, 0.01)
    with working(client, job, "w") as [worker]:
        counted(client, job, 0)
        until(client, job, lambda state: bool(state.tracks))
        if wish == "pause":
            client.pause(job)
            until(client, job, lambda state: state.status == "paused")
    assert client.get(job).status == "cancelled"
    assert worker.seen <= 2


@pytest.mark.slow
def test_a_limit_is_forgotten_in_a_restart(writers: Writers) -> None:
    writer = writers().start()
    with connect(writer.directory, settings=LIVELY) as client:
        client.create("job")
        client.throttle("job", 0.01)
        writer.restart()
        with working(client, "job", "w") as [worker]:
            writer.restart()
            until(client, "job", lambda state: bool(state.tracks))
            settled(client, "job")
        assert worker.seen <= 2


@pytest.mark.slow
def test_a_throttled_worker_counts_as_stalled(client: Client, job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actorstate.client.wishes.THROTTLE_SLICE_S", 0.1)
    client.create(job, stalled_after_s=1.0)
    client.throttle(job, 0.01)
    with working(client, job, "w"):
        state = until(client, job, lambda state: state.rate.throttled_s > 2.5 or state.health == "stalled")
        assert state.health == "healthy"
        assert state.progress.processed <= 1


def test_a_throttled_job_has_the_estimate_of_a_free_one(client: Client, job: str) -> None:
    client.create(job, total=MANY)
    client.throttle(job, 50)
    with working(client, job, "w"):
        state = until(client, job, lambda state: state.progress.processed >= 30 and state.rate.eta)
    assert state.rate.eta is not None
    left_s = (state.rate.eta - state.updated_at).total_seconds()
    assert left_s == pytest.approx((MANY - state.progress.processed) / 50, rel=0.01)


@pytest.mark.parametrize("limit", [0, -1, float("nan"), float("inf"), 1e10])
def test_a_limit_that_is_none_is_sent(client: Client, job: str, limit: float) -> None:
    client.create(job)
    with pytest.raises(BadRequest, match="rows_per_s"):
        client.throttle(job, limit)
    assert client.get(job).throttle is None


def test_a_finished_job_is_throttled(tmp_path) -> None:
    with WriterThread(tmp_path, WriterSettings()), connect(tmp_path) as client:
        client.create("job")
        client.complete("job")
        with pytest.raises(JobFinished):
            client.throttle("job", 5)
