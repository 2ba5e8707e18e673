"""A job's past over real sockets: what it was, who did what, what differs, and the way back."""

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

import msgspec
import pytest
from msgspec.structs import replace

from actorstate.client.sync import Client, connect
from actorstate.config import WriterSettings
from actorstate.core.messages.document import JobState
from actorstate.core.messages.requests import GetAt, RestoreJob
from actorstate.endpoint import read_endpoint
from actorstate.errors import (
    BadMessage,
    BadRequest,
    Busy,
    Conflict,
    CorruptJob,
    Fenced,
    HistoryPruned,
    JobNotFound,
)
from actorstate.store.contract import StoredChange
from actorstate.store.sqlite import SqliteStore
from tests.support.inprocess import WriterThread, recorded
from tests.support.wire import Producer, Wire, applied_in, code_in, document_in, read
from tests.support.writer import Writers, writers

__all__ = ["writers"]
IN_LOOP = WriterSettings(beside_above_s=10.0)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with WriterThread(tmp_path / "jobs", IN_LOOP), connect(tmp_path / "jobs") as client:
        yield client


def busy_job(client: Client, job: str = "j", reports: int = 120) -> list[JobState]:
    """A job with a past of many keyframes, and each of its states as a reader saw it."""
    states = [client.create(job, total=1_000, meta={"source": "a"})]
    with client.attach(job, worker="w", report_every_s=3_600) as run:  # only a checkpoint sends what was said before it
        states.append(client.get(job))
        run.phase("begun")
        run.flush()
        states.append(client.get(job))
        for number in range(reports):
            if number % 3 == 0:
                run.phase(f"phase {number}")
            run.progress(succeeded=number, failed=1)
            run.checkpoint({"row": number, "pad": "x" * (number % 7 * 100)})
            states.append(client.get(job))
    states.append(client.get(job))
    return states


def past(state: JobState) -> JobState:
    """As a look back shows it: nobody's heart beats in the past."""
    return replace(state, last_beat_s={})


def test_the_past_is_not_what_readers_saw(client: Client) -> None:
    states = busy_job(client)
    assert [state.revision for state in states] == list(range(1, client.get("j").revision + 1))
    for state in states:
        assert client.get("j", at=state.revision) == past(state)
        assert client.get("j", at=state.updated_at) == past(state)
        assert client.get("j", at=state.updated_at.astimezone(None)) == past(state)
    assert client.get("j", at=datetime.now(UTC)) == past(states[-1])


def test_the_past_is_lost_or_another_after_a_restart(writers: Writers, tmp_path: Path) -> None:
    writer = writers().start()
    with connect(tmp_path / "jobs") as client:
        states = busy_job(client, reports=40)
        writer.restart()
        for state in states:
            assert client.get("j", at=state.revision) == past(state)
        assert [entry.revision for entry in client.history("j")] == list(range(1, len(states) + 1))


def test_a_moment_that_never_was_has_a_state(client: Client) -> None:
    state = client.create("j")
    for at in (2, 10**9):
        with pytest.raises(BadRequest, match="has not happened"):
            client.get("j", at=at)
    for at in (0, -1, True):
        with pytest.raises(BadRequest, match="no revision"):
            client.get("j", at=at)
    with pytest.raises(BadRequest, match="no time zone"):
        client.get("j", at=datetime(2026, 1, 1))  # noqa: DTZ001 - what is refused
    with pytest.raises(JobNotFound, match="created later"):
        client.get("j", at=state.created_at - timedelta(microseconds=1))
    with pytest.raises(JobNotFound):
        client.get("none", at=1)
    with pytest.raises(JobNotFound):
        list(client.history("none"))
    with pytest.raises(JobNotFound):
        client.restore("none", at=1)


def test_a_request_for_two_moments_or_none_is_answered(client: Client, tmp_path: Path) -> None:
    client.create("j")
    with Wire(read_endpoint(tmp_path / "jobs")) as wire:
        for body in (GetAt("j"), GetAt("j", 1, datetime.now(UTC))):
            assert code_in(wire.ask(read(1, body))) == "bad_request"


