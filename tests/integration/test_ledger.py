"""The item ledger as workers and readers use it: outcomes by key, pages, retries, redaction; over crashes too."""

import contextlib
import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from actorstate.client.run import Run
from actorstate.client.sync import Client, connect
from actorstate.config import ClientSettings
from actorstate.core.messages.document import ItemState, JobState
from actorstate.core.messages.requests import ControlJob, CreateJob, DeleteJob
from actorstate.errors import AlreadyTracked, BadRequest, CorruptItem, JobFinished, JobNotFound, WriterUnavailable
from actorstate.store.jsonfiles import JsonStore
from tests.support.inprocess import WriterThread, held
from tests.support.processes import Child, client, frozen, hear, job, served, tell, until
from tests.support.wire import Producer, Wire, applied_in, asked, code_in
from tests.support.writer import WriterProcess, Writers, slow, writers

__all__ = ["client", "job", "served", "writers"]


def by_key(client: Client, job: str) -> dict[str, ItemState]:
    return {item.key: item for item in client.items(job)}


def outcomes(client: Client, job: str) -> Counter[str]:
    return Counter(item.outcome for item in client.items(job))


def agrees(client: Client, job: str) -> JobState:
    """The state, whose counts are those of the ledger: for jobs of which all rows have keys."""
    state, ledger = client.get(job), outcomes(client, job)
    told = state.progress
    counted = {"failed": told.failed, "skipped": told.skipped, "duplicate": told.duplicates, "retrying": told.retrying}
    counted["succeeded"] = told.succeeded
    assert counted == {name: ledger[name] for name in counted}
    return state


def test_an_outcome_is_not_in_the_ledger(client: Client, job: str) -> None:
    client.create(job)
    with client.attach(job) as run:
        run.failed("a", ValueError("no number"), category="validation")
        run.skipped("b")
        run.duplicate(7)
        run.failed("a", "no number again", category="validation")
    items = by_key(client, job)
    assert {key: (item.outcome, item.category, item.attempts, item.error) for key, item in items.items()} == {
        "a": ("failed", "validation", 2, "no number again"),
        "b": ("skipped", "", 1, ""),
        "7": ("duplicate", "", 1, ""),
    }
    assert items["a"].first_at <= items["a"].last_at
    state = client.get(job)
    assert (state.progress.failed, state.progress.skipped, state.progress.duplicates, state.error_count) == (2, 1, 1, 2)


def test_rows_without_a_key_are_in_the_ledger(client: Client, job: str) -> None:
    client.create(job)
    with client.attach(job) as run:
        run.failed(None, "no key")
        run.skipped()
        run.duplicate()
        run.progress(failed=1)
    assert by_key(client, job) == {}
    state = client.get(job)
    assert (state.progress.processed, state.error_count, state.errors[-1].message) == (4, 1, "no key")


def test_thousands_of_items_lose_one(client: Client, job: str) -> None:
    client.create(job)
    with client.attach(job) as run:
        run.items("failed", {f"f-{n:05}": f"error {n} " + "x" * 500 for n in range(3_000)}, category="network")
        run.items("skipped", (f"s-{n:05}" for n in range(2_000)))
        run.items("duplicate", ["d-1", "d-2"])
        run.items("succeeded", ["ok"])
    state = agrees(client, job)
    assert state.progress.by_category == {"network": 3_000}
    assert state.error_count == 3_000
    keys = [item.key for item in client.items(job, outcome="failed")]
    assert keys == [f"f-{n:05}" for n in range(3_000)]
    assert [item.key for item in client.items(job, category="network", after="f-02997")] == ["f-02998", "f-02999"]
    assert [item.key for item in client.items(job, outcome="failed", category="")] == []


def test_a_track_forgets_the_items_of_its_rows(client: Client, job: str) -> None:
    client.create(job, total=1_500)
    with client.attach(job) as run:
        for row in run.track(range(1_500), every=100):
            if row % 3 == 0:
                run.failed(row, "x" * 300, category="third")
            elif row % 5 == 0:
                run.skipped(row)
    state = client.get(job)
    assert (state.progress.processed, state.progress.failed) == (1_500, 500)
    assert outcomes(client, job) == {"failed": 500, "skipped": 200}
    assert all(item.attempts == 1 for item in client.items(job))


