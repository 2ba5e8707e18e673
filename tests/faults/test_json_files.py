"""The JSON store under attack: killed at each step of a commit, files cut off and flipped, a full disk."""

import errno
import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from actorstate.core.salvage import whole_state
from actorstate.errors import CorruptJob, DiskFull, ForeignEdit, StoreFailed
from actorstate.store.contract import JobQuery, Store
from actorstate.store.jsonfiles import JsonStore
from actorstate.store.jsonfiles.past import past_in
from tests.support.core import EPOCH
from tests.support.grown import grow, lived
from tests.support.stores import commit_of, opened
from tests.support.writer import listening, slow

STEPS = ("store.staged", "store.appended", "store.written", "store.renamed", "store.folder_synced")
KILLED = -9
VICTIM = """
import itertools, os, signal, sys
from pathlib import Path
from actorstate import telemetry
from actorstate.store.jsonfiles import JsonStore
from actorstate.store.jsonfiles.past import past_in
from tests.support.grown import grow, lived
from tests.support.core import EPOCH
store = JsonStore(Path(sys.argv[1]))
store.open()
store.set_epoch(EPOCH)
grow(store, "b", lived(3))
seen = itertools.count(1)
def strike(name, fields):
    if next(seen) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
telemetry.listen(strike, *sys.argv[3:])
commit = store.commit
def told(epoch, batch):
    commit(epoch, batch)
    print(batch[0].revision, flush=True)
store.commit = told
grow(store, "a", lived(150))
"""


def revision_of(store: Store, job: str) -> int:
    held = store.load(job)
    return whole_state(held.keyframe, held.changes).revision if held else 0


def processed(store: Store, job: str) -> int:
    held = store.load(job)
    assert held is not None
    document = whole_state(held.keyframe, held.changes).document
    assert document is not None
    return document.progress.processed


@pytest.mark.parametrize("number", [n if n % 4 == 1 else slow(n) for n in range(1, 21)])
def test_killed_at_a_step_it_forgets_what_it_acknowledged_or_keeps_half(number: int, tmp_path: Path) -> None:
    """Every step of two commits: staging, appending, renaming, the second copy, the folders."""
    done = subprocess.run(
        [sys.executable, "-c", VICTIM, str(tmp_path), str(number), *STEPS], capture_output=True, text=True, timeout=60,
        cwd=Path(__file__).resolve().parents[2], check=False,
    )  # fmt: skip
    assert done.returncode == KILLED, done.stderr
    acknowledged = max(map(int, done.stdout.split()), default=0)
    with opened(JsonStore(tmp_path), epoch=EPOCH) as store:
        assert revision_of(store, "b") == 5
        assert acknowledged <= revision_of(store, "a") <= acknowledged + 100
        assert not list(tmp_path.rglob("*.staged"))
        assert not list(tmp_path.glob("*.corrupted.*"))
        for path in tmp_path.glob("*.json"):
            assert (tmp_path / ".backups" / f"{path.stem}.backup.json").read_bytes() == path.read_bytes()
        history = [change.revision for change in store.changes("a", 0, -1)]
        assert history == list(range(1, revision_of(store, "a") + 1))
        before = revision_of(store, "a")
        if before:
            store.commit(EPOCH, [commit_of("a", before + 1)])
            assert store.changes("a", before, -1)[0].body == b"change %d" % (before + 1)
            assert past_in("a", tmp_path / ".generations" / "a.jsonl").highest == before + 1, "a killed commit stays"


@pytest.fixture
def held(tmp_path: Path) -> Path:
    """A directory with two jobs, closed."""
    with opened(JsonStore(tmp_path), epoch=EPOCH) as store:
        grow(store, "a", lived(30))
        grow(store, "b", lived(3))
    return tmp_path


def damaged(content: bytes, how: str, place: float) -> bytes:
    at = int(len(content) * place)
    if how == "cut":
        return content[:at]
    if how == "zeroed":
        return content[:at] + bytes(min(400, len(content) - at)) + content[at + 400 :]
    return content[:at] + bytes([content[at] ^ int(how)]) + content[at + 1 :]


@pytest.mark.parametrize("how", ["1", *map(slow, ["cut", "zeroed", "128", "255"])])
@pytest.mark.parametrize("place", [0.5, *map(slow, [0.0, 0.01, 0.3, 0.77, 0.99])])
def test_a_damaged_file_is_believed_or_takes_the_job_with_it(held: Path, how: str, place: float) -> None:
    """Whole again from the second copy, or refused as an edit where it still parses: never another state."""
    path = held / "a.json"
    content = damaged(path.read_bytes(), how, place)
    path.write_bytes(content)
    with opened(JsonStore(held), epoch=2) as store:
        try:
            assert (revision_of(store, "a"), processed(store, "a")) == (32, 30)
            kept = [each.read_bytes() for each in held.glob("a.json.corrupted.*")]
            assert kept in ([content], []), "the damaged file was not kept"
            assert kept or path.read_bytes() == content
        except ForeignEdit:
            assert path.read_bytes() == content
        assert processed(store, "b") == 3
        assert store.list_jobs(JobQuery()) == ["a", "b"]


@pytest.mark.parametrize("copies", [("a.json", ".backups/a.backup.json")])
def test_with_both_copies_damaged_the_past_is_not_asked(held: Path, copies: tuple[str, str]) -> None:
    for name in copies:
        (held / name).write_bytes(b'{"half')
    with opened(JsonStore(held), epoch=2) as store:
        assert (revision_of(store, "a"), processed(store, "a")) == (32, 30)
        assert processed(store, "b") == 3
    assert len(list(held.glob("a.json.corrupted.*"))) == 1