def test_history_misses_a_change_or_tells_it_twice(client: Client) -> None:
    states = busy_job(client, reports=450)
    last = states[-1].revision
    assert last > 400
    assert [entry.revision for entry in client.history("j")] == list(range(1, last + 1))
    assert [entry.revision for entry in client.history("j", newest_first=True)] == list(range(last, 0, -1))
    assert [entry.revision for entry in client.history("j", after=last - 3)] == [last - 2, last - 1, last]
    assert [entry.revision for entry in client.history("j", after=last)] == []
    assert [entry.revision for entry in client.history("j", after=5, limit=3)] == [6, 7, 8]
    found = client.history("j", after=last - 4, newest_first=True, limit=3)
    assert [entry.revision for entry in found] == [last, last - 1, last - 2]
    assert [entry.revision for entry in client.history("j", newest_first=True, limit=250)] == list(
        range(last, last - 250, -1)
    )
    for bad in ({"after": -1}, {"limit": 0}):
        with pytest.raises(BadRequest):
            list(client.history("j", **bad))  # type: ignore[arg-type]  # a table of bad arguments


@pytest.mark.parametrize("newest_first", [False, True])
def test_history_tells_other_states_than_there_were(client: Client, *, newest_first: bool) -> None:
    states = {state.revision: state for state in busy_job(client, reports=60)}
    entries = list(client.history("j", newest_first=newest_first, states=True))
    assert len(entries) == len(states)
    for entry in entries:
        state = states[entry.revision]
        assert entry.progress is not None
        assert (entry.status, entry.at, entry.epoch) == (state.status, state.updated_at, state.epoch)
        assert entry.progress.succeeded == state.progress.succeeded
        assert entry.progress.processed == state.progress.processed


def test_history_does_not_say_who_did_what(client: Client) -> None:
    client.create("j", kind="orders", total=1_000)
    with client.attach("j", worker="w") as run:
        run.phase("copying")
        run.progress(succeeded=10, failed=1)
        run.checkpoint({"row": 11})
    client.pause("j", by="ann")
    client.resume("j", by="bob")
    client.fail("j", "no space")
    client.restore("j", at=3, by="cyd")
    told = [(entry.what, entry.who, entry.summary) for entry in client.history("j")]
    assert told[0] == ("CreateJob", "", "created, kind orders, 1,000 rows")
    assert told[1][:2] == ("Attach", "w")
    assert told[2] == ("Report", "w", "+10 succeeded, +1 failed, phase copying, saved default")
    assert told[3:] == [
        ("Detach", "w", "detached"),
        ("ControlJob", "ann", "pause asked for"),
        ("ControlJob", "bob", "resume asked for"),
        ("FinishJob", "", "failed: no space"),
        ("JobRestored", "cyd", "restored as it was at revision 3, 11 processed"),
    ]


def test_history_does_not_say_how_many_items_are_done_once_more(client: Client) -> None:
    client.create("items")
    with client.attach("items") as run:
        run.failed("a", "no", category="network")
        run.failed("b", "no", category="network")
    client.retry("items", where="network")
    told = next(client.history("items", newest_first=True))
    assert (told.what, told.summary) == ("RetryItems", "2 failed items to be done once more")


def test_a_difference_goes_unseen(client: Client) -> None:
    client.create("j", meta={"source": {"table": "a"}})
    with client.attach("j", worker="w") as run:
        run.progress(succeeded=10)
        run.checkpoint({"row": 10, "file": "x"})
        before = client.get("j").revision
        run.progress(succeeded=5, failed=2)
        run.step("copy", "done")
        run.checkpoint({"row": 17, "file": "x"})
        found = {one.path: (one.old, one.new) for one in client.diff("j", before)}
    assert found["progress.succeeded"] == (10, 15)
    assert found["progress.failed"] == (0, 2)
    assert found["progress.processed"] == (10, 17)
    assert found["checkpoints.default.data.row"] == (10, 17)
    assert found["steps.copy.status"] == (None, "done")
    assert not [path for path in found if path.startswith(("meta", "checkpoints.default.data.file", "labels"))]
    assert client.diff("j", before, before) == ()


