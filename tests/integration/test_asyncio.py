"""The asyncio client against a real writer: many tasks on one socket, cancelled, and crossed by crashes."""

import asyncio
import contextlib
import gc
import os
import random
import threading
import time
import warnings
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

import actorstate
from actorstate.client import operations
from actorstate.client.aio import AsyncClient, connect_async
from actorstate.client.sync import Client
from actorstate.config import ClientSettings
from actorstate.core.messages.replies import Applied
from actorstate.core.messages.requests import Attach, Counts, Report
from actorstate.errors import BadJobId, Conflict, JobNotFound, OutcomeUnknown, WriterUnavailable
from tests.support.processes import HASTY, LIVELY, WITHIN_S, client, ends_within, forked, job, joined, served
from tests.support.writer import WriterProcess, Writers, writers

__all__ = ["client", "job", "served", "writers"]

WAITERS = 200


def run(main: Coroutine[Any, Any, None]) -> None:
    """One loop, in which nothing may be left unclosed, unawaited or unread."""
    complaints: list[dict[str, Any]] = []

    async def watched() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
        async with asyncio.timeout(WITHIN_S):
            await main

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asyncio.run(watched())
        gc.collect()
    assert not complaints
    assert not [warning for warning in caught if not issubclass(warning.category, DeprecationWarning)], caught


@pytest.fixture
def asking(served: WriterProcess) -> Callable[[], AsyncClient]:
    """Makes asyncio clients of the module's writer."""
    if not served.running:
        served.start()
    return lambda: connect_async(served.directory, settings=LIVELY)


def test_a_call_has_another_meaning_than_in_the_blocking_client(asking, client: Client, job: str) -> None:
    async def main() -> None:
        async with asking() as one:
            assert (await one.create(job, total=3, meta={"a": 1})).meta == {"a": 1}
            with pytest.raises(Conflict):
                await one.create(job, kind="other")
            with pytest.raises(JobNotFound):
                await one.get(f"{job}-missing")
            with pytest.raises(BadJobId):
                await one.get("no id")
            before = await one.get(job)
            assert await one.get_if_newer(job, before.revision) is None
            await one.pause(job, by="me")
            assert (await one.wait(job, after=before.revision)).status == client.get(job).status == "paused"
            await one.resume(job)
            await one.fail(job, "enough")
            assert [state.id async for state in one.jobs(status="failed") if state.id == job] == [job]
            await one.delete(job)
            assert (await one.ask()).pid > 0

    run(main())


def test_tasks_get_the_answers_to_each_others_questions(asking, client: Client, job: str) -> None:
    for place in range(50):
        client.create(f"{job}-{place}", meta={"of": place})

    async def ask(one: AsyncClient, place: int) -> None:
        for _ in range(20):
            assert (await one.get(f"{job}-{place}")).meta == {"of": place}

    async def main() -> None:
        async with asking() as one:
            await asyncio.gather(*(ask(one, place) for place in range(50)))
            assert len(one.transport._channels) == 1

    run(main())


def test_a_waiter_among_two_hundred_misses_the_news(asking, client: Client, job: str) -> None:
    before = client.create(job)

    async def main() -> None:
        async with asking() as one:
            waiting = [asyncio.create_task(one.wait(job, after=before.revision)) for _ in range(WAITERS)]
            for _ in range(20):
                await one.get(job)  # goes past those who wait
            await one.complete(job)
            assert {state.status for state in await asyncio.gather(*waiting)} == {"completed"}

    run(main())


def test_a_watch_that_is_left_keeps_something_open(asking, client: Client, job: str) -> None:
    client.create(job)

    async def main() -> None:
        async with asking() as one:
            async for state in one.watch(job):
                assert state.status == "pending"
                break
            async for state in one.watch(job):
                if not state.finished:
                    await one.complete(job)
            assert state.status == "completed"

    run(main())