@pytest.mark.parametrize("size", [2_000, 2_001, 50_000])
def test_a_long_error_is_stored_whole_or_not_at_all(client: Client, job: str, size: int) -> None:
    client.create(f"{job}-{size}")
    with client.attach(f"{job}-{size}") as run:
        run.failed("k", "é" * size)
    [item] = client.items(f"{job}-{size}")
    assert item.error == "é" * 2_000


BAD = {
    "outcome": lambda run: run.items("lost", ["a"]),
    "pairs": lambda run: run.items("failed", [("a", "timeout")]),
    "category": lambda run: run.items("failed", ["a"], category=""),
    "long category": lambda run: run.failed("a", "x", category="c" * 129),
    "every": lambda run: next(run.retries(every=0)),
}


@pytest.mark.parametrize("name", BAD)
def test_nonsense_is_counted(client: Client, job: str, name: str) -> None:
    client.create(job)
    with client.attach(job) as run, pytest.raises(BadRequest):
        BAD[name](run)
    assert client.get(job).progress.processed == 0


def test_items_of_a_job_that_is_not_there_are_empty(client: Client, job: str) -> None:
    with pytest.raises(JobNotFound):
        list(client.items(job))
    client.create(job)
    assert list(client.items(job)) == []


def test_a_deleted_job_leaves_its_items_to_the_next(client: Client, job: str) -> None:
    client.create(job)
    with client.attach(job) as run:
        run.items("failed", ["a", "b"])
    client.delete(job)
    client.create(job)
    assert list(client.items(job)) == []


def test_a_job_begun_again_in_the_commit_of_its_deletion_inherits_items(tmp_path: Path) -> None:
    with WriterThread(tmp_path) as writer, connect(tmp_path) as client, Wire(writer.endpoint) as wire:
        with_failures(client, "job", 3)
        client.create("other")
        producer = Producer()
        with held("commit.started") as gate:
            wire.send(producer.change(ControlJob("other", "pause")))
            gate.wait_reached()
            wire.send(*producer.changes([DeleteJob("job"), CreateJob("job")]))
            for _ in range(10_000):
                if asked(wire).waiting == 2:
                    break
        applied_in(wire.wait(2).answer)
        assert code_in(wire.wait(3).answer) == "busy"
        client.create("job")
        assert list(client.items("job")) == []


def test_json_files_keep_another_ledger(tmp_path: Path) -> None:
    with WriterThread(tmp_path, store=lambda path, _head: JsonStore(path.parent)), connect(tmp_path) as client:
        with_failures(client, "job", 700)
        client.retry("job", where="network")
        with client.attach("job") as run:
            for place, item in enumerate(run.retries()):
                if place % 2:
                    run.failed(item.key, "again", category="network")
        assert agrees(client, "job").progress.by_category == {"network": 350}
        assert [item.attempts for item in client.items("job")] == [2] * 700
        client.delete("job")
        client.create("job")
        assert list(client.items("job")) == []


# --- redaction -------------------------------------------------------------------------------------------------


def test_a_secret_leaves_the_process(served: WriterProcess, job: str) -> None:
    """In no file of the directory, after all that a worker can say about an error; cut nowhere within it."""
    secret = "hunter2"
    redacting = connect(served.directory, redact=lambda text: text.replace(secret, "(secret)"))
    with redacting as client:
        client.create(job)
        with client.attach(job) as run:
            run.failed("a", f"login {secret}")
            run.items("failed", {"b": f"password={secret}", "c": "x" * 1_994 + secret})  # cut behind its sixth letter
            for row in run.track([1]):
                run.failed(row, secret)
        with contextlib.suppress(ValueError), client.run(f"{job}-2"):
            raise ValueError(f"wrong password {secret}")
        assert client.get(f"{job}-2").reason == "ValueError: wrong password (secret)"
        assert {item.key: item.error for item in client.items(job)}["a"] == "login (secret)"
    for file in served.directory.rglob("*"):
        if file.is_file():
            assert secret[:6].encode() not in file.read_bytes(), file