# Restore


def test_a_restore_brings_back_something_else(client: Client) -> None:
    states = busy_job(client, reports=30)
    old, new = states[12], states[-1]
    state = client.restore("j", at=old.updated_at, by="ann")
    assert (state.revision, state.status, state.workers) == (new.revision + 1, "paused", {})
    assert state.recovered is not None
    assert (state.recovered.from_revision, state.recovered.lost_up_to) == (old.revision, new.revision)
    assert state.recovered.at == state.updated_at
    for name in ("progress", "checkpoints", "steps", "phase", "meta", "errors", "error_count"):
        assert getattr(state, name) == getattr(old, name)
    assert (state.created_at, state.incarnations, state.epoch) == (new.created_at, new.incarnations, new.epoch)
    assert client.get("j", at=new.revision) == past(new)
    client.resume("j")
    with client.attach("j") as run:
        assert run.resume_from == old.checkpoints["default"].data
        run.progress(succeeded=1)
    assert client.get("j").progress.succeeded == old.progress.succeeded + 1


def test_a_restored_job_is_another_after_a_restart(writers: Writers, tmp_path: Path) -> None:
    writer = writers().start()
    with connect(tmp_path / "jobs") as client:
        states = busy_job(client, reports=20)
        restored = client.restore("j", at=7)
        writer.restart()
        assert past(client.get("j")) == past(restored)
        assert client.get("j", at=restored.revision) == past(restored)
        assert client.get("j", at=states[-1].revision) == past(states[-1])


def work_on_after_a_restore(client: Client) -> None:
    with client.attach("j", worker="w") as run:
        run.progress(succeeded=1)
        run.checkpoint(1)
        client.restore("j", at=2)
        run.checkpoint(2)


def test_a_worker_goes_on_in_a_job_that_was_restored_under_it(client: Client) -> None:
    client.create("j")
    with pytest.raises(Fenced):
        work_on_after_a_restore(client)
    state = client.get("j")
    assert (state.status, state.progress.succeeded, state.workers) == ("paused", 0, {})


def test_a_restored_track_counts_rows_twice_or_not_at_all(client: Client) -> None:
    client.create("j", total=100)
    revisions: dict[int, int] = {}
    with client.attach("j", worker="w") as run:
        for row in run.track(range(100), every=10):
            revisions[row] = client.get("j").revision
    assert client.get("j").progress.succeeded == 100
    state = client.restore("j", at=revisions[55])
    counted = state.progress.succeeded
    client.resume("j")
    with client.attach("j", worker="v") as run:
        seen = list(run.track(range(100), every=10))
    assert 100 - len(seen) <= counted < 60
    assert client.get("j").progress.succeeded == 100


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled"])
def test_a_finished_job_is_restored_without_a_new_attempt(client: Client, end: str) -> None:
    busy_job(client, reports=3)
    {"completed": client.complete, "cancelled": client.cancel}.get(end, lambda job: client.fail(job, "broke"))("j")
    ended = client.get("j")
    state = client.restore("j", at=3, by="ann")
    assert (state.status, state.attempt, state.finished_at, state.reason) == ("paused", 2, None, None)
    last = state.attempts[-1]
    assert (last.outcome, last.ended_at, last.progress, last.retried_by) == (
        end,
        ended.finished_at,
        ended.progress,
        "ann",
    )
    client.resume("j")
    client.complete("j")
    assert client.get("j").status == "completed"