@pytest.mark.parametrize("when", ["at once", "after a turn", "when sent"])
def test_a_cancelled_call_leaves_its_number_open(asking, job: str, when: str) -> None:
    async def main() -> None:
        async with asking() as one:
            await one.ask()
            numbers = one.transport.blocking.link().numbers
            creating = asyncio.create_task(one.create(job))
            turns = {"at once": 0, "after a turn": 1, "when sent": 2}[when]
            for _ in range(turns):
                await asyncio.sleep(0)
            creating.cancel()
            with pytest.raises(asyncio.CancelledError):
                await creating
            assert not numbers.open
            [channel] = one.transport._channels.values()
            assert not channel._waiting
            assert not channel._unsent
            if when == "at once":
                with pytest.raises(JobNotFound):
                    await one.get(job)

    run(main())


def test_a_call_that_was_cancelled_unsent_is_sent_when_the_writer_comes_back(writers: Writers) -> None:
    writer = writers().start()

    async def main() -> None:
        patient = ClientSettings(timeout_s=WITHIN_S, attempt_s=WITHIN_S)
        async with connect_async(writer.directory, settings=patient) as one:
            await one.create("first")
            await asyncio.to_thread(writer.kill)
            creating = [asyncio.create_task(one.create(f"given-up-{number}")) for number in range(5)]
            after = asyncio.create_task(one.create("after"))
            [channel] = one.transport._channels.values()
            for _ in range(3):
                await asyncio.sleep(0)
            assert channel._unsent
            for task in creating:
                task.cancel()
            await asyncio.gather(*creating, return_exceptions=True)
            await asyncio.to_thread(writer.start)
            assert (await after).id == "after"
            assert [state.id async for state in one.jobs()] == ["after", "first"]

    run(main())


async def attached(one: AsyncClient, job: str) -> int:
    answer = await one.transport.result_of(operations.changed(Attach(job, "worker", "host", os.getpid())))
    assert isinstance(answer, Applied)
    return answer.incarnation


def test_a_storm_of_cancellations_counts_a_row_twice_or_after_the_end(asking, client: Client, job: str) -> None:
    """1,000 tasks add a row each; about half are cancelled at any moment. Each row is counted once or never."""
    chance = random.Random(7)
    outcomes: dict[str, int] = {"said": 0, "cancelled": 0}

    async def main() -> None:
        async with asking() as one:
            await one.create(job)
            incarnation = await attached(one, job)
            before = await one.get(job)

            async def add() -> None:
                body = Report(job, "worker", incarnation, counts=Counts(succeeded=1))
                try:
                    await one.transport.result_of(operations.changed(body))
                    outcomes["said"] += 1
                except asyncio.CancelledError:
                    outcomes["cancelled"] += 1
                    raise

            tasks = [asyncio.create_task(add()) for _ in range(1_000)]
            while pending := [task for task in tasks if not task.done()]:
                if outcomes["cancelled"] < 500:
                    for task in chance.sample(pending, min(len(pending), 25)):
                        task.cancel()
                await asyncio.sleep(0)
            await asyncio.gather(*tasks, return_exceptions=True)
            # Behind all that was sent and then given up: reads go past changes that wait for the disk.
            await one.transport.result_of(operations.changed(Report(job, "worker", incarnation, phase="over")))
            after = await one.get(job)
            rows = after.progress.processed
            assert outcomes["said"] <= rows <= outcomes["said"] + outcomes["cancelled"]
            assert rows == after.revision - before.revision - 1, "a change was counted twice"
            assert not one.transport.blocking.link().numbers.open
            later = await one.wait(job, after=after.revision, timeout_s=0.5)
            assert later.progress.processed == rows, "a number that was given up was applied later"

    run(main())
    print(outcomes, "rows", client.get(job).progress.processed)
    assert outcomes["said"]
    assert outcomes["cancelled"]


