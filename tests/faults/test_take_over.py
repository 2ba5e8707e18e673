"""`serve --take-over` kills the process that holds the lock, and no other."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from actorstate.client.sync import connect
from actorstate.config import ClientSettings
from actorstate.endpoint import WriterLock, holds_lock, lock_holder, private_folder
from actorstate.errors import WriterRunning
from actorstate.writer.takeover import end_holder
from tests.support.autostart import ended_within, zero
from tests.support.processes import WITHIN_S, Child, hear, tell
from tests.support.writer import Writers, writers

__all__ = ["writers", "zero"]


def take_over(directory: Path | str, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "actorstate", "serve", str(directory), "--take-over", "--detach", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_S, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize("state", ["serving", "stopped"])
def test_a_holder_survives_a_take_over_or_acknowledges_after_it(state: str, zero: Path, writers: Writers) -> None:
    old = writers(zero).start()
    with connect(zero, settings=ClientSettings(timeout_s=WITHIN_S)) as client:
        client.create("job")
        if state == "stopped":
            old.stop()
        done = take_over(zero, "--json")
        assert done.returncode == 0, done
        told = json.loads(done.stdout)
        assert (told["ended"], told["epoch"]) == ([old.pid], 2)
        assert old.wait_end() == -signal.SIGKILL
        client.pause("job")
        assert client.ask().pid == told["pid"] == lock_holder(zero)


def test_a_take_over_says_nothing_of_what_it_did(zero: Path, writers: Writers) -> None:
    old = writers(zero).start()
    done = take_over(zero)
    assert f"killed process {old.pid}, the writer of {zero}" in done.stderr
    assert f"serving {zero} (epoch 2" in done.stdout
    end_holder(zero)
    assert "no other writer runs" in take_over(zero).stderr


def test_a_writer_is_killed_for_one_that_could_not_serve(zero: Path, writers: Writers) -> None:
    old = writers(zero).start()
    done = take_over(f"json://{zero}")
    assert done.returncode == 4, done
    assert old.running


def test_a_bystander_whose_number_is_in_the_lock_file_is_killed(zero: Path, writers: Writers) -> None:
    old = writers(zero).start()
    lock = private_folder(zero) / "lock"
    with Child(open_the_lock_file, lock) as bystander:
        bystander.expect("open")
        lock.write_text(f"{bystander.pid}\n")
        assert not holds_lock(bystander.pid, lock), "it has the file open, and no lock on it"
        assert end_holder(zero) == old.pid
        assert old.wait_end() == -signal.SIGKILL
        assert not ended_within(bystander.pid, 0.05)


def open_the_lock_file(lock: str) -> None:
    with Path(lock).open():
        tell("open")
        hear()


def test_a_process_that_has_let_go_of_the_lock_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the pid that was read belongs to another process by the time it is held fast."""
    WriterLock(tmp_path).acquire()
    with Child(open_the_lock_file, private_folder(tmp_path) / "lock") as bystander:
        bystander.expect("open")
        monkeypatch.setattr("actorstate.writer.takeover.lock_holder", lambda _directory: bystander.pid)
        assert end_holder(tmp_path) is None
        assert not ended_within(bystander.pid, 0.05)


def test_the_lock_of_another_file_system_is_taken_for_ours(tmp_path: Path) -> None:
    """Numbers of inodes repeat: the holder of one on another disk would be killed, or keep clients from a start."""
    lock = WriterLock(tmp_path)
    lock.acquire()
    other = Path("/dev/shm") / f"actorstate-test-{os.getpid()}"
    try:
        other.mkdir()
        private_folder(other).mkdir()
        (private_folder(other) / "lock").touch()
        assert lock_holder(tmp_path) == os.getpid()
        assert not holds_lock(os.getpid(), private_folder(other) / "lock")
    finally:
        lock.release()
        (private_folder(other) / "lock").unlink()
        private_folder(other).rmdir()
        other.rmdir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_stranger_takes_over(zero: Path, writers: Writers) -> None:
    old = writers(zero).start()
    for folder in (zero, *zero.parents):
        folder.chmod(folder.stat().st_mode | 0o055)
    private_folder(zero).chmod(0o755)
    with Child(try_as_nobody, zero) as stranger:
        stranger.expect("writer_running")
        stranger.ends_well()
    assert old.running


def try_as_nobody(directory: str) -> None:
    os.setuid(65534)
    try:
        end_holder(Path(directory))
    except WriterRunning as error:
        tell(error.code)