def test_a_restore_takes_a_unique_key_that_another_job_holds(client: Client) -> None:
    client.create("a", unique_key="k")
    client.complete("a")
    client.create("b", unique_key="k")
    with pytest.raises(Conflict):
        client.restore("a", at=1)
    client.complete("b")
    assert client.restore("a", at=1).status == "paused"
    with pytest.raises(Conflict):
        client.create("c", unique_key="k")


def test_a_resent_restore_is_applied_twice(tmp_path: Path) -> None:
    with WriterThread(tmp_path / "jobs", IN_LOOP) as writer, connect(tmp_path / "jobs") as client:
        busy_job(client, reports=5)
        with Wire(writer.endpoint) as wire:
            request = Producer().change(RestoreJob("j", 3))
            wire.send(request, request, request)
            applied = [applied_in(wire.wait(request.id).answer) for _ in range(3)]
            assert len(set(applied)) == 1
            assert applied_in(wire.ask(request)) == applied[0]
            assert document_in(wire.ask(read(9, GetAt("j", applied[0].revision)))).revision == applied[0].revision
        assert client.get("j").revision == applied[0].revision


# Bounds


def test_looks_into_the_past_have_no_bound(tmp_path: Path) -> None:
    settings = WriterSettings(beside_above_s=10.0, max_recalls=2)
    with WriterThread(tmp_path / "jobs", settings) as writer, connect(tmp_path / "jobs") as client:
        busy_job(client, reports=5)
        with Wire(writer.endpoint) as wire:
            wire.send(*(read(number, GetAt("j", 3)) for number in range(1, 41)))
            codes = [code_in(reply) if hasattr(reply := wire.wait(n).answer, "code") else "" for n in range(1, 41)]
        assert Busy.code in codes
        assert "" in codes
        assert client.get("j", at=3).revision == 3


def test_a_long_look_back_keeps_others_waiting(tmp_path: Path) -> None:
    """Reads are answered between the slices of a replay, not after all of it."""
    with WriterThread(tmp_path / "jobs", IN_LOOP) as writer, connect(tmp_path / "jobs") as client:
        client.create("j")
        with client.attach("j", worker="w") as run:
            for _ in range(600):
                run.progress(succeeded=1)
                run.flush()
        target = client.get("j").revision - 1
        with Wire(writer.endpoint) as looking, Wire(writer.endpoint) as reading, Slices() as slices:
            looking.send(read(1, GetAt("j", target)))
            between = 0
            while not looking.socket.poll(0):
                document_in(reading.ask(read(2, GetAt("j", target + 1))))
                between += 1
            assert document_in(looking.wait(1).answer).revision == target
        assert slices.most <= 64
        assert between > 0


class Slices:
    """How many changes the store reads at once, at most."""

    def __init__(self) -> None:
        self.most = 0

    def __enter__(self) -> Self:
        self._read = read_ = SqliteStore.changes

        def changes(store: SqliteStore, job: str, after: int, limit: int) -> list[StoredChange]:
            found = read_(store, job, after, limit)
            self.most = max(self.most, len(found))
            return found

        SqliteStore.changes = changes  # type: ignore[method-assign]  # a look at real calls
        return self

    def __exit__(self, *_exc: object) -> None:
        SqliteStore.changes = self._read  # type: ignore[method-assign]  # as above


# Forgetting


def wait_pruned(client: Client, job: str) -> int:
    """The oldest revision, once twenty turns of the writer have forgotten nothing more: it takes a stretch a turn."""
    told: list[int] = []
    for _ in range(1_000):
        try:
            client.get(job, at=1)
        except HistoryPruned as error:
            told.append(int(error.details["oldest"] or 0))
        if len(told) > 20 and told[-1] == told[-20]:
            return told[-1]
    pytest.fail(f"forgetting did not begin or never ended: {told[-20:]}")


