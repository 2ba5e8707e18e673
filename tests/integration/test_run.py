"""`run` and `attach` by hand: how a job begins and ends, what a fenced worker is told, and that counts are exact."""

import os
import random
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from actorstate.client import blocks
from actorstate.client.run import Run
from actorstate.client.sync import Client, connect
from actorstate.config import ClientSettings
from actorstate.errors import (
    ActorStateError,
    AlreadyAttached,
    BadRequest,
    DiskFull,
    Fenced,
    JobFinished,
    RunClosed,
    TooLarge,
    WriterUnavailable,
)
from tests.support.inprocess import WriterThread
from tests.support.processes import (
    HASTY,
    LIVELY,
    SLOW,
    WITHIN_S,
    Aside,
    Child,
    client,
    frozen,
    hear,
    job,
    served,
    tell,
    together,
    unchanged,
    until,
)
from tests.support.writer import WriterProcess, Writers, listening, writers

__all__ = ["client", "job", "served", "writers"]

SEED = 20_251_125
QUARTER = 250_000
"""Bytes: one such value fits into a checkpoint, five are more than a job may hold."""


# --- how a job begins and ends -------------------------------------------------------------------------------


def test_a_block_that_ends_leaves_its_job_running(client: Client, job: str) -> None:
    with client.run(job, kind="import", total=3, unit="files", meta={"source": "a"}) as run:
        state = client.get(job)
        assert (state.status, state.kind, state.progress.total, state.progress.unit) == (
            "running",
            "import",
            3,
            "files",
        )
        assert (list(state.workers), state.meta, run.job) == ([run.worker], {"source": "a"}, job)
        run.progress(succeeded=3)
    state = client.get(job)
    assert (state.status, state.progress.processed, state.workers, state.reason) == ("completed", 3, {}, None)
    assert state.finished_at is not None


def end_by(client: Client, job: str, error: BaseException) -> None:
    with client.run(job) as run:
        run.progress(succeeded=1)
        raise error


def test_an_exception_completes_its_job(client: Client, job: str) -> None:
    with pytest.raises(KeyError, match="42"):
        end_by(client, job, KeyError(42))
    state = client.get(job)
    assert (state.status, state.reason, state.progress.processed, state.workers) == ("failed", "KeyError: 42", 1, {})


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()], ids=["exit", "interrupt"])
def test_an_interrupted_job_cannot_be_resumed(client: Client, job: str, error: BaseException) -> None:
    with pytest.raises(type(error)), client.run(job) as run:  # noqa: PT012 - the block is the case
        run.checkpoint({"row": 7})
        run.progress(succeeded=7)
        raise error
    state = client.get(job)
    assert (state.status, state.progress.processed, state.workers, state.finished) == ("running", 7, {}, False)
    with client.run(job) as again:
        assert again.resume_from == {"row": 7}
        again.progress(succeeded=1)
    assert (client.get(job).status, client.get(job).progress.processed) == ("completed", 8)


def test_a_finished_job_is_run_again(client: Client, job: str) -> None:
    with client.run(job) as run:
        run.progress(succeeded=1)
    with pytest.raises(JobFinished), client.run(job):
        pytest.fail("the block of a finished job was entered")
    with pytest.raises(JobFinished), client.attach(job):
        pytest.fail("the block of a finished job was entered")
    assert client.get(job).incarnations == 1


@pytest.mark.parametrize("ending", ["complete", "fail"])
def test_a_job_that_its_own_block_has_ended_is_ended_again(client: Client, job: str, ending: str) -> None:
    client.create(job)
    with pytest.raises(JobFinished), client.attach(job) as run:  # noqa: PT012 - the block is the case
        run.progress(succeeded=2)
        run.complete() if ending == "complete" else run.fail("no more disks")
        run.progress(succeeded=1)
    state = client.get(job)
    assert state.status == {"complete": "completed", "fail": "failed"}[ending]
    assert (state.progress.processed, state.reason) == (2, {"complete": None, "fail": "no more disks"}[ending])


