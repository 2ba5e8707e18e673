"""A real disk that is really full: a small tmpfs. It needs root to mount, and fails loudly without."""

import subprocess
from collections.abc import Iterator
from io import RawIOBase
from pathlib import Path

import pytest

from actorstate.client.run import Run
from actorstate.client.sync import connect
from actorstate.config import ClientSettings
from actorstate.core.messages.replies import Applied, Refused
from actorstate.core.messages.requests import CreateJob, FinishJob, Get, ListJobs, Report
from actorstate.errors import DiskFull, WriterUnavailable
from actorstate.writer.server import TICK_S
from tests.support.wire import Producer, Wire, applied_in, asked, code_in, document_in, join, read
from tests.support.writer import WriterProcess, Writers, writers

__all__ = ["writers"]

CYCLES = 10
EXIT_REFUSED = 4
MIB = 1024 * 1024


class SmallDisk:
    """A file system of `size` bytes at `path`, with a file that can take all of it."""

    def __init__(self, path: Path, size: int) -> None:
        self.path, self._filler = path, path / "filler"
        path.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], check=True)

    def fill(self) -> None:
        """Takes the last byte."""
        with self._filler.open("ab", buffering=0) as filler:
            for size in (64 * 1024, 4096, 1):
                while self._written(filler, size):
                    pass

    def free(self) -> None:
        """Gives it all back."""
        self._filler.unlink(missing_ok=True)

    def grow(self, size: int) -> None:
        """A larger disk with the same contents."""
        subprocess.run(["mount", "-o", f"remount,size={size}", str(self.path)], check=True)

    def unmount(self) -> None:
        """Lazily: a process that was just killed may still hold it."""
        subprocess.run(["umount", "--lazy", str(self.path)], check=True)

    @staticmethod
    def _written(filler: RawIOBase, size: int) -> bool:
        try:
            return filler.write(bytes(size)) == size
        except OSError:
            return False


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A disk of 8 MiB."""
    small = SmallDisk(tmp_path / "disk", 8 * MIB)
    yield small
    small.unmount()


def count_until_full(wire: Wire, producer: Producer, report: Report) -> int:
    """Reports rows until the disk refuses one; how many were acknowledged."""
    for done in range(10_000):
        answer = wire.ask(producer.change(report))
        if isinstance(answer, Refused):
            assert answer.code == "disk_full", answer
            return done
        assert isinstance(answer, Applied)
        producer.floor = producer.last
        producer.floor = producer.last
    pytest.fail("the disk did not fill up")


def test_a_disk_that_fills_ten_times_costs_refusals_and_nothing_else(disk: SmallDisk, writers: Writers) -> None:
    writer, producer = writers(disk.path).start(), Producer()
    with Wire(writer.endpoint) as wire:
        report = join(wire, "job")
        applied_in(wire.ask(Producer().change(CreateJob("other"))))
        rows = 0
        for _ in range(CYCLES):
            disk.fill()
            rows += count_until_full(wire, producer, report)
            refused = producer.change(report)
            for request in (refused, refused, Producer().change(FinishJob("other", "completed"))):
                assert code_in(wire.ask(request)) == "disk_full"
            check_reads(wire, rows)
            disk.free()
            told = applied_in(wire.ask(refused))
            assert applied_in(wire.ask(refused)) == told
            rows += 1
            check_reads(wire, rows)
        assert writer.running
    writer.restart()
    with Wire(writer.endpoint) as wire:
        check_reads(wire, rows)


def check_reads(wire: Wire, rows: int) -> None:
    """Reads are served from what is committed."""
    for number in range(10**6, 10**6 + 20):
        assert document_in(wire.ask(read(number, Get("job")))).progress.processed == rows
        assert document_in(wire.ask(read(number, Get("other")))).status == "pending"
        assert not isinstance(wire.ask(read(number, ListJobs())), Refused)


def test_a_disk_that_the_writer_filled_itself_is_used_again_once_it_has_grown(
    disk: SmallDisk, writers: Writers
) -> None:
    disk.grow(MIB)
    writer, producer = writers(disk.path).start(), Producer()
    with Wire(writer.endpoint) as wire:
        report = join(wire, "job")
        rows = 0
        for size in (2, 3, 4):
            rows += count_until_full(wire, producer, report)
            assert wire.document("job").progress.processed == rows
            disk.grow(size * MIB)
            applied_in(wire.ask(producer.change(report)))
            rows += 1
    writer.restart()
    with Wire(writer.endpoint) as wire:
        assert wire.document("job").progress.processed == rows


def test_a_writer_that_starts_on_a_full_disk_says_so_and_loses_nothing(disk: SmallDisk, writers: Writers) -> None:
    writer, producer = writers(disk.path).start(), Producer()
    with Wire(writer.endpoint) as wire:
        report = join(wire, "job")
        disk.fill()
        rows = count_until_full(wire, producer, report)
    served: list[bool] = []
    for _ in range(4):
        writer.kill()
        disk.fill()
        served.append(serves_what_it_had(writer, rows))
    assert False in served, "no start met a full disk"
    disk.free()
    writer.restart()
    with Wire(writer.endpoint) as wire:
        assert wire.document("job").progress.processed == rows
        applied_in(wire.ask(producer.change(report)))


def test_a_first_start_on_a_full_disk_tells_to_repeat_a_call(disk: SmallDisk, writers: Writers) -> None:
    with (disk.path / "kept").open("wb") as kept:  # room for what it says, not for a database
        kept.write(bytes(8 * 1024))
        kept.flush()
        disk.fill()
        kept.truncate(0)
    writer = writers(disk.path / "jobs").launch()
    assert not writer.first_line()
    assert writer.wait_end() == EXIT_REFUSED
    *_, told, hint = writer.log.read_text().splitlines()
    assert told.endswith("is full: the writer cannot begin; what was stored is as it was")
    assert hint.strip().startswith(f"free some space, then: actorstate serve {writer.directory};")
    disk.free()
    writer.start()
    with Wire(writer.endpoint) as wire:
        join(wire, "job")


def serves_what_it_had(writer: WriterProcess, rows: int) -> bool:
    """Whether it starts (its own log, once moved into the database, may leave room); if not, it says why and ends."""
    writer.launch()
    if writer.first_line():
        with Wire(writer.endpoint) as wire:
            assert wire.document("job").progress.processed == rows
        return True
    assert writer.wait_end() == EXIT_REFUSED
    last = writer.log.read_text().rpartition("actorstate: ")[2]
    assert "Traceback" not in last
    assert "full" in last or "No space left" in last
    return False


@pytest.mark.slow
def test_a_watchdog_does_not_end_a_writer_whose_disk_is_full(disk: SmallDisk, writers: Writers) -> None:
    writer = writers(disk.path, environment={"WATCHDOG_USEC": "2000000"}).start()
    with Wire(writer.endpoint) as wire:
        report = join(wire, "job")
        disk.fill()
        count_until_full(wire, Producer(), report)
        assert wire.hear(4 * TICK_S) == []
        assert writer.running, writer.log.read_text()
        assert code_in(wire.ask(Producer().change(report))) == "disk_full"
        disk.free()
        applied_in(wire.ask(Producer().change(report)))
        assert asked(wire).pid == writer.pid


def test_a_run_goes_on_when_a_full_disk_has_space_again(disk: SmallDisk, writers: Writers) -> None:
    writer = writers(disk.path).start()
    with connect(writer.directory, settings=ClientSettings(timeout_s=1.0)) as client:
        client.create("job")
        with client.attach("job") as run:
            run.progress(succeeded=1)
            run.flush()
            disk.fill()
            rows = run_until_full(run)
            disk.free()
            run.progress(succeeded=1)
            run.flush()
        assert client.get("job").progress.processed == rows + 2


def run_until_full(run: Run) -> int:
    """Rows said until the disk was full, with the one that was refused and is still to be said again."""
    for rows in range(1, 10_000):
        run.progress(succeeded=1)
        try:
            run.flush()
        except (DiskFull, WriterUnavailable):
            return rows
    pytest.fail("the disk did not fill up")
