"""Great numbers: 16,690 failed items beside a job, 100,000 stored jobs. Ratios, measured side by side in one run."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from actorstate.client.run import Run
from actorstate.client.sync import Client, connect
from actorstate.store.contract import JobQuery
from actorstate.store.sqlite import SqliteStore
from tests.support.inprocess import WriterThread
from tests.support.many import job_name, store_jobs
from tests.support.writer import ROOT, WriterProcess, Writers, writers

__all__ = ["writers"]

ITEMS = 16_690
"""The failed items of one migration of the older tool, which then took 179 ms for each progress update."""
MAX_ITEMS_RATIO = 1.2
MAX_START_RATIO = 1.5
MAX_PAGE_RATIO = 1.5
MAX_MEMORY_RATIO = 1.2


def took_s(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def side_by_side(one: Callable[[], object], other: Callable[[], object], rounds: int) -> tuple[float, float]:
    """The median times of both, taken in turn, so that whatever else the machine does befalls both."""
    pairs = [(took_s(one), took_s(other)) for _ in range(rounds)]
    return statistics.median(first for first, _ in pairs), statistics.median(second for _, second in pairs)


def update(run: Run) -> None:
    run.progress(succeeded=1)
    run.flush()


@pytest.mark.slow
@pytest.mark.parametrize("length", [40, 50_000])
@pytest.mark.alone
def test_many_failed_items_slow_a_progress_update(writers: Writers, length: int) -> None:
    writer = writers().start()
    with connect(writer.directory) as client:
        for job in ("empty", "full"):
            client.create(job, total=100_000)
        with client.attach("full") as full, client.attach("empty") as empty:
            full.items("failed", {f"item-{n:05}": "x" * length for n in range(ITEMS)}, category="network")
            empty.progress(failed=ITEMS)
            for run in (full, empty):
                run.flush()
                for _ in range(60):  # errors leave the journal with the next keyframe
                    update(run)
            plain_s, beside_s = side_by_side(lambda: update(empty), lambda: update(full), 400)
            failing_s, into_s = side_by_side(lambda: fail(empty), lambda: fail(full), 200)
        assert sum(1 for _ in client.items("full", outcome="failed")) == ITEMS + 1
    print(
        f"errors of {length} characters: an update beside {ITEMS:,} failed items takes {beside_s / plain_s:.2f} times"
    )
    print(f"a failed item into {ITEMS:,} others takes {into_s / failing_s:.2f} times")
    assert beside_s < MAX_ITEMS_RATIO * plain_s


def fail(run: Run) -> None:
    run.failed("the same one", "x")
    run.flush()


# --- 100,000 jobs ----------------------------------------------------------------------------------------------

FEW, MANY = 1_000, 100_000


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Path]]:
    """Directories with so many stored jobs."""
    folders = {count: tmp_path_factory.mktemp("many") / str(count) for count in (FEW, MANY)}
    for count, folder in folders.items():
        folder.mkdir()
        store = SqliteStore(folder / "jobs.sqlite")
        store.open()
        store_jobs(store, count)
        store.close()
    return folders  # type: ignore[return-value]  # nothing to end


def start_s(folder: Path) -> float:
    """From `serve` to its readiness."""
    writer = WriterProcess(folder)
    try:
        return took_s(writer.start)
    finally:
        writer.kill()


@pytest.mark.slow
@pytest.mark.alone
def test_a_start_takes_longer_with_many_jobs(stored: dict[int, Path]) -> None:
    few_s, many_s = side_by_side(lambda: start_s(stored[FEW]), lambda: start_s(stored[MANY]), 7)
    print(f"start-up with {MANY:,} stored jobs takes {many_s / few_s:.2f} times that with {FEW:,}")
    assert many_s < MAX_START_RATIO * few_s


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def memory_after(folder: Path, use: Callable[[Client], object]) -> int:
    writer = WriterProcess(folder).start()
    try:
        with connect(folder) as client:
            use(client)
            return resident_bytes(writer.pid)
    finally:
        writer.kill()


def look_around(client: Client) -> None:
    """What a status page asks for, and a few hundred jobs by name."""
    for newest in (False, True):
        for status in (None, "running", "failed"):
            states = client.jobs(status=status, newest=newest)
            for _ in zip(range(100), states, strict=False):
                pass
    for number in range(0, FEW, 3):
        client.get(job_name(number))


@pytest.mark.slow
def test_stored_jobs_take_memory(stored: dict[int, Path]) -> None:
    few, many = (memory_after(stored[count], look_around) for count in (FEW, MANY))
    print(f"memory with {MANY:,} stored jobs is {many / few:.2f} times that with {FEW:,} ({many / 2**20:.0f} MiB)")
    assert many < MAX_MEMORY_RATIO * few


@pytest.mark.slow
def test_jobs_stay_in_memory_once_they_were_listed(stored: dict[int, Path]) -> None:
    """All 100,000 in one list: their actors come and go."""

    def list_all(client: Client) -> None:
        assert sum(1 for _ in client.jobs()) == MANY
        assert client.ask().resident <= 4_000

    few, many = memory_after(stored[FEW], look_around), memory_after(stored[MANY], list_all)
    print(f"after a list of all of them it is {many / few:.2f} times ({many / 2**20:.0f} MiB)")
    assert many < 3 * few


QUERIES = {
    "all": JobQuery(),
    "status": JobQuery(status="failed"),
    "kind": JobQuery(kind="files"),
    "kind and status": JobQuery(kind="files", status="failed"),
    "health": JobQuery(health="dead"),
    "newest": JobQuery(newest=True),
    "newest by status": JobQuery(status="failed", newest=True),
    "newest by kind and status": JobQuery(kind="files", status="failed", newest=True),
    "no such kind": JobQuery(kind="none-such"),
    "behind a job": JobQuery(status="failed", after=job_name(900)),
    "expired": JobQuery(expired_at=1e12),
    "unique key": JobQuery(unique_key="none-such"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", QUERIES)
@pytest.mark.alone
def test_a_page_of_jobs_costs_more_among_many(stored: dict[int, Path], name: str) -> None:
    stores = [SqliteStore(stored[count] / "jobs.sqlite") for count in (FEW, MANY)]
    for store in stores:
        store.open()
    few, many = stores
    few_s, many_s = side_by_side(lambda: few.list_jobs(QUERIES[name]), lambda: many.list_jobs(QUERIES[name]), 300)
    length = max(1, len(many.list_jobs(QUERIES[name]))) / max(1, len(few.list_jobs(QUERIES[name])))
    for store in stores:
        store.close()
    ratio = many_s / few_s
    print(f"a page of {name} among {MANY:,} jobs takes {ratio:.2f} times that among {FEW:,} ({length:.1f} as long)")
    assert many_s < MAX_PAGE_RATIO * length * few_s + 50e-6


@pytest.mark.slow
@pytest.mark.alone
def test_a_page_through_the_writer_costs_more_among_many(stored: dict[int, Path]) -> None:
    def page(client: Client) -> None:
        assert len(list(zip(range(100), client.jobs(status="failed", newest=True), strict=False))) == 100

    writers = WriterThread(stored[FEW]), WriterThread(stored[MANY])
    with writers[0], writers[1], connect(stored[FEW]) as few, connect(stored[MANY]) as many:
        few_s, many_s = side_by_side(lambda: page(few), lambda: page(many), 50)
    print(f"a page of 100 jobs over the socket among {MANY:,} takes {many_s / few_s:.2f} times that among {FEW:,}")
    assert many_s < MAX_PAGE_RATIO * few_s


@pytest.mark.slow
def test_a_list_on_the_command_line_reads_all_jobs(stored: dict[int, Path]) -> None:
    writer = WriterProcess(stored[MANY]).start()
    try:
        command = [sys.executable, "-m", "actorstate", "jobs", str(stored[MANY]), "--newest", "--limit", "3"]
        told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert [row.split()[0] for row in told.splitlines()[1:]] == [job_name(MANY - n) for n in (1, 2, 3)]
        with connect(stored[MANY]) as client:
            assert client.ask().resident <= 100
    finally:
        writer.kill()
