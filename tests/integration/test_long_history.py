"""A long history slows nothing down: one job with very many changes beside one with few, in one run."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import pytest

from actorstate.config import WriterSettings
from actorstate.core.actor import Actor
from actorstate.core.messages.requests import Attach, Counts, CreateJob, GetAt, Report, Request
from actorstate.core.rate import Now
from actorstate.store.contract import JobCommit, Store, StoredChange
from actorstate.store.sqlite import SqliteStore
from actorstate.writer.commit import Committer
from actorstate.writer.meter import Meter
from actorstate.writer.past import Past
from actorstate.writer.residents import Residents
from tests.support.stores import opened

FEW = 1_000
BATCH = 250
PRODUCER = b"p" * 16
UNBOUND = WriterSettings(history_changes=10**9)


class Life:
    """One job in a real store, written as the writer does."""

    def __init__(self, store: Store, job: str, changes: int) -> None:
        self.store, self.actor, self.number = store, Actor(job), 0
        self.say(CreateJob(job, total=10**9))
        self.say(Attach(job, "w", "host", 1))
        while self.actor.revision < changes:
            self.report(BATCH)

    def say(self, *bodies: CreateJob | Attach | Report) -> None:
        now = Now(datetime.now(UTC), time.monotonic())
        for body in bodies:
            self.number += 1
            self.actor.propose(Request(self.number, body, PRODUCER, self.number), now, 1)
        staged = self.actor.seal(now)
        assert staged is not None
        first = staged.revision - len(staged.changes) + 1
        changes = tuple(StoredChange(first + n, body, now.wall) for n, body in enumerate(staged.changes))
        self.store.commit(1, [JobCommit(self.actor.job, staged.revision, changes, staged.keyframe)])
        self.actor.confirm()

    def report(self, number: int = 1) -> None:
        self.say(*[Report(self.actor.job, "w", 1, counts=Counts(succeeded=1)) for _ in range(number)])

    def load(self) -> None:
        stored = self.store.load(self.actor.job)
        assert stored is not None
        actor = Actor(self.actor.job)
        actor.restore(stored.keyframe, stored.changes)
        assert actor.revision == self.actor.revision

    def look_back(self) -> None:
        """Into the middle of its life."""
        body = GetAt(self.actor.job, self.actor.revision // 2)
        residents = Residents(self.store, UNBOUND)
        past = Past(self.store, residents, Committer(self.store, 1, UNBOUND, lambda: None, meter=Meter()), UNBOUND)
        past.begin(b"", Request(1, body), body, float("inf"))
        while past.due:
            told = past.step(0.0)
        assert told is not None


def cost(do: Callable[[], object], times: int = 15) -> float:
    """The median time of one, in seconds."""
    spent: list[float] = []
    for _ in range(times):
        began = time.perf_counter()
        do()
        spent.append(time.perf_counter() - began)
    return median(spent)


def compare(folder: Path, many: int) -> dict[str, float]:
    """How many times longer each takes with `many` changes than with few; the two by turns, three times."""
    with opened(SqliteStore(folder / "jobs.sqlite")) as store:
        short, long = Life(store, "short", FEW), Life(store, "long", many)
        ratios: dict[str, list[float]] = {}
        for _ in range(3):
            for name in ("report", "load", "look_back"):
                ratios.setdefault(name, []).append(cost(getattr(long, name)) / cost(getattr(short, name)))
        epoch = store.epoch()
        began = time.perf_counter()
        assert store.prune(epoch, "long", many // 2, datetime.min.replace(tzinfo=UTC))
        forgetting = time.perf_counter() - began
    found = {name: min(values) for name, values in ratios.items()}
    shown = ", ".join(f"{name} {ratio:.2f}" for name, ratio in found.items())
    print(f"times longer: {shown}; one stretch forgotten in {forgetting * 1e3:.1f} ms")
    return found


def start_up(folder: Path) -> float:
    def start() -> None:
        with opened(SqliteStore(folder / "jobs.sqlite"), epoch=0) as store:
            assert store.load("job") is not None

    return cost(start, 7)


def starts(tmp_path: Path, many: int) -> float:
    for name, changes in (("few", FEW), ("many", many)):
        (tmp_path / name).mkdir()
        with opened(SqliteStore(tmp_path / name / "jobs.sqlite")) as store:
            Life(store, "job", changes)
    return min(start_up(tmp_path / "many") / start_up(tmp_path / "few") for _ in range(3))


@pytest.mark.slow
@pytest.mark.alone
def test_fifty_thousand_changes_slow_a_job_down(tmp_path: Path) -> None:
    found = compare(tmp_path, 50_000)
    assert all(ratio < 2.0 for ratio in found.values()), found
    assert starts(tmp_path, 50_000) < 2.0


@pytest.mark.nightly
@pytest.mark.timeout(1_800)
def test_a_million_changes_slow_a_job_down(tmp_path: Path) -> None:
    found = compare(tmp_path, 1_000_000)
    assert all(ratio < 2.0 for ratio in found.values()), found
    assert starts(tmp_path, 1_000_000) < 2.0