def test_a_redaction_that_fails_lets_the_text_through_or_ends_the_run(served: WriterProcess, job: str) -> None:
    def broken(text: str) -> str:
        raise KeyError(text)

    with connect(served.directory, redact=broken) as client:
        client.create(job)
        with client.attach(job) as run:
            run.failed("a", "hunter2")
        [item] = client.items(job)
    assert item.error == "(not shown: the redaction failed with KeyError)"


# --- retries ---------------------------------------------------------------------------------------------------


def with_failures(client: Client, job: str, number: int, *, category: str = "network") -> None:
    client.create(job, total=number)
    with client.attach(job) as run:
        run.items("failed", {f"k-{n:04}": "timeout" for n in range(number)}, category=category)


def test_a_retried_item_is_lost_or_counted_twice(client: Client, job: str) -> None:
    with_failures(client, job, 30)
    with client.attach(job) as run:
        run.failed("other", "x", category="validation")
    client.retry(job, where="network")
    state = agrees(client, job)
    assert (state.progress.processed, state.progress.retrying) == (1, 30)
    with client.attach(job) as run:
        for place, item in enumerate(run.retries()):
            assert (item.category, item.attempts, item.error) == ("network", 1, "timeout")
            if place % 3 == 1:
                run.failed(item.key, "again", category="network")
            elif place % 3 == 2:
                run.skipped()
    state = agrees(client, job)
    assert outcomes(client, job) == {"succeeded": 10, "failed": 11, "skipped": 10}
    assert state.progress.by_category == {"validation": 1, "network": 10}
    assert {item.attempts for item in client.items(job, category="network")} == {2}
    with client.attach(job) as run:
        assert list(run.retries()) == []


def test_a_finished_job_cannot_be_retried_by_category(client: Client, job: str) -> None:
    with_failures(client, job, 3)
    client.complete(job)
    client.retry(job, where="network")
    state = agrees(client, job)
    assert (state.status, state.attempt, state.progress.retrying) == ("pending", 2, 3)
    with client.run(job) as run:
        assert [item.key for item in run.retries()] == ["k-0000", "k-0001", "k-0002"]
    assert agrees(client, job).status == "completed"


def test_a_retry_of_everything_and_of_a_part(client: Client, job: str) -> None:
    with_failures(client, job, 1)
    with pytest.raises(BadRequest):
        client.retry(job, where="network", from_start=True)


def test_a_loop_that_is_left_loses_its_item(client: Client, job: str) -> None:
    with_failures(client, job, 5)
    client.retry(job, where="network")
    with client.attach(job) as run:
        for item in run.retries():
            if item.key == "k-0002":
                break
    assert outcomes(client, job) == {"succeeded": 2, "retrying": 3}
    with client.attach(job) as run:
        assert [item.key for item in run.retries()] == ["k-0002", "k-0003", "k-0004"]
    assert agrees(client, job).progress.succeeded == 5


def test_outcomes_are_said_before_the_caller_has_saved(client: Client, job: str) -> None:
    with_failures(client, job, 7)
    client.retry(job, where="network")
    saved: list[int] = []
    with client.attach(job) as run:

        def save() -> None:
            saved.append(outcomes(client, job)["succeeded"])

        for item in run.retries(every=3, before_save=save):
            if item.key == "k-0005":
                break
    assert saved == [0]
    assert outcomes(client, job) == {"succeeded": 3, "retrying": 4}, "two were done and not saved: they come again"
    with client.attach(job) as run:
        assert len(list(run.retries(every=3, before_save=save))) == 4
    assert saved[1:] == [3, 6, 7]
    agrees(client, job)


