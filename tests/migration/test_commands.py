"""The commands as a tired person types them: strange names, wrong places, Ctrl-C, a terminal, somebody else's files."""

import contextlib
import os
import pty
import re
import shlex
import signal
import sys
import threading
from pathlib import Path

import pytest

from actorstate import telemetry
from actorstate.cli.main import main
from actorstate.cli.migrating import Following
from actorstate.migrate.plan import Part, Plan, UserPlan
from actorstate.migrate.run import Outcome, Watcher
from actorstate.migrate.runlock import only_one, runner_of
from tests.support.migration import NEW, OLD, Case, Disks, command, make_user, migrated, rows_of, says, tree, typed
from tests.support.processes import ROOT, forked, joined


def answered(*words: object) -> tuple[int, str]:
    told = typed(*words)
    return told.returncode, told.stdout


def complained(*words: object) -> tuple[int, str]:
    told = typed(*words)
    return told.returncode, told.stderr


def test_what_is_to_be_typed_next_cannot_be_typed(tmp_path: Path) -> None:
    data = tmp_path / "d ata 'ü'"
    users = ("--user", "-x", "bo b", "ü—ñ $(reboot)")
    for user in users:
        make_user(data, user)
    code, told = answered("migrate", "run", "profiles", data, "--workers", 2)
    assert code == 0
    lines = re.findall(r"to undo it: (actorstate .*)", told)
    assert lines == re.findall(r"to undo it: (actorstate .*)", typed("migrate", "status", "profiles", data).stdout)
    for line in lines:
        assert typed(*shlex.split(line)[1:]).returncode == 0, line
    assert all((data / user / OLD).exists() for user in users)


@pytest.mark.parametrize("verb", ["plan", "run", "status", "verify", "rollback", "prune", "audit"])
def test_a_mistyped_folder_is_begun_or_said_to_be_in_order(tmp_path: Path, verb: str) -> None:
    (tmp_path / "file").write_text("")
    for data in (tmp_path / "mistyped", tmp_path / "file"):
        code, told = complained("migrate", verb, "profiles", data, "--state", tmp_path / "jobs")
        assert code == 4
        assert f"there is no folder {data}" in told
        assert "doctor" not in told
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_may_not_be_written_to_is_told_as_a_defect(tmp_path: Path, disks: Disks) -> None:
    make_user(tmp_path / "data", "alice")
    disks.mount_read_only(tmp_path / "data", tmp_path / "fixed")
    code, told = complained("migrate", "run", "profiles", tmp_path / "fixed")
    assert (code, "cannot be written to: Read-only file system; nothing was changed" in told) == (4, True)
    code, told = answered("migrate", "plan", "profiles", tmp_path / "fixed")
    assert (code, "on a file system that is mounted read-only" in told) == (1, True)
    assert typed("migrate", "status", "profiles", tmp_path / "fixed").returncode == 0


def test_a_plan_promises_what_its_run_refuses(tmp_path: Path) -> None:
    for user in ("alice", "noise", "text", "folder", "both", "late"):
        make_user(tmp_path, user)
    (tmp_path / "noise" / OLD).write_bytes(os.urandom(40_960))
    (tmp_path / "text" / OLD).write_bytes(b"no database at all" * 20)
    (tmp_path / "folder" / OLD).unlink()
    (tmp_path / "folder" / OLD).mkdir()
    (tmp_path / "both" / NEW).parent.mkdir(parents=True)
    (tmp_path / "both" / NEW).write_bytes((tmp_path / "both" / OLD).read_bytes())
    (tmp_path / "late" / NEW).parent.mkdir(parents=True)
    (tmp_path / "late" / NEW).touch()  # an app has looked for it: nobody's content is in the way
    code, told = answered("migrate", "plan", "profiles", tmp_path)
    refused = set(re.findall(r"Would refuse (\w+): ", told))
    assert (code, refused) == (1, {"noise", "text", "folder", "both"})
    assert "2 of 6 users to do" in told
    assert typed("migrate", "run", "profiles", tmp_path, "--dry-run").returncode == 1
    before = tree(tmp_path)
    report = migrated(tmp_path)
    assert {one.user for one in report.users if one.result == "refused"} == refused
    assert report.counts == {"refused": 4, "migrated": 2}
    after = tree(tmp_path)
    assert {name: after[name] for name in before if name.split("/")[0] in refused} == {
        name: one for name, one in before.items() if name.split("/")[0] in refused
    }


