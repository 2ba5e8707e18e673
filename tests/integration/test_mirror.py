"""Mirrors under crashes, losses and forks: none goes backwards, all come to what the writer has."""

import asyncio
import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from actorstate.client.aio import connect_async
from actorstate.client.mirror import Mirror
from actorstate.client.mirror import feed as feeding
from actorstate.client.mirror import follow as following
from actorstate.client.sync import Client, connect
from actorstate.config import ClientSettings
from actorstate.core.messages.document import JobState
from actorstate.errors import JobNotFound, StaleMirror, WriterUnavailable
from tests.support.processes import (
    LIVELY,
    SLOW,
    WITHIN_S,
    Child,
    client,
    forked,
    frozen,
    hear,
    job,
    joined,
    served,
    tell,
)
from tests.support.writer import WriterProcess, Writers, writers

__all__ = ["client", "job", "served", "writers"]

MIRRORS = 8


def place(state: JobState) -> tuple[int, int]:
    return state.epoch, state.revision


def matches(mirror: Mirror, wanted: JobState) -> JobState:
    """The mirrored state once it is this one; waits for facts, not for time."""
    state = mirror.get(wanted.id, at_least=place(wanted), timeout_s=WITHIN_S)
    assert place(state) == place(wanted)
    return state


def converged(mirror: Mirror, client: Client, ids: list[str]) -> None:
    """The copy itself, not what is asked past it, comes to the writer's states; fails after WITHIN_S."""
    until = time.monotonic() + WITHIN_S
    truth = {one: place(client.get(one)) for one in ids}
    while {one: place(state) for one, state in held(mirror).items() if one in truth} != truth:
        assert time.monotonic() < until, f"{held(mirror).keys()} {truth}"
        beside = threading.Event()
        beside.wait(0.02)


def held(mirror: Mirror) -> dict[str, JobState]:
    copying = mirror._copying
    return {} if copying is None else dict(copying.copy.held)


def test_a_mirror_shows_something_else_than_the_writer(client: Client, job: str) -> None:
    client.create(job, kind="orders", total=3)
    with client.mirror() as mirror:
        assert mirror.get(job) == client.get(job)
        with client.attach(job) as run:
            run.progress(succeeded=2)
            run.flush()
            state = matches(mirror, client.get(job))
            assert state.progress.succeeded == 2
        assert [state.id for state in mirror.jobs(kind="orders", status="running")] == [job]
        assert mirror.age_s < 5.0
        client.complete(job)
        ended = matches(mirror, client.get(job))
        assert ended.status == "completed"
        client.delete(job)
        with pytest.raises(JobNotFound):
            mirror.get(job, at_least=ended.revision + 1)
        with pytest.raises(JobNotFound):
            mirror.get(f"{job}-missing")


def test_a_job_that_is_not_mirrored_is_said_not_to_be_there(client: Client, job: str) -> None:
    for number in range(5):
        client.create(f"{job}-{number}")
    client.complete(f"{job}-4")
    with client.mirror(jobs=[f"{job}-0"]) as named, client.mirror(max_jobs=2) as small, client.mirror() as whole:
        for mirror in (named, small, whole):
            for number in range(5):
                assert mirror.get(f"{job}-{number}").id == f"{job}-{number}"
            assert mirror.get(f"{job}-4").finished
        assert set(held(named)) == {f"{job}-0"}
        assert len(held(small)) == 2
        assert {f"{job}-{number}" for number in range(5)} <= set(held(whole))


def test_a_reader_of_its_own_write_sees_the_state_before(client: Client, job: str) -> None:
    client.create(job)
    with client.mirror(every_s=0.05) as mirror, client.attach(job) as run:
        mirror.get(job)
        for number in range(1, 101):
            run.progress(succeeded=1)
            run.flush()
            revision = client.get(job).revision
            assert mirror.get(job, at_least=revision).progress.succeeded >= number
    with client.mirror() as mirror, pytest.raises(StaleMirror, match="not yet at"):
        mirror.get(job, at_least=10_000, timeout_s=0.05)