def test_leaving_an_attached_block_ends_the_job(client: Client, job: str) -> None:
    client.create(job)
    with client.attach(job) as run:
        run.progress(succeeded=1)
        name = run.worker
    state = client.get(job)
    assert (state.status, state.workers, state.progress.processed) == ("running", {}, 1)
    assert name.split("-")[-2] == str(os.getpid())


def test_a_run_is_used_after_its_block(client: Client, job: str) -> None:
    client.create(job)
    with client.attach(job) as run:
        pass
    uses: list[Callable[[], object]] = [lambda: run.progress(succeeded=1), lambda: run.checkpoint(1), run.flush]
    for use in [*uses, run.complete]:
        with pytest.raises(RunClosed):
            use()
    assert client.get(job).progress.processed == 0


# --- exclusive, fenced, taken over ---------------------------------------------------------------------------


def runs_alone(directory: str, job: str) -> None:
    """Runs the job, counts a row for each line it hears, and tells how that went."""
    with connect(directory, settings=LIVELY) as client, client.run(job) as run:
        tell(run.worker)
        while hear() == "count":
            try:
                run.progress(succeeded=1)
                run.flush()
                tell("counted")
            except ActorStateError as error:
                tell(error.code)


def test_a_running_job_is_run_a_second_time(client: Client, served: WriterProcess, job: str) -> None:
    with Child(runs_alone, served.directory, job) as child:
        holder = child.read()
        with pytest.raises(AlreadyAttached) as refused, client.run(job):
            pytest.fail("the block was entered beside another worker's")
        assert (refused.value.holder, refused.value.health) == (holder, "healthy")
        with pytest.raises(AlreadyAttached), client.attach(job):
            pytest.fail("the block was entered beside an exclusive one")
        child.kill()
        with client.run(job):
            assert list(client.get(job).workers) != [holder]
    assert client.get(job).status == "completed"


def test_an_exclusive_worker_joins_others(client: Client, job: str) -> None:
    client.create(job)
    with client.attach(job, worker="first"), client.attach(job, worker="second"):
        with pytest.raises(AlreadyAttached), client.attach(job, exclusive=True):
            pytest.fail("the block was entered beside two others")
        assert set(client.get(job).workers) == {"first", "second"}


def test_a_worker_that_was_taken_over_goes_on_counting(client: Client, served: WriterProcess, job: str) -> None:
    with Child(runs_alone, served.directory, job) as child:
        child.read()
        child.say("count")
        child.expect("counted")
        with client.run(job, take_over=True) as run:
            for _ in range(3):
                child.say("count")
                child.expect("fenced")
            assert list(client.get(job).workers) == [run.worker]
            assert client.get(job).incarnations == 2
            child.say("end")
            assert child.wait() == 1
            run.progress(succeeded=1)
    state = client.get(job)
    assert (state.status, state.progress.processed, state.incarnations) == ("completed", 2, 2)


def test_a_worker_of_the_same_name_leaves_its_predecessor_in_place(client: Client, job: str) -> None:
    client.create(job)
    first, second = client.attach(job, worker="w"), client.attach(job, worker="w")
    with pytest.raises(Fenced), first as replaced, second as run:  # noqa: PT012 - the block is the case
        run.progress(succeeded=1)
        replaced.progress(succeeded=1)
        replaced.flush()
    assert client.get(job).progress.processed == 1


# --- progress: at once, merged, exact ------------------------------------------------------------------------


def test_progress_waits_for_the_writer(client: Client, served: WriterProcess, job: str) -> None:
    calls = 2_000
    with client.run(job) as run:
        run.progress(succeeded=1)
        run.flush()
        with frozen(served):
            for _ in range(calls):
                run.progress(succeeded=1, bytes=3)
            assert run.totals.sent == calls + 1
            assert run.totals.acknowledged == 1
        run.flush()
        assert run.totals.acknowledged == calls + 1
        assert run.sender.messages <= 4
    progress = client.get(job).progress
    assert (progress.processed, progress.bytes) == (calls + 1, 3 * calls)


def close_block(run: Run) -> None:
    """Nothing: the block's end says the last words."""
    assert run.totals.sent