@pytest.mark.parametrize("words", [["--workers", "0"], ["--workers", "x"], ["--grace", "3"], ["--lock-wait", "-1"]])
def test_a_wrong_number_is_said_to_be_invalid_and_no_more(tmp_path: Path, words: list[str]) -> None:
    code, told = complained("migrate", "run", "profiles", tmp_path, *words)
    assert code == 2
    assert words[1] in told
    assert "span_of_time" not in told
    assert list(tmp_path.iterdir()) == []


def interrupted_at(number: int, *words: object) -> int:
    """A command that gets Ctrl-C when it comes by its n-th named point; its exit code."""
    seen = [0]

    def listener(_name: str, _fields: dict[str, object]) -> None:
        seen[0] += 1
        if seen[0] == number + 1:
            os.kill(os.getpid(), signal.SIGINT)

    def child() -> None:
        telemetry.listen(listener, "migrate.reached")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        os._exit(main([str(word) for word in words]))

    return joined(forked(child))


@pytest.mark.parametrize("verb", ["run", pytest.param("rollback", marks=pytest.mark.slow)])
def test_ctrl_c_leaves_a_user_half_way(tmp_path: Path, verb: str) -> None:
    data = tmp_path / "data"
    folder = make_user(data, "alice", Case(images=True))
    make_user(data, "bob")
    before = says(folder)
    codes = set()
    for number in range(0, 60, 14):
        if verb == "rollback":
            assert migrated(data).good
        codes.add(interrupted_at(number, "migrate", verb, "profiles", data))
        with only_one(data):
            pass
        assert migrated(data).good
        assert says(folder) == before
        assert main(["migrate", "rollback", "profiles", str(data), "--json"]) == 0
        assert says(folder) == before
    assert codes == {0, 130}


@pytest.mark.parametrize(("by", "options"), [(signal.SIGINT, ["--from-backup"]), (signal.SIGTERM, [])])
def test_what_is_to_be_typed_after_an_interrupt_migrates_everybody_again(tmp_path: Path, capfd, by, options) -> None:
    make_user(tmp_path, "alice")
    migrated(tmp_path)
    words = ["migrate", "rollback", "profiles", str(tmp_path), "--user", "alice", *options]

    def listener(_name: str, fields: dict[str, object]) -> None:
        if fields["point"] == "stage.ended":
            os.kill(os.getpid(), by)

    def child() -> None:
        telemetry.listen(listener, "migrate.reached")
        try:
            os._exit(main(words))
        except SystemExit as ended:
            os._exit(int(str(ended.code)))

    assert joined(forked(child)) == 128 + by
    assert f"taken up by: actorstate {shlex.join(words)}\n" in capfd.readouterr().err
    assert f"next: actorstate {shlex.join(words)}\n" in typed("migrate", "status", "profiles", tmp_path).stdout


def test_a_second_ctrl_c_lets_another_run_in_while_users_are_at_work(tmp_path: Path) -> None:
    make_user(tmp_path / "data", "alice")

    def child() -> None:
        pressed = [threading.Event(), threading.Event(), threading.Event()]
        seen: list[int | None] = []

        def press(_number: int, _frame: object) -> None:
            next(one for one in pressed if not one.is_set()).set()
            raise KeyboardInterrupt

        def listener(_name: str, fields: dict[str, object]) -> None:
            if fields["point"] in {"stage.begun", "stage.ended"}:
                os.kill(os.getpid(), signal.SIGINT)
                assert pressed[fields["point"] == "stage.ended"].wait(30)
            seen[:] = [runner_of(tmp_path / "data")]
            if fields["point"] == "done.written":
                pressed[2].set()

        signal.signal(signal.SIGINT, press)
        telemetry.listen(listener, "migrate.reached")
        with contextlib.suppress(KeyboardInterrupt):
            migrated(tmp_path / "data")
        assert pressed[2].wait(30)
        os._exit(0 if seen == [os.getpid()] else 1)

    assert joined(forked(child)) == 0