def test_tasks_lose_changes_with_the_writer(writers: Writers) -> None:
    writer = writers().start()

    async def main() -> None:
        patient = ClientSettings(timeout_s=WITHIN_S)
        async with connect_async(writer.directory, settings=patient) as one:
            creating = [asyncio.create_task(one.create(f"job-{number}")) for number in range(300)]
            await asyncio.wait(creating, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.to_thread(writer.restart)
            states = await asyncio.gather(*creating)
            assert {state.revision for state in states} == {1}
            assert len([state async for state in one.jobs()]) == len(creating)

    run(main())


@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
def test_a_wait_hears_of_news_long_after_the_writer_died(writers: Writers, kind: str) -> None:
    """Against the time that the new writer took to start, measured in the same run."""
    writer = writers().start()
    with actorstate.connect(writer.directory) as blocking:
        before = blocking.create("job")
        heard: list[float] = []

        def wait() -> None:
            if kind == "blocking":
                assert blocking.wait("job", after=before.revision).finished
            else:
                asyncio.run(wait_once())
            heard.append(time.monotonic())

        async def wait_once() -> None:
            async with connect_async(writer.directory) as one:
                assert (await one.wait("job", after=before.revision)).finished

        reads = blocking.ask().reads
        waiting = threading.Thread(target=wait)
        waiting.start()
        assert any(blocking.ask().reads > reads + asks for asks in range(1, 10_000)), "the wait never came"
        begun = time.monotonic()
        writer.restart()
        with actorstate.connect(writer.directory) as other:
            other.complete("job")
        finished = time.monotonic()
        waiting.join(WITHIN_S)
    late_s, outage_s = heard[0] - finished, finished - begun
    print(f"{kind}: heard {late_s:.3f} s after the end was committed; outage {outage_s:.3f} s")
    assert late_s < max(LIVELY.heartbeat_s, ClientSettings().heartbeat_s) + outage_s


def test_a_call_without_a_writer_ends_late(writers: Writers) -> None:
    writer = writers().start()

    async def main() -> None:
        async with connect_async(writer.directory, settings=HASTY) as one:
            await one.create("job")
            await asyncio.to_thread(writer.kill)
            with ends_within(2 * HASTY.timeout_s), pytest.raises(WriterUnavailable) as refused:
                await asyncio.gather(*(one.get("job") for _ in range(20)))
            assert str(writer.directory) in refused.value.hint

    run(main())


def test_a_frozen_writer_leaves_a_change_known(writers: Writers) -> None:
    writer = writers().start()

    async def main() -> None:
        async with connect_async(writer.directory, settings=HASTY) as one:
            await one.create("job")
            writer.stop()
            with pytest.raises(OutcomeUnknown):
                await one.complete("job")
            with pytest.raises(WriterUnavailable):
                await one.get("job")
            writer.go_on()
            assert not (await one.get("job")).finished

    run(main())


def test_loops_in_threads_share_a_socket(asking, client: Client, job: str) -> None:
    for place in range(4):
        client.create(f"{job}-{place}")
    one = asking()
    barrier = threading.Barrier(4)

    async def main(place: int) -> None:
        for _ in range(50):
            assert (await one.get(f"{job}-{place}")).id == f"{job}-{place}"
        await asyncio.to_thread(barrier.wait)
        assert len(one.transport._channels) == 4
        await asyncio.to_thread(barrier.wait)

    errors: list[BaseException] = []

    def work(place: int) -> None:
        try:
            asyncio.run(main(place))
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WITHIN_S)
    assert not errors
    run(closed_again(one, f"{job}-0"))


async def closed_again(one: AsyncClient, job: str) -> None:
    """The loops before are closed: their sockets go when the next one comes, or with the client."""
    assert (await one.get(job)).id == job
    assert len(one.transport._channels) == 1
    await one.close()
    assert (await one.get(job)).id == job
    await one.close()
    await one.close()


def test_closing_leaves_a_waiting_task_for_ever(asking, client: Client, job: str) -> None:
    before = client.create(job)

    async def main() -> None:
        one = connect_async(asking().transport.blocking.location.directory, settings=HASTY)
        waiting = asyncio.create_task(one.wait(job, after=before.revision, timeout_s=1.0))
        await one.get(job)
        await one.close()
        with contextlib.suppress(WriterUnavailable):
            await waiting
        await one.close()

    run(main())


def test_a_forked_child_uses_its_parents_socket(asking, client: Client, job: str) -> None:
    client.create(job)
    one = asking()

    async def read() -> None:
        assert (await one.get(job)).id == job

    async def and_close() -> None:
        await read()
        await one.close()

    asyncio.run(read())
    assert joined(forked(lambda: asyncio.run(and_close()))) == 0
    asyncio.run(and_close())