ENDINGS: dict[str, Callable[[Run], object]] = {
    "checkpoint": lambda run: run.checkpoint({"row": 1}),
    "flush": Run.flush,
    "complete": Run.complete,
    "close": close_block,
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_was_said_before_the_end_is_missing_after_it(client: Client, job: str, ending: str) -> None:
    client.create(job)
    with client.attach(job) as run:
        for _ in range(500):
            run.progress(succeeded=1, failed=1)
        ENDINGS[ending](run)
        if ending != "close":
            assert client.get(job).progress.processed == 1_000
    assert client.get(job).progress.processed == 1_000
    assert client.get(job).progress.by_category == {"unknown": 500}


@pytest.mark.parametrize(
    "ending", ["checkpoint", pytest.param("flush", marks=SLOW), pytest.param("complete", marks=SLOW), "close"]
)
def test_a_writer_killed_in_the_middle_changes_the_sum(writers: Writers, ending: str) -> None:
    writer, rows, chance = writers().start(), 400, random.Random(SEED)
    deaths = {chance.randrange(rows) for _ in range(2)}
    print(f"seed {SEED}: killed at {sorted(deaths)}")
    with connect(writer.directory, settings=LIVELY) as client:
        client.create("job")
        with client.attach("job") as run:
            for row in range(rows):
                run.progress(succeeded=1)
                if row in deaths:
                    writer.restart()
                if row % 50 == 0:
                    run.checkpoint(row)
            ENDINGS[ending](run)
        state = client.get("job")
        assert state.progress.processed == rows
        assert state.status == ("completed" if ending == "complete" else "running")


def test_a_checkpoint_while_the_writer_is_away_ends_the_run_or_is_counted_twice(writers: Writers) -> None:
    writer = writers().start()
    with connect(writer.directory, settings=HASTY) as client:
        client.create("job")
        with client.attach("job") as run:
            run.progress(succeeded=1)
            run.flush()
            with frozen(writer):
                for number in range(3):
                    run.progress(succeeded=10)
                    with pytest.raises(WriterUnavailable, match="kept") as refused:
                        run.checkpoint({"number": number})
                    assert "actorstate doctor" in refused.value.hint
            until(client, "job", lambda state: "default" in state.checkpoints)
            run.progress(succeeded=1)
            run.checkpoint({"number": "last"})
            state = client.get("job")
            assert state.checkpoints["default"].data == {"number": "last"}
            assert state.progress.processed == run.totals.acknowledged == 32


def test_a_flush_forgets_what_another_thread_said(client: Client, job: str) -> None:
    each, size = 200, 8
    client.create(job)
    with client.attach(job) as run:

        def work(place: int) -> None:
            for number in range(each):
                run.progress(succeeded=1)
                if number % 50 == place:
                    run.checkpoint(number, name=f"of-{place}")
                    assert run.resume_from_name(f"of-{place}") == number

        together(size, work)
        run.flush()
        assert client.get(job).progress.processed == each * size
        assert len(client.get(job).checkpoints) == size


def test_a_debounced_run_sends_a_message_a_row(client: Client, job: str) -> None:
    client.create(job)
    with client.attach(job, report_every_s=3_600) as run:
        run.progress(succeeded=1)
        run.flush()
        before = run.sender.messages
        run.progress(succeeded=1)
        unchanged(client, job, 3 * LIVELY.heartbeat_s)
        for _ in range(998):
            run.progress(succeeded=1)
        assert run.sender.messages == before
        run.checkpoint("durable at once, and all before it")
        assert client.get(job).progress.processed == 1_000
        assert run.sender.messages == before + 1
        for _ in range(1_000):
            run.progress(succeeded=1)
    assert client.get(job).progress.processed == 2_000
    assert run.sender.messages == before + 2


STARVED = "defect: each beat puts the next report off by report_every_s again (client/sender.py, _work)"


def test_beats_put_a_debounced_report_off_for_ever(client: Client, job: str) -> None:
    client.create(job)
    with client.attach(job, report_every_s=3 * LIVELY.heartbeat_s) as run:
        run.progress(succeeded=1)
        run.flush()
        run.progress(succeeded=1)
        until(client, job, lambda state: state.progress.processed == 2, within_s=30 * LIVELY.heartbeat_s)


def test_a_negative_count_is_taken(client: Client, job: str) -> None:
    client.create(job)
    with client.attach(job) as run:
        for counts in ({"succeeded": -1}, {"bytes": -1}, {"total": -1}):
            with pytest.raises(BadRequest):
                run.progress(**counts)
        run.progress(succeeded=1)
    assert client.get(job).progress.processed == 1


# --- data that is too large ----------------------------------------------------------------------------------


def fill(run: Run) -> None:
    """Checkpoints of 1,000,000 bytes in all: one more of this size is one too many."""
    for number in range(4):
        run.checkpoint(b"x" * QUARTER, name=f"filled-{number}")


@pytest.mark.parametrize("size", [QUARTER, 300_000], ids=["for-the-job", "for-a-message"])
def test_counts_are_lost_with_a_checkpoint_that_is_too_large(client: Client, job: str, size: int) -> None:
    client.create(job)
    with client.attach(job) as run:
        fill(run)
        run.progress(succeeded=7)
        with pytest.raises(TooLarge):
            run.checkpoint(b"x" * size)
        run.progress(succeeded=1)
        run.checkpoint("small")
    state = client.get(job)
    assert (state.progress.processed, state.workers) == (8, {})
    assert state.checkpoints["default"].data == "small"


def test_a_refused_checkpoint_is_where_to_resume_from(client: Client, job: str) -> None:
    client.create(job)
    with client.attach(job) as run:
        fill(run)
        run.checkpoint("good")
        with pytest.raises(TooLarge):
            run.checkpoint(b"x" * QUARTER)
        assert run.resume_from == "good"


DROPPED = "defect: a refused report drops all its data, and only one waiter hears of it (client/sender.py, _tell)"


def test_a_small_checkpoint_beside_one_too_large_is_acknowledged_and_dropped(
    client: Client, served: WriterProcess, job: str
) -> None:
    client.create(job)
    with client.attach(job) as run:
        fill(run)
        returned: list[str] = []

        def save(name: str, data: object) -> None:
            run.checkpoint(data, name=name)
            returned.append(name)

        with frozen(served):
            run.progress(succeeded=1)
            savers = [Aside(lambda: save("large", b"x" * QUARTER)), Aside(lambda: save("small", 1))]
            wait_said(run, 3)
        refused = [saver for saver in savers if is_refused(saver)]
        assert refused == [savers[0]]
        assert returned == ["small"]
        assert "small" in client.get(job).checkpoints


def wait_said(run: Run, number: int) -> None:
    """Returns once so many more things wait to be sent."""
    sender = run.sender
    changed = sender._changed  # pyright: ignore[reportPrivateUsage]
    with changed:
        assert changed.wait_for(lambda: sender._said - sender._heard >= number, WITHIN_S)  # pyright: ignore[reportPrivateUsage]


def is_refused(saver: Aside) -> bool:
    try:
        saver.result()
    except TooLarge:
        return True
    return False


def test_leaving_with_data_that_is_too_large_leaves_the_worker_attached(client: Client, job: str) -> None:
    client.create(job)
    with pytest.raises(TooLarge), client.attach(job) as run:  # noqa: PT012 - the block is the case
        fill(run)
        run.progress(succeeded=1)
        run.meta(more=b"x" * QUARTER)
    assert client.get(job).progress.processed == 1
    assert client.get(job).workers == {}


def test_steps_with_large_data_stop_the_reports_for_ever(client: Client, served: WriterProcess, job: str) -> None:
    client.create(job)
    hasty = connect(served.directory, settings=HASTY)
    with hasty, pytest.raises(TooLarge), hasty.attach(job) as run:  # noqa: PT012 - the block is the case
        run.progress(succeeded=1)
        run.flush()
        with frozen(served):
            run.progress(succeeded=1)
            for number in range(40):
                run.step(f"step-{number}", data=b"x" * QUARTER)
            run.progress(succeeded=5)
        run.flush()
    assert client.get(job).progress.processed == 7


# --- everything else a worker says ---------------------------------------------------------------------------


def test_the_tail_of_errors_is_all_there_is(client: Client, job: str) -> None:
    client.create(job)
    with client.attach(job) as run:
        for number in range(120):
            run.failed(number, ValueError(f"bad {number}"), category="even" if number % 2 == 0 else "odd")
        run.skipped("s")
        run.duplicate("d")
    state = client.get(job)
    assert [error.key for error in state.errors] == [str(number) for number in range(70, 120)]
    assert state.errors[-1].message == "bad 119"
    assert state.error_count == state.progress.failed == 120
    assert state.progress.by_category == {"even": 60, "odd": 60}
    assert (state.progress.processed, state.progress.skipped, state.progress.duplicates) == (122, 1, 1)


def test_what_a_worker_describes_is_mixed_up(client: Client, job: str) -> None:
    with client.run(job, total=10, meta={"a": 1, "b": 2}) as run:
        run.phase("reading")
        run.step("read")
        run.meta(b=3, c=[1, 2])
        run.progress(total=20)
        run.flush()
        state = client.get(job)
        assert (state.phase, state.meta, state.progress.total) == ("reading", {"a": 1, "b": 3, "c": [1, 2]}, 20)
        assert (state.steps[0].status, state.steps[0].ended_at) == ("running", None)
        run.step("read", "done", data={"rows": 10})
        run.step("write", "failed")
        run.step("index", "skipped")
        run.phase("ending")
    state = client.get(job)
    assert [(step.name, step.status) for step in state.steps] == [
        ("read", "done"), ("write", "failed"), ("index", "skipped")
    ]  # fmt: skip
    assert isinstance(state.steps[0].ended_at, datetime)
    assert (state.steps[0].data, state.phase) == ({"rows": 10}, "ending")


def test_throttled_time_counts_against_the_rate(client: Client, job: str) -> None:
    with client.run(job) as run:
        run.progress(succeeded=1)
        unchanged(client, job, 0.3) if client.get(job).progress.processed else None
        for _ in range(3):
            run.throttled(0.05)
        run.flush()
        rate = client.get(job).rate
    assert rate.throttles == 3
    assert 0 < rate.throttled_s <= 0.1500001


def test_more_names_than_a_report_holds_are_lost(client: Client, served: WriterProcess, job: str) -> None:
    names = [f"name-{number}" for number in range(300)]
    client.create(job)
    with client.attach(job) as run:
        with frozen(served):
            run.meta(**{name: place for place, name in enumerate(names)})
            for name in names:
                run.step(name, "done")
                run.failed(name, "x", category=name)
            run.progress(succeeded=1)
        run.flush()
        state = client.get(job)
    assert state.meta == {name: place for place, name in enumerate(names)}
    assert [step.name for step in state.steps] == names
    assert sum(state.progress.by_category.values()) == state.progress.failed == state.error_count == 300
    assert state.progress.processed == 301


@pytest.mark.parametrize(
    "text",
    ["\ud800 \udc80", "\x00", "é" * 5_000, "k" * 100_000, ""],
    ids=["surrogates", "nul", "accents", "long", "empty"],
)
def test_text_that_cannot_be_sent_ends_the_run(client: Client, job: str, text: str) -> None:
    client.create(job)
    with client.attach(job) as run:
        run.failed(text, ValueError(text), category="validation")
        run.failed(b"\xff", KeyError(text))
        run.phase(text)
        run.flush()
        state = client.get(job)
    assert state.error_count == 2
    assert len(state.errors[0].key) <= 256
    assert len(state.errors[0].message) <= 2_000
    assert state.errors[0].message == text[:2_000].encode("utf-8", "replace").decode()


def test_a_reason_that_cannot_be_sent_hides_the_users_error(client: Client, job: str) -> None:
    with pytest.raises(ValueError, match="\ud800"):
        end_by(client, job, ValueError("\ud800" * 10_000))
    state = client.get(job)
    assert (state.status, state.progress.processed) == ("failed", 1)
    assert (state.reason or "").startswith("ValueError: ??")


@pytest.mark.parametrize("call", ["fail", "pause", "create", "labels"])
def test_a_controller_with_text_that_cannot_be_sent_gets_an_untyped_error(client: Client, job: str, call: str) -> None:
    client.create(job)
    bad = "\ud800"
    calls: dict[str, Callable[[], object]] = {
        "fail": lambda: client.fail(job, bad),
        "pause": lambda: client.pause(job, by=bad),
        "create": lambda: client.create(job + "2", kind=bad),
        "labels": lambda: client.create(job + "3", labels={"owner": bad}),
    }
    try:
        calls[call]()
    except ActorStateError:
        return


WRONG: dict[str, Callable[[Run], object]] = {
    "negative": lambda run: run.throttled(-1.0),
    "nan": lambda run: run.throttled(float("nan")),
    "infinite": lambda run: run.throttled(float("inf")),
    "beyond-2**53": lambda run: run.progress(succeeded=2**60),
    "total": lambda run: run.progress(total=2**60),
    "bytes": lambda run: run.progress(bytes=2**60),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_value_ends_the_run_and_loses_what_was_counted(client: Client, job: str, wrong: str) -> None:
    client.create(job)
    with client.attach(job) as run:
        run.progress(succeeded=1)
        with pytest.raises(BadRequest):
            WRONG[wrong](run)
        run.progress(succeeded=1)
    state = client.get(job)
    assert (state.progress.processed, state.workers) == (2, {})


REFUSED: dict[str, Callable[[Run], object]] = {
    "data": lambda run: run.checkpoint(object()),
    "meta-key": lambda run: run.meta(**{"k" * 129: 1}),
    "naive-time": lambda run: run.meta(k=datetime(2024, 1, 1)),  # noqa: DTZ001 - a naive datetime is the case
    "status": lambda run: run.step("s", "perhaps"),
    "category": lambda run: run.failed("k", "e", category=""),
    "no-name": lambda run: run.checkpoint(1, name=""),
    "long-name": lambda run: run.checkpoint(1, name="n" * 129),
}


@pytest.mark.parametrize("wrong", REFUSED)
def test_a_wrong_argument_ends_the_run(client: Client, job: str, wrong: str) -> None:
    client.create(job)
    with client.attach(job) as run:
        run.progress(succeeded=1)
        with pytest.raises(BadRequest):
            REFUSED[wrong](run)
        run.progress(succeeded=1)
    assert client.get(job).progress.processed == 2


def test_a_hundred_tracks_at_once_end_the_run(client: Client, served: WriterProcess, job: str) -> None:
    client.create(job)
    with client.attach(job) as run:
        tracks = [run.track(range(3), name=f"part-{number}") for number in range(100)]
        for track in tracks:
            next(track)
        with frozen(served):
            for track in tracks:
                next(track)
        run.flush()
        assert client.get(job).progress.processed == 100


# --- errors on the way out, and a disk that fills ------------------------------------------------------------

REPLACED = "defect: run.fail() raises in place of the user's error (client/run.py, run_to_end)"


def test_the_users_error_is_replaced_when_the_writer_is_away(writers: Writers) -> None:
    writer = writers().start()
    with connect(writer.directory, settings=HASTY) as client:
        client.create("job")
        with pytest.raises(ValueError, match="mine") as raised, client.run("job") as run:  # noqa: PT012 - the block is the case
            run.progress(succeeded=1)
            run.flush()
            writer.kill()
            raise ValueError("mine")
        assert any("actorstate" in note for note in raised.value.__notes__)
        writer.start()
        assert client.get("job").status == "running"


def test_a_writer_that_was_away_fails_the_job_of_its_run(writers: Writers) -> None:
    writer = writers().start()
    with connect(writer.directory, settings=HASTY) as client:
        with pytest.raises(WriterUnavailable), client.run("job") as run:  # noqa: PT012 - the block is the case
            writer.kill()
            try:
                run.checkpoint({"row": 1})
            finally:
                writer.start()
        assert client.get("job").status == "running"
        with client.run("job", take_over=True) as run:
            assert run.resume_from == {"row": 1}
        assert client.get("job").status == "completed"


def test_an_attachment_whose_first_read_fails_stays_without_beats(
    client: Client, served: WriterProcess, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.create(job)

    def fail(*_arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(blocks, "read_document", fail)
        with pytest.raises(KeyboardInterrupt), client.attach(job):
            pass
    assert client.get(job).workers == {}


def test_the_users_error_is_replaced_when_somebody_has_ended_the_job(client: Client, job: str) -> None:
    with pytest.raises(ValueError, match="mine"), client.run(job) as run:  # noqa: PT012 - the block is the case
        run.progress(succeeded=1)
        run.flush()
        client.complete(job)
        raise ValueError("mine")
    assert client.get(job).status == "completed"


FULL = "defect: DiskFull is retryable, and ends the run for good (client/sender.py, _work)"


@contextmanager
def disk_that_fills(directory: Path) -> Generator[threading.Event]:
    """A writer of `directory`, whose disk is full while the event is set."""
    full = threading.Event()

    def refuse(_name: str, _fields: dict[str, object]) -> None:
        if full.is_set():
            raise DiskFull("injected: the disk is full")

    with WriterThread(directory), listening(refuse, "commit.started"):
        yield full


def test_a_full_disk_ends_the_run(tmp_path: Path) -> None:
    settings = ClientSettings(timeout_s=0.5, heartbeat_s=0.1)
    with disk_that_fills(tmp_path / "jobs") as full, connect(tmp_path / "jobs", settings=settings) as client:
        client.create("job")
        with client.attach("job") as run:
            run.progress(succeeded=1)
            run.flush()
            full.set()
            run.progress(succeeded=1)
            for _ in range(3):  # longer than any one request may take
                with pytest.raises((DiskFull, WriterUnavailable)):
                    run.flush()
            full.clear()
            run.progress(succeeded=1)
            run.checkpoint("there is space again")
            assert client.get("job").progress.processed == 3


def test_a_change_that_a_full_disk_refused_has_an_unknown_outcome(tmp_path: Path) -> None:
    settings = ClientSettings(timeout_s=0.5)
    with disk_that_fills(tmp_path / "jobs") as full, connect(tmp_path / "jobs", settings=settings) as client:
        client.create("job")
        full.set()

        def create(place: int) -> None:
            with pytest.raises(DiskFull):
                client.create(f"another-{place}")

        together(32, create)
        full.clear()
        assert client.create("another-0").status == "pending"


def test_a_full_disk_is_taken_for_a_writer_that_is_away(tmp_path: Path) -> None:
    settings = ClientSettings(timeout_s=0.5, heartbeat_s=0.1)
    with disk_that_fills(tmp_path / "jobs") as full, connect(tmp_path / "jobs", settings=settings) as client:
        client.create("job")
        with client.attach("job") as run:
            full.set()
            try:
                with pytest.raises(DiskFull):
                    run.checkpoint("no space")
            finally:
                full.clear()


def test_a_client_closed_within_its_block_ends_the_run(client: Client, served: WriterProcess, job: str) -> None:
    client.create(job)
    with connect(served.directory, settings=LIVELY) as other, other.attach(job) as run:
        run.progress(succeeded=1)
        run.flush()
        other.close()
        run.progress(succeeded=1)
        run.checkpoint("a new socket")
    assert (client.get(job).progress.processed, client.get(job).workers) == (2, {})


def test_a_signal_in_a_wait_hides_what_was_said(client: Client, job: str) -> None:
    """SIGINT while `flush` waits, from the default handler."""
    with pytest.raises(KeyboardInterrupt), client.run(job) as run:  # noqa: PT012 - the block is the case
        run.progress(succeeded=1)
        signal.raise_signal(signal.SIGINT)
    assert (client.get(job).status, client.get(job).progress.processed) == ("running", 1)