def on_a_terminal(*words: object) -> tuple[int, str]:
    """A command's exit code, and all that it draws."""
    pid, master = pty.fork()
    if not pid:
        os.environ |= {"PYTHONPATH": str(ROOT), "TERM": "xterm"}
        os.execv(sys.executable, command(*words))
    drawn = b""
    with contextlib.suppress(OSError):  # EIO: the last process on the terminal has ended
        while data := os.read(master, 65_536):
            drawn += data
    os.close(master)
    return joined(pid), drawn.decode()


def test_a_terminal_shows_no_users_or_bytes(tmp_path: Path) -> None:
    for number in range(6):
        make_user(tmp_path, f"user{number}")
    code, drawn = on_a_terminal("migrate", "run", "profiles", tmp_path)
    assert code == 0
    frames = re.findall(r"\r\x1b\[K\[(#*)(\.*)\]  (\d+) of 6 users  ([\d.]+ \w+) of ([\d.]+ \w+)", drawn)
    assert frames
    assert all(len(done) + len(left) == 24 for done, left, *_ in frames)
    assert [int(frame[2]) for frame in frames] == sorted(int(frame[2]) for frame in frames)
    report = drawn.rpartition("\r\x1b[K")[2]
    assert report.count("to undo it") == 6
    assert "6 migrated, in" in report


class Clock:
    """Says what it is told to say."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Pausing(Watcher):
    """Somebody has paused the run for so long."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def may_go_on(self) -> None:
        self.clock.now += 1_000.0


def test_an_estimate_comes_too_early_or_counts_pauses(capsys: pytest.CaptureFixture[str]) -> None:
    users = tuple(UserPlan(f"user{number}", "migrate", database=Part("a", "b", 100_000_000)) for number in range(2))
    clock = Clock()
    shown = Following(Pausing(clock), drawing=False, clock=clock)
    shown.begun(Plan("data", "server", users))
    lines = []
    for second in range(1, 21):
        if second in {1, 10}:
            shown.may_go_on()
        clock.now += 1.0
        shown.tell("user0", second * 5_000_000, 100_000_000)
        lines.append(capsys.readouterr().err.strip())
    told = [line for line in lines if line]
    assert told[0] == "0 of 2 users  5.0 MB of 200.0 MB"
    assert told[1] == "0 of 2 users  15.0 MB of 200.0 MB  5.0 MB/s  37 s left"
    assert told[2] == "0 of 2 users  25.0 MB of 200.0 MB  5.0 MB/s  35 s left"
    assert told[-1].endswith("5.0 MB/s  20 s left")
    clock.now += 2.0
    shown.ended(Outcome("user0", "migrated"), users[0])
    assert capsys.readouterr().err.startswith("1 of 2 users  100.0 MB of 200.0 MB")


def test_what_root_makes_cannot_be_used_by_the_app(tmp_path: Path) -> None:
    make_user(tmp_path / "data", "alice", Case(wal=True, images=True))
    for path in (tmp_path / "data", *(tmp_path / "data").rglob("*")):
        os.chown(path, 65_534, 65_534, follow_symlinks=False)
    assert typed("migrate", "run", "profiles", tmp_path / "data", "--backup-images").returncode == 0
    assert typed("migrate", "rollback", "profiles", tmp_path / "data").returncode == 0
    assert typed("migrate", "run", "profiles", tmp_path / "data").returncode == 0
    owners = {path: path.lstat().st_uid for path in (tmp_path / "data").rglob("*")}
    assert {path for path, owner in owners.items() if owner != 65_534} == set()


def test_another_name_of_the_database_is_damaged(tmp_path: Path) -> None:
    folder = make_user(tmp_path / "data", "alice")
    (tmp_path / "linked.db").hardlink_to(folder / OLD)
    before = rows_of(folder / OLD)
    assert migrated(tmp_path / "data").counts == {"migrated": 1}
    assert rows_of(tmp_path / "linked.db") == before