def test_a_mirror_that_hears_nothing_is_believed(writers: Writers) -> None:
    writer = writers().start()
    settings = ClientSettings(timeout_s=0.3, attempt_s=0.1)
    with connect(writer.directory, settings=settings) as client:
        before = client.create("job")
        with client.mirror(stale_after_s=1.5) as mirror:
            assert mirror.get("job") == before
            with frozen(writer):
                until = time.monotonic() + WITHIN_S
                while mirror.age_s <= 1.5:
                    assert time.monotonic() < until
                begun = time.monotonic()
                with pytest.raises(StaleMirror) as refused:
                    mirror.get("job")
                with pytest.raises(StaleMirror):
                    mirror.jobs()
                assert time.monotonic() - begun < settings.timeout_s, "a stale mirror makes its readers wait"
                assert refused.value.age_s > 1.5
                assert mirror.get("job", max_age_s=math.inf) == before
            client.complete("job")
            until = time.monotonic() + WITHIN_S
            while mirror.age_s > 1.5:
                assert time.monotonic() < until
            assert matches(mirror, client.get("job")).finished


def test_a_mirror_without_a_writer_makes_its_readers_wait_for_ever(tmp_path: Path) -> None:
    with connect(tmp_path, autostart=False) as client, client.mirror() as mirror:
        assert mirror.age_s == math.inf
        with pytest.raises(StaleMirror, match="not filled"):
            mirror.get("job", timeout_s=0.1)


class Watcher:
    """Reads mirrors as fast as it can, and keeps what went backwards."""

    def __init__(self, mirrors: list[Mirror], ids: list[str]) -> None:
        self.backwards: list[str] = []
        self.reads = 0
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._read, args=(mirror, ids)) for mirror in mirrors]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(WITHIN_S)

    def _read(self, mirror: Mirror, ids: list[str]) -> None:
        seen: dict[str, tuple[int, int]] = {}
        while not self._over.wait(0.001):
            for one in ids:
                try:
                    now = place(mirror.get(one, max_age_s=math.inf, timeout_s=0.5))
                except (StaleMirror, WriterUnavailable):
                    continue
                self.reads += 1
                if now < seen.get(one, (0, 0)):
                    self.backwards.append(f"{one}: {seen[one]} and then {now}")
                seen[one] = now


@pytest.mark.parametrize(("kind", "crashes"), [("named", 1), pytest.param("all", 5, marks=SLOW)])
def test_a_mirror_goes_backwards_or_astray_when_the_writer_is_killed(writers: Writers, kind: str, crashes: int) -> None:
    writer = writers().start()
    ids = [f"job-{number}" for number in range(4)]
    with connect(writer.directory, settings=LIVELY) as client:
        for one in ids:
            client.create(one)
        mirrors = [client.mirror(None if kind == "all" else ids, every_s=0.02) for _ in range(MIRRORS)]
        for mirror in mirrors:
            mirror.get(ids[0])
        watcher = Watcher(mirrors, ids)
        for _ in range(crashes):
            with client.attach(ids[0]) as first, client.attach(ids[1]) as second:
                for _ in range(50):
                    first.progress(succeeded=1)
                    second.progress(succeeded=1)
                first.flush()
                writer.restart()
                second.progress(succeeded=1)
        watcher.end()
        for mirror in mirrors:
            converged(mirror, client, ids)
        print(f"{watcher.reads} reads beside {crashes} crashes; backwards: {watcher.backwards}")
        assert not watcher.backwards
        for mirror in mirrors:
            mirror.close()


def mirrors_until_told(directory: str) -> None:
    """A process with a mirror, whose socket holds few facts: says what it holds when it is asked."""
    feeding.HWM, looks, look = 10, [], following.Follower._look

    async def counted(follower: following.Follower) -> None:
        looks.append(1)
        await look(follower)

    following.Follower._look = counted
    with connect(directory) as client, client.mirror(every_s=0.01) as mirror:
        mirror.get("job-0")
        tell("ready")
        while line := hear():
            until = time.monotonic() + WITHIN_S
            while held(mirror)["job-0"].revision < int(line):
                assert time.monotonic() < until, mirror.age_s
            tell(len(looks))


@SLOW
def test_a_mirror_that_lost_facts_never_notices(writers: Writers) -> None:
    """Its process is stopped while more commits go by than the sockets between hold; the loss is in the sequence."""
    writer = writers().start()
    with connect(writer.directory) as client:
        client.create("job-0")
        client.create("other")
        with Child(mirrors_until_told, writer.directory) as child, client.attach("other") as run:
            child.expect("ready")
            child.send(signal.SIGSTOP)
            for _ in range(2_500):
                run.progress(succeeded=1)
                run.flush()
            client.complete("job-0")
            child.send(signal.SIGCONT)
            child.say(str(client.get("job-0").revision))
            assert child.read() > 1, "nothing was lost: the test must let more commits go by"