def test_an_older_state_comes_back_under_a_revision_that_was_used(held: Path) -> None:
    """Both copies gone, and the newest line of the past: what is left is older, and says so."""
    (held / "a.json").write_bytes(b"")
    (held / ".backups" / "a.backup.json").unlink()
    past = held / ".generations" / "a.jsonl"
    lines = past.read_bytes().splitlines(keepends=True)
    newest = [n for n, line in enumerate(lines) if b'"revision":32' in line]
    assert newest
    for n in newest:
        lines[n] = lines[n].replace(b'"digest":"', b'"digest":"00')
    older = [line for line in lines if b'"keyframe"' not in line]
    past.write_bytes(b"".join(older))
    with opened(JsonStore(held), epoch=2) as store:
        stored = store.load("a")
        assert stored is not None
        document = whole_state(stored.keyframe, stored.changes).document
        assert document is not None
        assert document.recovered is not None
        assert (document.recovered.from_revision, document.recovered.lost_up_to) == (31, 32)
        assert (document.revision, document.status) == (33, "paused")
        assert not document.workers


@pytest.mark.slow
def test_a_job_of_which_nothing_is_left_is_not_found_or_stops_the_others(held: Path) -> None:
    for path in (held / "a.json", held / ".backups" / "a.backup.json", held / ".generations" / "a.jsonl"):
        path.write_bytes(b"\0" * 100)
    before = {path: path.read_bytes() for path in held.rglob("a*")}
    for _ in range(2):
        with opened(JsonStore(held), epoch=0) as store:
            with pytest.raises(CorruptJob, match="neither its second copy nor its past"):
                store.load("a")
            assert store.list_jobs(JobQuery()) == ["a", "b"]
            assert processed(store, "b") == 3
    assert all(path.read_bytes() == content for path, content in before.items())


def test_a_file_that_is_gone_is_a_job_that_never_was(held: Path) -> None:
    (held / "a.json").unlink()
    with opened(JsonStore(held), epoch=2) as store:
        assert processed(store, "a") == 30
    assert (held / "a.json").exists()


def test_damage_under_a_running_writer_is_read(held: Path) -> None:
    with opened(JsonStore(held), epoch=2) as store:
        (held / "a.json").write_bytes(b"{")
        assert processed(store, "a") == 30
        assert [path.read_bytes() for path in held.glob("a.json.corrupted.*")] == [b"{"]


def files(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("step", ["store.staged", "store.appended"])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_full_disk_leaves_a_part_of_a_commit(held: Path, step: str, number: int, code: int) -> None:
    """Three jobs in one commit: whichever write fails, nothing of any of them is there afterwards."""
    batch = [commit_of("a", 33), commit_of("b", 6), commit_of("c", 1)]
    with opened(JsonStore(held), epoch=2) as store:
        before, seen = files(held), itertools.count(1)

        def full(_name: str, fields: dict[str, object]) -> None:
            if next(seen) == number:
                raise OSError(code, os.strerror(code), str(fields["path"]))

        with listening(full, step), pytest.raises(DiskFull, match="nothing was written"):
            store.commit(2, batch)
        assert {name: content for name, content in files(held).items() if content} == {
            name: content for name, content in before.items() if content
        }
        assert (revision_of(store, "b"), store.load("c")) == (5, None)
        store.commit(2, batch)
        assert store.list_jobs(JobQuery()) == ["a", "b", "c"]
        assert [change.revision for change in store.changes("b", 4, 9)] == [5, 6]


def test_a_disk_that_fails_is_tried_again(held: Path) -> None:
    def failing(_name: str, _fields: dict[str, object]) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with opened(JsonStore(held), epoch=2) as store:
        for step in ("store.staged", "store.renamed", "store.folder_synced"):
            with listening(failing, step), pytest.raises(StoreFailed):
                store.commit(2, [commit_of("b", 6)])
    with opened(JsonStore(held), epoch=3) as store:
        assert revision_of(store, "a") == 32


def test_leftovers_stay_for_ever_or_jobs_go_with_them(held: Path) -> None:
    names = [".a.json.staged", ".backups/.a.backup.json.staged", ".generations/.a.jsonl.staged"]
    for name in names:
        (held / name).write_bytes(b"{half")
    (held / "notes.txt").write_bytes(b"mine")
    with opened(JsonStore(held), epoch=2) as store:
        assert processed(store, "a") == 30
    assert not any((held / name).exists() for name in names)
    assert (held / "notes.txt").read_bytes() == b"mine"


def test_a_deletion_that_was_cut_short_brings_the_job_back(held: Path) -> None:
    main, second = (held / "a.json").read_bytes(), (held / ".backups" / "a.backup.json").read_bytes()
    with opened(JsonStore(held), epoch=2) as store:
        store.commit(2, [commit_of("a", 33, keyframe=b"tombstone", deleted=True)])
    (held / "a.json").write_bytes(main)
    (held / ".backups" / "a.backup.json").write_bytes(second)
    with opened(JsonStore(held), epoch=3) as store:
        assert store.list_jobs(JobQuery()) == ["b"]
        assert not (held / "a.json").exists()
        store.commit(3, [commit_of("a", 34)])
        assert store.list_jobs(JobQuery()) == ["a", "b"]
    with opened(JsonStore(held), epoch=4) as store:
        assert store.list_jobs(JobQuery()) == ["a", "b"]
