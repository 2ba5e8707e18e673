"""A worker's block in asyncio: the same counts and ends as in the blocking one, cancelled at any moment."""

import asyncio
import random
import signal
from collections.abc import AsyncIterator

import pytest

from actorstate.client.aio import AsyncClient, connect_async
from actorstate.client.aio.run import AsyncRun
from actorstate.client.sync import Client, connect
from actorstate.errors import AlreadyAttached, JobFinished
from tests.support.processes import LIVELY, Child, client, job, served, tell, until, wait_told
from tests.support.writer import WriterProcess, Writers, writers

__all__ = ["client", "job", "served", "writers"]


@pytest.fixture
def connected(served: WriterProcess, client: Client):
    """Makes asyncio clients of the module's writer."""
    return lambda: connect_async(served.directory, settings=LIVELY)


async def numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        await asyncio.sleep(0)
        yield number


@pytest.mark.parametrize("rows", [range(20), numbers], ids=["iterable", "async iterable"])
def test_a_track_counts_other_rows_than_it_yields(connected, client: Client, job: str, rows) -> None:
    saved: list[int] = []
    seen: list[int] = []

    async def save() -> None:
        await asyncio.sleep(0)
        saved.append(len(seen))

    async def main() -> None:
        async with connected() as one, one.run(job, total=20) as run:
            async for row in run.track(rows if rows is not numbers else numbers(20), every=8, before_save=save):
                seen.append(row)
                if row == 3:
                    run.failed(row, "no good", category="bad")
                if row == 4:
                    await asyncio.create_task(leave_out(run))
            await run.checkpoint({"after": row})
            assert run.resume_from == {"after": 19}

    asyncio.run(main())
    state = client.get(job)
    assert seen == list(range(20))
    assert saved == [8, 16, 20]
    assert (state.status, state.progress.succeeded, state.progress.failed, state.progress.skipped) == (
        "completed", 18, 1, 1,
    )  # fmt: skip


async def leave_out(run: AsyncRun) -> None:
    """Speaks for the row of the task that started it."""
    run.skipped()


def test_tasks_speak_for_each_others_rows(connected, client: Client, job: str) -> None:
    async def main() -> None:
        async with connected() as one:
            await one.create(job)
            async with one.attach(job) as run:

                async def work(name: str) -> None:
                    async for row in run.track(range(50), name=name):
                        await asyncio.sleep(0)
                        if name == "b":
                            run.failed(row, "no good", category=name)

                await asyncio.gather(work("a"), work("b"))

    asyncio.run(main())
    progress = client.get(job).progress
    assert (progress.succeeded, progress.failed, progress.by_category) == (50, 50, {"b": 50})


def test_what_a_task_says_after_its_rows_turn_is_lost(connected, client: Client, job: str) -> None:
    async def late(run: AsyncRun, over: asyncio.Event) -> None:
        await over.wait()
        run.failed(0, "said late")

    async def main() -> None:
        async with connected() as one, one.run(job) as run:
            over, tasks = asyncio.Event(), list[asyncio.Task[None]]()
            async for _ in run.track(range(3)):
                tasks.append(asyncio.create_task(late(run, over)))
            over.set()
            await asyncio.gather(*tasks)

    asyncio.run(main())
    progress = client.get(job).progress
    assert (progress.succeeded, progress.failed) == (3, 3)


def test_a_loop_that_was_left_keeps_its_name(connected, client: Client, job: str) -> None:
    seen: list[int] = []

    async def main() -> None:
        async with connected() as one:
            await one.create(job)
            async with one.attach(job) as run:
                async for row in run.track(range(10)):
                    if row == 4:
                        break
                run.failed(99, "said after the loop")
                seen.extend([row async for row in run.track(range(10))])

    asyncio.run(main())
    progress = client.get(job).progress
    assert seen == list(range(4, 10))
    assert (progress.succeeded, progress.failed) == (10, 1)


def test_a_cancelled_task_ends_its_job_or_loses_rows(connected, client: Client, job: str) -> None:
    """Cancelled at random again and again: in the end each row was counted once."""
    chance, rows = random.Random(3), range(200)
    seen: set[int] = set()
    lives = 0

    async def work(one: AsyncClient, turns: int) -> None:
        left = turns
        async with one.run(job, total=len(rows)) as run:
            async for row in run.track(rows, every=25):
                left -= 1
                if not left:
                    asyncio.current_task().cancel()
                await asyncio.sleep(0)
                seen.add(row)

    async def main() -> None:
        nonlocal lives
        async with connected() as one:
            while client.get(job).status != "completed" if lives else True:
                lives += 1
                assert lives < 100
                await asyncio.gather(work(one, chance.randrange(1, 60)), return_exceptions=True)
                assert client.get(job).status in {"running", "completed"}
                assert not client.get(job).workers

    asyncio.run(main())
    progress = client.get(job).progress
    print(f"{lives} lives")
    assert lives > 1
    assert seen == set(rows)
    assert progress.succeeded == progress.processed == len(rows)