def test_a_loss_within_the_feed_is_not_repaired(client: Client, job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every third message is dropped on its way to the mirror: it still comes to each state, by looking anew."""
    client.create(job)
    looks, dropped, heard = [], [], []
    real_receive, real_look = following.Feed._receive, following.Follower._look

    def lossy(feed: following.Feed):
        facts = real_receive(feed)
        heard.extend(facts)
        lost = facts if len(heard) % 3 == 0 else []
        dropped.extend(lost)
        return [] if lost else facts

    async def counted(follower: following.Follower) -> None:
        looks.append(1)
        await real_look(follower)

    monkeypatch.setattr(following.Feed, "_receive", lossy)
    monkeypatch.setattr(following.Follower, "_look", counted)
    with client.mirror(every_s=0.01) as mirror, client.attach(job) as run:
        mirror.get(job)
        for _ in range(100):
            run.progress(succeeded=1)
            run.flush()
        converged(mirror, client, [job])
    assert dropped
    assert len(looks) > 1


def test_a_forked_child_reads_its_parents_dead_mirror(client: Client, job: str) -> None:
    client.create(job)
    with client.mirror() as mirror:
        mirror.get(job)

        def child() -> None:
            assert mirror.get(job).status == "pending"
            assert mirror._copying.pid == os.getpid()
            client.complete(job)
            converged(mirror, client, [job])
            mirror.close()

        assert joined(forked(child)) == 0
        assert matches(mirror, client.get(job)).finished


def test_closing_leaves_a_thread_behind(served: WriterProcess, client: Client, job: str) -> None:
    client.create(job)
    before = threading.active_count()
    with connect(served.directory) as other:
        with other.mirror() as mirror:
            mirror.get(job)
            mirror.close()
            assert mirror.get(job).id == job
        left_open = other.mirror()
        left_open.get(job)
        thread = left_open._copying.thread
    thread.join(WITHIN_S)
    assert not thread.is_alive(), "a mirror outlives its client"
    assert threading.active_count() == before


def test_an_asyncio_mirror_differs_from_the_blocking_one(client: Client, job: str, served: WriterProcess) -> None:
    client.create(job)

    async def main() -> None:
        async with connect_async(served.directory) as one, one.mirror(every_s=0.01) as mirror:
            assert (await mirror.get(job)) == client.get(job)
            await one.pause(job)
            paused = await mirror.get(job, at_least=client.get(job).revision)
            assert paused.status == "paused"
            assert job in [state.id for state in await mirror.jobs(status="paused")]
            with pytest.raises(JobNotFound):
                await mirror.get(f"{job}-missing")
            with pytest.raises(StaleMirror):
                await mirror.get(job, max_age_s=-1.0)
            readers = [asyncio.create_task(mirror.get(job, at_least=paused.revision + 1)) for _ in range(20)]
            await one.resume(job)
            assert {state.status for state in await asyncio.gather(*readers)} == {"pending"}

    asyncio.run(main())


def test_a_mirror_that_is_closed_while_news_come_never_ends(client: Client, job: str, served: WriterProcess) -> None:
    async def main() -> None:
        async with connect_async(served.directory) as one:
            feed = feeding.Feed(one.transport.blocking)
            await feed.facts(WITHIN_S)
            listening = asyncio.create_task(feed.facts(WITHIN_S))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            feed._news.set()
            await asyncio.sleep(0)
            listening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await listening
            feed.close()

    client.create(job)
    asyncio.run(main())


@pytest.mark.alone
def test_a_read_of_the_mirror_costs_as_much_as_one_of_the_writer(client: Client, job: str) -> None:
    client.create(job)
    with client.mirror() as mirror:
        mirror.get(job)
        rates = {}
        for name, read in (("mirror.get", mirror.get), ("client.get", client.get)):
            count, until = 0, time.monotonic() + 0.5
            while time.monotonic() < until:
                read(job)
                count += 1
            rates[name] = count / 0.5
    print({name: f"{rate:,.0f}/s" for name, rate in rates.items()})
    assert rates["mirror.get"] > 20 * rates["client.get"]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    for thread in threading.enumerate():
        if thread.name == "actorstate-mirror":
            thread.join(WITHIN_S)
            assert not thread.is_alive()
