"""One directory, one writer: elected by a lock, fenced by an epoch."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from actorstate.client.sync import connect
from actorstate.config import ClientSettings, WriterSettings
from actorstate.core.messages.replies import Applied, Beaten, Reply
from actorstate.core.messages.requests import Ask, CreateJob
from actorstate.endpoint import private_folder
from actorstate.errors import WriterRunning
from actorstate.store.location import located
from actorstate.writer.process import serve
from actorstate.writer.server import TICK_S
from tests.support.wire import Producer, Wire, applied_in, join, read
from tests.support.writer import WriterProcess, Writers, slow, writers

__all__ = ["writers"]

SEED = 20_251_124
EXIT_REFUSED = 4
EXIT_STORE = 74


def test_a_second_writer_is_refused_and_the_first_is_unharmed(writers: Writers) -> None:
    first, second = writers().start(), writers()
    with Wire(first.endpoint) as wire:
        producer, report = Producer(), join(wire, "job")
        second.launch()
        assert second.first_line() == ""
        assert second.wait_end() == EXIT_REFUSED
        assert f"process {first.pid} is the writer" in second.log.read_text()
        with pytest.raises(WriterRunning) as refusal:
            serve(located(first.directory), WriterSettings(), lambda _endpoint: None)
        assert refusal.value.pid == str(first.pid)
        applied_in(wire.ask(producer.change(report)))
    with connect(first.directory) as client:
        assert client.get("job").progress.processed == 1
        assert client.ask().pid == first.pid


@pytest.mark.parametrize("rounds", [1, slow(10)])
def test_of_eight_writers_that_start_at_once_exactly_one_serves(rounds: int, writers: Writers, tmp_path: Path) -> None:
    for number in range(rounds):
        rivals = [writers(tmp_path / f"jobs-{number}") for _ in range(8)]
        for rival in rivals:
            rival.launch()
        serving = [rival for rival in rivals if rival.first_line()]
        assert len(serving) == 1
        assert [rival.wait_end() for rival in rivals if rival not in serving] == [EXIT_REFUSED] * 7
        with connect(serving[0].directory) as client:
            client.create("job")
            assert client.ask().pid == serving[0].pid
        serving[0].kill()


def test_the_epoch_rises_with_every_start_even_when_the_database_was_deleted(writers: Writers) -> None:
    writer = writers()
    epochs: list[int] = []
    for lost in ("", "jobs.sqlite*", "", ".actorstate/epoch", "jobs.sqlite*", ""):
        for path in writer.directory.glob(lost) if lost else ():
            path.unlink()
        epochs.append(writer.start().endpoint.epoch)
        with Wire(writer.endpoint) as wire:
            wire.ask(read(1, Ask()))
        writer.kill()
    assert epochs == list(range(1, 7))


NIGHTLY = pytest.param(100, marks=[pytest.mark.slow, pytest.mark.nightly, pytest.mark.timeout(1800)])


@pytest.mark.parametrize("rounds", [1, slow(20), NIGHTLY])
def test_a_writer_stopped_while_another_took_over_acknowledges_and_commits_nothing(
    rounds: int, writers: Writers
) -> None:
    moments = random.Random(SEED)
    for number in range(rounds):
        old, sent = writers().start(), Producer()
        with Wire(old.endpoint) as loyal:
            report = join(loyal, f"job-{number}")
            for _ in range(moments.randrange(0, 20)):
                applied_in(loyal.ask(sent.change(report)))
            old.stop()
            loyal.send(*sent.changes([report] * moments.randrange(1, 50)))
            new = replaced(writers, old)
            with Wire(new.endpoint) as wire:
                standing = wire.document(report.job)
                old.go_on()
                assert old.wait_end() == EXIT_STORE
                assert acks(loyal.hear(0.05)) == []
                assert wire.document(report.job) == standing
                applied_in(wire.ask(Producer().change(report)))
        new.kill()


@pytest.mark.parametrize("rounds", [1, slow(10), NIGHTLY])
@pytest.mark.parametrize("beside", ["", ":beside"])
def test_a_writer_stopped_between_its_check_and_its_commit_is_fenced_in_the_store(
    beside: str, rounds: int, writers: Writers, tmp_path: Path
) -> None:
    """At its n-th commit, of which the first two begin the job."""
    for number in range(rounds):
        stopped_in_a_commit(writers, tmp_path / f"jobs-{number}", 3 + number % 10, beside)


def stopped_in_a_commit(writers: Writers, directory: Path, commit: int, beside: str) -> None:
    old, sent = writers(directory, fault=f"stop@commit.started:{commit}{beside}").start(), Producer()
    with Wire(old.endpoint) as loyal:
        report = join(loyal, "job")
        for _ in range(commit - 3):
            applied_in(loyal.ask(sent.change(report)))
        loyal.send(sent.change(report))
        old.wait_stopped()
        new = replaced(writers, old)
        with Wire(new.endpoint) as wire:
            applied_in(wire.ask(Producer().change(report)))
            standing = wire.document("job")
            old.go_on()
            assert old.wait_end() == EXIT_STORE
            assert loyal.hear(0.05) == []
            assert wire.document("job") == standing
            applied_in(wire.ask(Producer().change(report)))
    new.kill()


@pytest.mark.slow
def test_a_writer_stopped_within_a_transaction_lets_another_one_in_beside_it(writers: Writers) -> None:
    """Then nobody can take over, whatever became of the lock file: the answer names the file that is held."""
    old, sent = writers(fault="stop@store.written:3").start(), Producer()
    with Wire(old.endpoint) as loyal:
        report = join(loyal, "job")
        loyal.send(sent.change(report))
        old.wait_stopped()
        (private_folder(old.directory) / "lock").unlink()
        new = writers(old.directory).launch()
        assert new.first_line() == ""
        assert new.wait_end() == EXIT_REFUSED
        assert f"fuser -v {old.directory / 'jobs.sqlite'}" in new.log.read_text()
        old.go_on()
        assert old.wait_end() == EXIT_STORE
    with Wire(new.start().endpoint) as wire:
        applied_in(wire.ask(Producer().change(report)))


def replaced(writers: Writers, old: WriterProcess) -> WriterProcess:
    """A second writer of the directory, let in by somebody who deleted the lock file."""
    (private_folder(old.directory) / "lock").unlink()
    new = writers(old.directory).start()
    assert new.endpoint.epoch > 1
    return new


def acks(replies: list[Reply]) -> list[Reply]:
    """The replies that promise something."""
    return [reply for reply in replies if isinstance(reply.answer, Applied | Beaten)]


def test_a_writer_whose_lock_file_was_deleted_stops_acknowledging_and_ends(writers: Writers) -> None:
    old = writers().start()
    with Wire(old.endpoint) as loyal:
        report = join(loyal, "job")
        new = replaced(writers, old)
        loyal.send(*Producer().changes([report] * 10))
        assert old.wait_end() == EXIT_STORE
        assert loyal.hear(0.05) == []
    assert "lock file" in old.log.read_text()
    assert new.running


def delete(lock: Path) -> None:
    lock.unlink()


def move_away(lock: Path) -> None:
    lock.rename(lock.with_name("lock.old"))


def put_another_in_its_place(lock: Path) -> None:
    lock.with_name("another").touch()
    lock.with_name("another").rename(lock)


@pytest.mark.parametrize("tamper", [delete, put_another_in_its_place, move_away])
def test_a_replaced_writer_without_changes_to_write_ends_too(tamper: Callable[[Path], None], writers: Writers) -> None:
    old = writers().start()
    with Wire(old.endpoint) as loyal:
        loyal.ask(Producer().change(CreateJob("job")))
        tamper(private_folder(old.directory) / "lock")
        writers(old.directory).start()
        assert old.process.wait(4 * TICK_S) == EXIT_STORE


def test_the_end_of_a_replaced_writer_leaves_the_sockets_of_the_new_one_alone(writers: Writers) -> None:
    old = writers().start()
    with Wire(old.endpoint) as loyal:
        report = join(loyal, "job")
        new = replaced(writers, old)
        loyal.send(Producer().change(report))
        assert old.wait_end() == EXIT_STORE
    with connect(new.directory, settings=ClientSettings(timeout_s=5.0)) as client:
        assert client.ask().pid == new.pid
        assert client.get("job").progress.processed == 0