def test_two_workers_do_the_same_retries(client: Client, job: str) -> None:
    with_failures(client, job, 3)
    client.retry(job, where="network")
    with client.attach(job, worker="one") as one, client.attach(job, worker="two") as two:
        first = one.retries()
        next(first)
        with pytest.raises(AlreadyTracked, match="by worker 'one'"):
            next(two.retries())
        first.close()
        one.flush()
        assert len(list(two.retries())) == 3
    agrees(client, job)


def test_a_retry_that_comes_while_another_is_under_way_is_forgotten(client: Client, job: str) -> None:
    with_failures(client, job, 3)
    client.retry(job, where="network")
    with client.attach(job) as run:
        seen: list[str] = []
        for item in run.retries():
            seen.append(item.key)
            if len(seen) == 1:
                run.sender.flush(10)
                with client.attach(job) as other:
                    other.failed("a-late-one", "x", category="late")
                client.retry(job, where="late")
    assert seen == ["k-0000", "k-0001", "k-0002", "a-late-one"]


def test_items_wait_for_ever_when_the_writer_is_away(writers: Writers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actorstate.client.sender.MAX_UNSAID_ITEMS", 50)
    writer = writers().start()
    settings = ClientSettings(timeout_s=0.6, attempt_s=0.1)
    with connect(writer.directory, settings=settings) as client:
        client.create("job")
        with client.attach("job") as run:
            with frozen(writer):
                run.items("failed", [str(n) for n in range(50)])
                with pytest.raises(WriterUnavailable, match="wait for it"):
                    run.failed("one more", "x")
                run.progress(succeeded=1)
            run.failed("now", "x")
            client_waits_long = connect(writer.directory)
            run.sender.flush(30)
        assert len(by_key(client_waits_long, "job")) == 51
        client_waits_long.close()


# --- crashes ---------------------------------------------------------------------------------------------------

PATIENT = ClientSettings(timeout_s=60.0, attempt_s=0.2)


def fail_some(directory: str, number: str, count: str) -> None:
    """A process: `count` outcomes with keys of its own, and one that all share, each acknowledged in turn."""
    with connect(directory, settings=PATIENT) as client, client.attach("job") as run:
        tell("ready")
        hear()
        for n in range(int(count)):
            run.failed(f"{number}-{n:03}", "x" * 200, category=f"category-{n % 3}")
            run.skipped("shared")
            run.flush()
    tell("done")


def storm(writer: WriterProcess, processes: int, count: int, kills: int) -> None:
    with connect(writer.directory, settings=PATIENT) as client, contextlib.ExitStack() as ends:
        client.create("job")
        children = [ends.enter_context(Child(fail_some, writer.directory, n, count)) for n in range(processes)]
        for child in children:
            child.expect("ready")
        for child in children:
            child.say()
        for kill in range(1, kills + 1):
            until(client, "job", lambda state, at=kill: state.progress.failed >= at * processes * count // (kills + 1))
            writer.restart()
        for child in children:
            child.expect("done")
            child.ends_well()
        items = by_key(client, "job")
        state = client.get("job")
    assert items.pop("shared").attempts == state.progress.skipped == processes * count
    assert len(items) == state.progress.failed == state.error_count == processes * count
    assert {item.attempts for item in items.values()} == {1}
    assert state.progress.by_category == Counter(item.category for item in items.values())


def test_the_ledger_differs_from_the_counts_after_the_writer_was_killed(writers: Writers) -> None:
    storm(writers().start(), processes=2, count=20, kills=1)


@pytest.mark.slow
@pytest.mark.parametrize("round_", range(5))
def test_the_ledger_differs_from_the_counts_after_many_kills(writers: Writers, round_: int) -> None:
    storm(writers().start(), processes=4, count=60, kills=4 + round_ % 2)


def redo(directory: str, crash_at: str) -> None:
    """A process: does the job's retries, and is killed in the turn of the `crash_at`-th, if there is one."""
    with connect(directory, settings=PATIENT) as client, client.attach("job") as run:
        for place, item in enumerate(run.retries()):
            if place == int(crash_at):
                tell("here")
                hear()
            if int(item.key.split("-")[1]) % 4 == 0:
                run.failed(item.key, "again", category="network")
    tell("through")


def done(state: JobState) -> int:
    return state.progress.processed


@pytest.mark.parametrize("killed", [slow("worker"), slow("writer"), "both"])
def test_a_crash_counts_a_retried_item_twice_or_never(writers: Writers, killed: str) -> None:
    writer = writers().start()
    with connect(writer.directory, settings=PATIENT) as client:
        with_failures(client, "job", 60)
        client.retry("job", where="network")
        for crash_at in (5, 20):
            with Child(redo, writer.directory, crash_at) as child:
                child.expect("here")
                if killed != "worker":
                    writer.restart()
                if killed == "writer":
                    child.say()
                    child.expect("through")
                    break
                child.kill()
        with Child(redo, writer.directory, 999) as child:
            child.expect("through")
            child.ends_well()
        state = agrees(client, "job")
        assert (state.progress.succeeded, state.progress.failed, state.progress.retrying) == (45, 15, 0)
        assert {item.attempts for item in client.items("job")} == {2}


def test_a_retry_begun_by_a_client_that_died_counts_twice(client: Client, job: str) -> None:
    """It moves some thousand items in several messages: what was moved before its end stays, the rest follows."""
    with_failures(client, job, 1_300)
    stream = iter([True])
    call = client.transport.call

    def dies(body: object, *more: object) -> object:
        if type(body).__name__ == "RetryItems" and not next(stream, False):
            raise KeyboardInterrupt
        return call(body, *more)  # type: ignore[arg-type]

    client.transport.call = dies  # type: ignore[method-assign,assignment]
    with pytest.raises(KeyboardInterrupt):
        client.retry(job, where="network")
    client.transport.call = call  # type: ignore[method-assign]
    assert agrees(client, job).progress.retrying == 500
    client.retry(job, where="network")
    assert agrees(client, job).progress.retrying == 1_300


# --- damage ----------------------------------------------------------------------------------------------------


def damage(directory: Path, job: str, key: str) -> None:
    with contextlib.closing(sqlite3.connect(directory / "jobs.sqlite", isolation_level=None)) as database:
        changed = database.execute("UPDATE items SET body = body || X'00' WHERE job = ? AND key = ?", (job, key))
        assert changed.rowcount == 1


def test_a_damaged_item_is_missing_or_hides_others(client: Client, served: WriterProcess, job: str) -> None:
    with_failures(client, job, 10)
    damage(served.directory, job, "k-0003")
    seen: list[str] = []
    with pytest.raises(CorruptItem, match="k-0003"):
        seen.extend(item.key for item in client.items(job))
    assert seen == [f"k-{n:04}" for n in range(10) if n != 3]
    client.retry(job, where="network")
    assert client.get(job).progress.retrying == 9
    with client.attach(job) as run:
        run.failed("k-0003", "said anew")
    assert by_key(client, job)["k-0003"].error == "said anew"
    assert "k-0003" in served.log.read_text()


def test_a_worker_is_not_told_of_a_damaged_retry(client: Client, served: WriterProcess, job: str) -> None:
    with_failures(client, job, 4)
    client.retry(job, where="network")
    damage(served.directory, job, "k-0001")
    seen: list[str] = []
    with client.attach(job) as run, pytest.raises(CorruptItem, match="k-0001"):
        seen.extend(item.key for item in run.retries())
    assert seen == ["k-0000", "k-0002", "k-0003"]
    assert client.get(job).progress.retrying == 1


def test_items_of_an_ended_job_are_taken(client: Client, job: str) -> None:
    client.create(job)
    with pytest.raises(JobFinished), client.attach(job) as run:  # noqa: PT012 - the block is what raises
        client.complete(job)
        run.failed("late", "x")
    assert by_key(client, job) == {}


def test_the_methods_of_a_run_are_documented() -> None:
    assert all(method.__doc__ for method in (Run.items, Run.retries, Client.items))