def test_the_present_or_the_kept_past_is_forgotten(tmp_path: Path) -> None:
    settings = WriterSettings(beside_above_s=10.0, history_changes=50)
    with WriterThread(tmp_path / "jobs", settings), connect(tmp_path / "jobs") as client:
        states = busy_job(client, reports=400)
        oldest = wait_pruned(client, "j")
        assert next(iter(client.history("j"))).revision == oldest
        assert 1 < oldest <= states[-1].revision - 49
        for state in states:
            if state.revision >= oldest:
                assert client.get("j", at=state.revision) == past(state)
                assert client.get("j", at=state.updated_at) == past(state)
                continue
            with pytest.raises(HistoryPruned) as pruned:
                client.get("j", at=state.revision)
            assert pruned.value.details["oldest"] == oldest
            with pytest.raises(HistoryPruned):
                client.get("j", at=state.updated_at)
            with pytest.raises(HistoryPruned):
                client.restore("j", at=state.revision)
        with pytest.raises(HistoryPruned):
            list(client.history("j", after=1))
        kept = [entry.revision for entry in client.history("j", states=True)]
        assert kept == list(range(oldest, states[-1].revision + 1))
        newest = [entry.revision for entry in client.history("j", states=True, newest_first=True)]
        assert newest == kept[::-1]
        assert past(client.get("j")) == past(states[-1])


def test_old_history_of_a_quiet_job_is_kept_for_ever(tmp_path: Path) -> None:
    with WriterThread(tmp_path / "jobs", IN_LOOP), connect(tmp_path / "jobs") as client:
        states = busy_job(client, reports=100)
    settings = WriterSettings(beside_above_s=10.0, history_age_s=0.0)
    with WriterThread(tmp_path / "jobs", settings), connect(tmp_path / "jobs") as client:
        wait_for_round(client)
        with pytest.raises(HistoryPruned):
            client.get("j", at=1)
        assert past(client.get("j")) == past(states[-1])
    with WriterThread(tmp_path / "jobs", IN_LOOP), connect(tmp_path / "jobs") as client:
        assert past(client.get("j")) == past(states[-1])


def wait_for_round(client: Client) -> None:
    """A tick of the writer comes at least once a second; a reader held for longer sees it pass."""
    for _ in range(30):
        client.wait("j", after=10**9, timeout_s=0.2)
        try:
            client.get("j", at=1)
        except HistoryPruned:
            return


# Damage


def damaged(directory: Path, *statements: str) -> None:
    with closing(sqlite3.connect(directory / "jobs.sqlite")) as outside, outside:
        for statement in statements:
            assert outside.execute(statement).rowcount > 0


def test_a_damaged_past_is_shown_or_hides_the_present(tmp_path: Path) -> None:
    directory = tmp_path / "jobs"
    with WriterThread(directory, IN_LOOP), connect(directory) as client:
        states = busy_job(client, reports=100)
    with closing(sqlite3.connect(directory / "jobs.sqlite")) as outside:
        frames = [row[0] for row in outside.execute("SELECT revision FROM keyframes ORDER BY 1")]
    first, second = frames[0], frames[1]
    assert first + 3 < second
    damaged(directory, f"UPDATE changes SET body = CAST(x'00' || substr(body, 2) AS BLOB) WHERE revision = {first + 2}")
    with WriterThread(directory, IN_LOOP), connect(directory) as client:
        for revision in (first + 2, second - 1):
            with pytest.raises(CorruptJob, match=f"change {first + 2} "):
                client.get("j", at=revision)
        with pytest.raises(CorruptJob, match=f"change {first + 2} "):
            list(client.history("j"))
        for revision in (1, first, first + 1, second, states[-1].revision):
            assert client.get("j", at=revision) == past(states[revision - 1])
        assert past(client.get("j")) == past(states[-1])
        assert client.restore("j", at=first + 1).status == "paused"


def test_a_change_that_is_missing_in_the_past_is_passed_over(tmp_path: Path) -> None:
    directory = tmp_path / "jobs"
    with WriterThread(directory, IN_LOOP), connect(directory) as client:
        busy_job(client, reports=100)
    damaged(directory, "DELETE FROM changes WHERE revision = 5")
    with WriterThread(directory, IN_LOOP), connect(directory) as client:
        with pytest.raises(CorruptJob, match="change 5 is missing"):
            client.get("j", at=8)
        with pytest.raises(CorruptJob, match="change 5 is missing"):
            list(client.history("j"))
        assert client.get("j").status == "running"


