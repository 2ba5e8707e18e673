"""`track`, against real workers that are killed: every row is seen at least once, and counted exactly once."""

import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from actorstate.client.run import Run
from actorstate.client.sync import Client, connect
from actorstate.errors import AlreadyTracked, BadRequest
from tests.support.processes import LIVELY, WITHIN_S, Child, client, hear, job, served, tell, together, until, wait_told
from tests.support.writer import WriterProcess, Writers, writers

__all__ = ["client", "job", "served", "writers"]

SEED = 20_251_124


# --- a worker that is killed, again and again --------------------------------------------------------------


def say_outcome(run: Run, row: int) -> None:
    """One row in seven fails, one in eleven is skipped, one in thirteen was there already."""
    if row % 7 == 3:
        run.failed(row, "does not parse", category="validation")
    elif row % 11 == 5:
        run.skipped(row)
    elif row % 13 == 6:
        run.duplicate(row)


def outcomes(rows: range) -> dict[str, int]:
    """What `say_outcome` makes of these rows, counted by hand."""
    failed = sum(row % 7 == 3 for row in rows)
    skipped = sum(row % 7 != 3 and row % 11 == 5 for row in rows)
    duplicates = sum(row % 7 != 3 and row % 11 != 5 and row % 13 == 6 for row in rows)
    succeeded = len(rows) - failed - skipped - duplicates
    return {"succeeded": succeeded, "failed": failed, "skipped": skipped, "duplicates": duplicates}


def migrate(directory: str, job: str, rows: str, every: str) -> None:
    """A worker that tells each row when it has processed it."""
    with connect(directory, settings=LIVELY) as client, client.run(job, total=int(rows)) as run:
        for row in run.track(range(int(rows)), every=int(every)):
            say_outcome(run, row)
            tell(row)
            if row % 5 == 0:
                run.flush()


def rows_until_killed(worker: Child, number: int) -> list[int]:
    """What it tells until it has told `number` rows and is killed, the last words in the pipe included."""
    with worker:
        told = [worker.read() for _ in range(number)]
        worker.kill()
        return [row for row in told + worker.remaining() if isinstance(row, int)]


def check_all_rows(client: Client, job: str, rows: range, seen: set[int]) -> None:
    state = client.get(job)
    assert seen == set(rows)
    assert state.status == "completed"
    assert state.progress.processed == len(rows)
    assert outcomes(rows).items() <= {name: getattr(state.progress, name) for name in outcomes(rows)}.items()
    assert state.error_count == state.progress.failed == state.progress.by_category["validation"]


def killed_at_random(client: Client, directory: Path, job: str, kills: int, *, between: Callable[[], object]) -> None:
    """Kills the job's worker `kills` times, then lets one finish; checks the sum and that no row was left out."""
    rows, every = range(60 * (kills + 1)), 17
    chance = random.Random(SEED)
    seen: set[int] = set()
    for _ in range(kills):
        number = chance.randrange(1, 60)
        print(f"seed {SEED}: killed after row {number} of its life")
        seen |= set(rows_until_killed(Child(migrate, directory, job, len(rows), every), number))
        between()
    with Child(migrate, directory, job, len(rows), every) as last:
        last.ends_well()
        seen |= {row for row in last.remaining() if isinstance(row, int)}
    check_all_rows(client, job, rows, seen)


def test_a_killed_worker_loses_a_row_or_counts_one_twice(client: Client, served: WriterProcess, job: str) -> None:
    killed_at_random(client, served.directory, job, 3, between=lambda: None)


@pytest.mark.slow
def test_twenty_killed_workers_lose_a_row_or_count_one_twice(client: Client, served: WriterProcess, job: str) -> None:
    killed_at_random(client, served.directory, job, 20, between=lambda: None)


@pytest.mark.slow
def test_killed_workers_and_killed_writers_lose_a_row_or_count_one_twice(writers: Writers) -> None:
    writer = writers().start()
    with connect(writer.directory) as client:
        killed_at_random(client, writer.directory, "import", 8, between=writer.restart)


def test_a_writer_killed_under_a_track_loses_a_row_or_counts_one_twice(writers: Writers) -> None:
    writer, rows, seen = writers().start(), range(300), list[int]()
    chance = random.Random(SEED)
    deaths = {chance.randrange(300) for _ in range(3)}
    print(f"seed {SEED}: the writer is killed at rows {sorted(deaths)}")
    with connect(writer.directory, settings=LIVELY) as client:
        with client.run("import", total=len(rows)) as run:
            for row in run.track(rows, every=20):
                if row in deaths:
                    writer.restart()
                say_outcome(run, row)
                seen.append(row)
        assert seen == list(rows)
        check_all_rows(client, "import", rows, set(seen))