def test_a_cancellation_while_attaching_leaves_a_worker_behind(connected, client: Client, job: str) -> None:
    client.create(job)

    async def main() -> None:
        async with connected() as one:

            async def work() -> None:
                async with one.attach(job):
                    await asyncio.Event().wait()

            for turns in range(12):
                task = asyncio.create_task(work())
                for _ in range(turns):
                    await asyncio.sleep(0)
                if turns > 8:
                    await one.ask()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert not (await one.get(job)).workers

    asyncio.run(main())


def test_many_paused_jobs_stop_the_loop(connected, client: Client, job: str) -> None:
    """More of them than asyncio's own threads: another job still saves and ends."""
    jobs = [f"{job}-{number}" for number in range(40)]

    async def main() -> None:
        async with connected() as one:

            async def work(name: str) -> int:
                count = 0
                async with one.run(name) as run:
                    async for _ in run.track(range(3), every=1):
                        count += 1
                        if count == 1:
                            await one.pause(name)
                            await asyncio.to_thread(wait_told, run.blocking, "pause")
                return count

            for name in jobs:
                await one.create(name)
            working = [asyncio.create_task(work(name)) for name in jobs]
            for name in jobs:
                await asyncio.to_thread(until, client, name, lambda state: state.status == "paused")
            async with one.run(f"{job}-other") as run:
                await run.checkpoint(1)
            assert (await one.get(f"{job}-other")).status == "completed"
            for name in jobs:
                await one.resume(name)
            assert set(await asyncio.gather(*working)) == {3}

    asyncio.run(main())


def test_a_cancelled_job_raises_past_its_block(connected, client: Client, job: str) -> None:
    async def main() -> None:
        async with connected() as one:
            async with one.run(job) as run:
                async for _ in run.track(numbers(1_000_000)):
                    if client.get(job).control is None:
                        client.cancel(job)
            assert (await one.get(job)).status == "cancelled"
            with pytest.raises(JobFinished):
                async with one.attach(job):
                    pass

    asyncio.run(main())


def test_an_exception_completes_the_job(connected, client: Client, job: str) -> None:
    async def main() -> None:
        async with connected() as one:
            with pytest.raises(ZeroDivisionError):
                await fails(one, job)
            state = await one.get(job)
            assert (state.status, state.progress.succeeded) == ("failed", 3)

    asyncio.run(main())


async def fails(one: AsyncClient, job: str) -> None:
    async with one.run(job) as run:
        run.progress(succeeded=3)
        with pytest.raises(AlreadyAttached):
            async with one.run(job):
                pass
        raise ZeroDivisionError


def works_until_killed(directory: str) -> None:
    async def main() -> None:
        async with connect_async(directory) as one, one.run("job") as run:
            run.progress(succeeded=7)
            tell("working")
            await asyncio.Event().wait()

    asyncio.run(main())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, None)])
def test_a_signal_loses_what_was_said(writers: Writers, number: signal.Signals, code: int | None) -> None:
    writer = writers().start()
    with Child(works_until_killed, writer.directory) as child, connect(writer.directory) as client:
        child.expect("working")
        child.send(number)
        ended = child.wait()
        assert ended == code or code is None, child.errors()
        state = client.get("job")
        assert (state.status, state.progress.succeeded, state.workers) == ("running", 7, {})


@pytest.mark.parametrize("every", [2, 100])
def test_an_item_done_once_more_by_a_task_is_lost_or_counted_twice(
    connected, client: Client, job: str, every: int
) -> None:
    client.create(job, total=9)
    with client.attach(job) as run:
        run.items("failed", {f"k-{n}": "timeout" for n in range(9)}, category="network")
    saved: list[int] = []
    handed: list[str] = []

    async def main() -> None:
        async with connected() as one, one.attach(job) as run:
            await one.retry(job, where="network")
            async for item in run.retries(every=every, before_save=lambda: saved.append(len(handed))):
                handed.append(item.key)
                if len(handed) == 5:
                    break
            async for item in run.retries(every=every):
                handed.append(item.key)
                if item.key == "k-8":
                    run.failed(item.key, "again", category="network")

    asyncio.run(main())
    state = client.get(job)
    left = 5 if every > 5 else 1  # forgotten with the loop: their outcomes waited for the save
    assert len(handed) == 9 + left
    assert set(handed) == {f"k-{n}" for n in range(9)}
    assert (state.progress.succeeded, state.progress.failed, state.progress.retrying) == (8, 1, 0)
    assert {item.key for item in client.items(job, outcome="failed")} == {"k-8"}
    assert saved == ([] if every > 5 else [2, 4])