def test_a_damaged_keyframe_of_the_past_is_shown_or_ends_the_look(tmp_path: Path) -> None:
    directory = tmp_path / "jobs"
    with WriterThread(directory, IN_LOOP), connect(directory) as client:
        states = busy_job(client, reports=100)
    with closing(sqlite3.connect(directory / "jobs.sqlite")) as outside:
        second = [row[0] for row in outside.execute("SELECT revision FROM keyframes ORDER BY 1")][1]
    damaged(directory, f"UPDATE keyframes SET body = CAST(x'00' || substr(body, 2) AS BLOB) WHERE revision = {second}")
    with WriterThread(directory, IN_LOOP), connect(directory) as client, recorded("store.damage_found") as damages:
        assert client.get("j", at=second + 1) == past(states[second])
        assert [(one["what"], one["revision"]) for one in damages] == [("keyframe", second)]


@pytest.mark.parametrize("shift", [-(10**9), 10**9])
def test_a_damaged_time_leads_to_another_revision(tmp_path: Path, shift: int) -> None:
    directory = tmp_path / "jobs"
    with WriterThread(directory, IN_LOOP), connect(directory) as client:
        states = busy_job(client, reports=60)
    damaged(directory, f"UPDATE changes SET at = at + {shift} WHERE revision = 30")
    with WriterThread(directory, IN_LOOP), connect(directory) as client:
        for state in states:
            try:
                assert client.get("j", at=state.updated_at) == past(state)
            except CorruptJob:
                continue
        with pytest.raises(CorruptJob):
            client.get("j", at=states[29].updated_at)


@pytest.mark.parametrize("shift", [-(10**12), 10**12])
def test_a_damaged_time_of_a_keyframe_hides_a_revision(tmp_path: Path, shift: int) -> None:
    directory = tmp_path / "jobs"
    with WriterThread(directory, IN_LOOP), connect(directory) as client:
        states = busy_job(client, reports=60)
    damaged(directory, f"UPDATE keyframes SET earliest = earliest + {shift}")
    with WriterThread(directory, IN_LOOP), connect(directory) as client:
        for state in states:
            with contextlib.suppress(CorruptJob):
                assert client.get("j", at=state.updated_at) == past(state)


def test_a_deleted_jobs_past_is_shown_as_its_successors(client: Client) -> None:
    states = busy_job(client, reports=30)
    client.cancel("j")
    client.delete("j")
    with pytest.raises(JobNotFound):
        client.get("j", at=3)
    created = client.create("j", total=7)
    assert created.revision > states[-1].revision
    with pytest.raises(HistoryPruned):
        client.get("j", at=3)
    with pytest.raises(JobNotFound, match="created later"):
        client.get("j", at=states[-1].updated_at)
    assert [entry.what for entry in client.history("j")] == ["CreateJob"]
    assert client.get("j", at=created.revision) == past(created)


def test_looks_back_from_many_threads_are_mixed_up(client: Client) -> None:
    states = busy_job(client, reports=80)
    wrong: list[object] = []

    def look(place: int) -> None:
        wrong.extend(state for state in states[place::4] if client.get("j", at=state.revision) != past(state))

    threads = [threading.Thread(target=look, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_naive_time_is_taken_from_the_wire(client: Client, tmp_path: Path) -> None:
    client.create("j")
    frame = {"id": 1, "body": {"type": "GetAt", "job": "j", "at": "2026-01-01T00:00:00"}}
    with Wire(read_endpoint(tmp_path / "jobs")) as wire:
        wire.socket.send(msgspec.msgpack.encode(frame))
        assert code_in(wire.wait(1).answer) == BadMessage.code