# --- where a resumed track begins ---------------------------------------------------------------------------


def dies_before_saving(directory: str, job: str, rows: str) -> None:
    """Counts `rows` of twice as many, durably, and dies by its own hand before their position is saved."""
    with connect(directory, settings=LIVELY) as client, client.attach(job) as run:
        for row in run.track(range(2 * int(rows)), every=1_000):
            if row == int(rows):
                run.flush()
                os.kill(os.getpid(), signal.SIGKILL)
            say_outcome(run, row)


def resumed(client: Client, job: str, rows: range) -> list[int]:
    """The rows that a resumed track yields; their outcomes are said again."""
    seen: list[int] = []
    with client.attach(job) as run:
        for row in run.track(rows):
            say_outcome(run, row)
            seen.append(row)
    return seen


def test_redone_rows_are_counted_twice(client: Client, served: WriterProcess, job: str) -> None:
    client.create(job)
    with Child(dies_before_saving, served.directory, job, 40) as child:
        assert child.wait() == -signal.SIGKILL
    before = client.get(job)
    assert (before.progress.processed, before.tracks["default"].done) == (40, 0)
    assert resumed(client, job, range(80)) == list(range(80))
    after = client.get(job)
    assert outcomes(range(80)).items() <= {name: getattr(after.progress, name) for name in outcomes(range(80))}.items()
    assert after.error_count == after.progress.failed == outcomes(range(80))["failed"]
    assert after.progress.processed == 80


def test_a_finished_track_begins_again(client: Client, job: str) -> None:
    client.create(job)
    assert resumed(client, job, range(10)) == list(range(10))
    assert resumed(client, job, range(10)) == []
    assert resumed(client, job, range(12)) == [10, 11]
    assert client.get(job).progress.processed == 12


@pytest.mark.parametrize("every", [1, 3, 10, 1_000])
def test_leaving_the_loop_by_break_saves_nothing(client: Client, job: str, every: int) -> None:
    client.create(job)
    with client.attach(job) as run:
        for row in run.track(range(10), every=every):
            if row == 6:
                break
    track = client.get(job).tracks["default"]
    assert (track.counted, track.worker) == (6, "")
    assert client.get(job).progress.processed == 6


@pytest.mark.parametrize("every", [1, 3, 1_000])
def test_a_row_left_by_break_is_never_seen_again(client: Client, job: str, every: int) -> None:
    client.create(job)
    with client.attach(job) as run:
        for row in run.track(range(10), every=every):
            if row == 6:
                break
    assert resumed(client, job, range(10)) == [6, 7, 8, 9]
    assert client.get(job).progress.processed == 10


def fail_at(client: Client, job: str, bad: int) -> None:
    with client.attach(job) as run:
        for row in run.track(range(10)):
            if row == bad:
                raise ValueError(row)


def test_the_row_whose_processing_failed_is_counted(client: Client, job: str) -> None:
    client.create(job)
    with pytest.raises(ValueError, match="4"):
        fail_at(client, job, 4)
    assert client.get(job).progress.processed == 4


def test_the_row_whose_processing_failed_is_never_seen_again(client: Client, job: str) -> None:
    client.create(job)
    with pytest.raises(ValueError, match="4"):
        fail_at(client, job, 4)
    assert resumed(client, job, range(10)) == [4, 5, 6, 7, 8, 9]
    assert client.get(job).progress.processed == 10


def broken_source(upto: int) -> Iterator[int]:
    yield from range(upto)
    raise OSError("the source broke off")


def test_rows_before_a_failing_source_are_counted_twice(client: Client, job: str) -> None:
    client.create(job)
    with pytest.raises(OSError, match="broke off"), client.attach(job) as run:
        for _row in run.track(broken_source(5), every=3):
            pass
    assert client.get(job).progress.processed == 5
    assert resumed(client, job, range(10))[-5:] == [5, 6, 7, 8, 9]
    assert client.get(job).progress.processed == 10


def waits_in_a_pause(directory: str, job: str) -> None:
    """Processes one row, and fetches the next when it knows of the pause; killed in there."""
    with connect(directory, settings=LIVELY) as client, client.attach(job) as run:
        for row in run.track(range(10), every=1_000):
            tell(row)
            wait_told(run, "pause")


def test_a_worker_killed_in_a_pause_has_lost_the_row_it_had_fetched(
    client: Client, served: WriterProcess, job: str
) -> None:
    client.create(job)
    with Child(waits_in_a_pause, served.directory, job) as child:
        child.expect(0)
        client.pause(job)
        until(client, job, lambda state: state.status == "paused")
        child.kill()
    client.resume(job)
    assert resumed(client, job, range(10)) == list(range(1, 10))
    assert client.get(job).progress.processed == 10


# --- keys ---------------------------------------------------------------------------------------------------


def by_key(client: Client, job: str, keys: list[int], *, upto: int | None = None) -> list[int]:
    """The keys that a track yields; it is left by break before `upto`."""
    seen: list[int] = []
    with client.attach(job) as run:
        for key in run.track(keys, key=lambda key: key, every=2):
            if key == upto:
                break
            seen.append(key)
    return seen


def dies_among_keys(directory: str, job: str) -> None:
    """Keys 10, 20, ... 100; saves at every fourth, counts 6, and dies."""
    with connect(directory, settings=LIVELY) as client, client.attach(job) as run:
        for key in run.track(TENS, key=lambda key: key, every=4):
            if key == 70:
                run.flush()
                os.kill(os.getpid(), signal.SIGKILL)


TENS = list(range(10, 101, 10))


@pytest.mark.parametrize(
    ("keys", "yielded", "processed"),
    [
        (TENS, [50, 60, 70, 80, 90, 100], 10),
        ([1, 2, 3, 11, *TENS[1:]], [50, 60, 70, 80, 90, 100], 10),
        (TENS[3:], [50, 60, 70, 80, 90, 100], 10),
        (TENS[5:], [60, 70, 80, 90, 100], 10),
        ([5, *TENS, 110], [50, 60, 70, 80, 90, 100, 110], 11),
    ],
    ids=["same", "inserted", "deleted", "deleted-beyond-done", "both-ends"],
)
def test_rows_inserted_or_deleted_before_the_position_shift_a_track_by_key(
    client: Client,
    served: WriterProcess,
    job: str,
    keys: list[int],
    yielded: list[int],
    processed: int,
) -> None:
    client.create(job)
    with Child(dies_among_keys, served.directory, job) as child:
        assert child.wait() == -signal.SIGKILL
    assert client.get(job).progress.processed == 6
    assert by_key(client, job, keys) == yielded
    assert client.get(job).progress.processed == processed


def test_a_track_by_key_forgets_its_place_after_rows_were_deleted_twice(client: Client, job: str) -> None:
    client.create(job)
    keys = list(range(10))
    assert by_key(client, job, keys[:6]) == [0, 1, 2, 3, 4, 5]
    assert by_key(client, job, keys[4:8]) == [6, 7]
    assert by_key(client, job, keys[7:]) == [8, 9]
    assert by_key(client, job, keys) == []
    assert client.get(job).progress.processed == 10


@pytest.mark.parametrize("keys", [[3, 1], [2, 2], ["a", 1]], ids=["falling", "equal", "of-two-types"])
def test_keys_that_do_not_rise_are_taken(client: Client, job: str, keys: list[str | int]) -> None:
    client.create(job)
    with pytest.raises(BadRequest, match="keys must"), client.attach(job) as run:
        list(run.track(keys, key=lambda key: key))
    assert client.get(job).progress.processed == 1


@pytest.mark.parametrize("key", [1.0, (1, 2), b"1"], ids=["float", "tuple", "bytes"])
def test_a_key_that_cannot_be_resumed_is_taken(client: Client, job: str, key: int) -> None:
    client.create(job)
    with pytest.raises(BadRequest, match="key"), client.attach(job) as run:
        list(run.track(range(5), key=lambda _row: key))
    assert client.get(job).progress.processed == 0


def test_a_key_that_is_too_long_ends_the_run(client: Client, job: str) -> None:
    client.create(job)
    with client.attach(job) as run:
        with pytest.raises(BadRequest, match="key"):
            list(run.track(["k" * 2_000], key=lambda key: key))
        run.progress(succeeded=1)
        run.flush()


# --- one live run for each name -----------------------------------------------------------------------------


def holds_a_track(directory: str, job: str) -> None:
    with connect(directory, settings=LIVELY) as client, client.attach(job, worker="holder") as run:
        for row in run.track(range(3)):
            tell(row)
            hear()


def test_two_workers_run_one_track(client: Client, served: WriterProcess, job: str) -> None:
    client.create(job)
    with Child(holds_a_track, served.directory, job) as child:
        child.expect(0)
        with client.attach(job) as run:
            with pytest.raises(AlreadyTracked) as refused:
                next(run.track(range(3)))
            assert (refused.value.holder, refused.value.health) == ("holder", "healthy")
            assert next(run.track(range(3), name="another")) == 0
        child.kill()
    assert resumed(client, job, range(3)) == [0, 1, 2]


def test_a_track_stays_taken_when_its_worker_has_left(client: Client, served: WriterProcess, job: str) -> None:
    client.create(job)
    with Child(holds_a_track, served.directory, job) as child:
        for row in range(3):
            child.expect(row)
            child.say()
        child.ends_well()
    assert resumed(client, job, range(4)) == [3]


# --- outcomes, threads, saves --------------------------------------------------------------------------------


def test_an_outcome_is_counted_beside_the_rows_success(client: Client, job: str) -> None:
    rows = range(100)
    with client.run(job) as run:
        for row in run.track(rows, total=100):
            say_outcome(run, row)
    check_all_rows(client, job, rows, set(rows))
    state = client.get(job)
    assert state.progress.total == 100
    assert state.errors[0].key == "3"
    assert state.errors[0].message == "does not parse"


def test_two_tracks_in_two_threads_mix_up_their_outcomes(client: Client, job: str) -> None:
    rows, in_step = 50, threading.Barrier(2)
    client.create(job)
    with client.attach(job) as run:

        def work(place: int) -> None:
            for row in run.track(range(rows), name=f"part-{place}", every=7):
                in_step.wait(30)
                run.failed(row, "of the first thread") if place == 0 else run.skipped(row)
                in_step.wait(30)

        together(2, work)
    progress = client.get(job).progress
    assert (progress.processed, progress.failed, progress.skipped) == (2 * rows, rows, rows)
    assert {name: track.done for name, track in client.get(job).tracks.items()} == {"part-0": rows, "part-1": rows}


def test_a_track_within_a_track_spoils_the_outer_rows_outcome(client: Client, job: str) -> None:
    client.create(job)
    with client.attach(job) as run:
        for table in run.track(range(3), name="tables"):
            for row in run.track(range(2), name=f"rows-of-{table}"):
                run.skipped(row)
            run.failed(table, "not all rows")
    progress = client.get(job).progress
    assert (progress.processed, progress.failed, progress.skipped) == (9, 3, 6)


@pytest.mark.parametrize("every", [1, 4, 5, 100])
def test_a_position_is_saved_before_the_users_own_data(client: Client, job: str, every: int) -> None:
    processed: list[int] = []
    committed: list[int] = []

    def commit() -> None:
        assert client.get(job).tracks["default"].done <= len(committed)
        committed[:] = processed

    client.create(job)
    with client.attach(job) as run:
        for row in run.track(range(10), every=every, before_save=commit):
            assert client.get(job).tracks["default"].done <= len(committed)
            processed.append(row)
    assert committed == list(range(10))
    assert client.get(job).tracks["default"].done == 10


def test_a_failed_commit_of_the_user_is_followed_by_a_save(client: Client, job: str) -> None:
    def fail() -> None:
        raise RuntimeError("the database is locked")

    client.create(job)
    with pytest.raises(RuntimeError, match="locked"), client.attach(job) as run:
        for _row in run.track(range(10), every=4, before_save=fail):
            pass
    assert client.get(job).tracks["default"].done == 0
    assert resumed(client, job, range(10)) == list(range(10))
    assert client.get(job).progress.processed == 10


def test_a_second_loop_under_one_name_skips_other_rows_without_a_word(client: Client, job: str) -> None:
    client.create(job)
    with client.attach(job) as run:
        assert list(run.track("abc")) == ["a", "b", "c"]
        with pytest.raises(BadRequest, match="come to its end in this run"):
            list(run.track("vwxyz"))
        assert list(run.track("vwxyz", name="more")) == list("vwxyz")
    assert client.get(job).progress.processed == 8


def test_an_empty_track_is_never_finished(client: Client, job: str) -> None:
    with client.run(job) as run:
        assert list(run.track(range(0), total=0)) == []
    state = client.get(job)
    assert (state.status, state.progress.processed, state.progress.percent) == ("completed", 0, 100.0)
    assert state.tracks["default"].worker == ""


def test_saving_every_zero_rows_is_taken(client: Client, job: str) -> None:
    client.create(job)
    with client.attach(job) as run, pytest.raises(BadRequest, match="every"):
        list(run.track(range(3), every=0))


def test_rows_counted_by_hand_and_by_track_are_mixed_up(client: Client, job: str) -> None:
    with client.run(job) as run:
        run.progress(succeeded=5)
        for row in run.track(range(10)):
            run.progress(bytes=100)
            if row == 9:
                run.failed(row, "x")
        run.failed("by hand", "y")
    progress = client.get(job).progress
    assert (progress.processed, progress.failed, progress.bytes) == (16, 2, 1_000)
    assert client.get(job).error_count == 2


def test_a_second_loop_of_one_name_counts_what_was_not_sent_yet_once_more(client: Client, job: str) -> None:
    client.create(job)
    with client.attach(job, report_every_s=WITHIN_S) as run:
        for row in run.track(range(10), name="twice"):
            if row == 4:
                break
        assert list(run.track(range(10), name="twice")) == [4, 5, 6, 7, 8, 9]
    assert client.get(job).progress.succeeded == 10
