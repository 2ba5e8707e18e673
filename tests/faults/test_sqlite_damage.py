"""Damage to `jobs.sqlite`: seen, repaired where a second copy exists, and never a silently wrong or missing job.

The damage is done from outside, with the sqlite3 module or byte by byte, to a store that was closed.
"""

import contextlib
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from actorstate import telemetry
from actorstate.core.actor import Actor
from actorstate.core.messages.payload import pack
from actorstate.core.messages.requests import Attach, Body, Counts, CreateJob, DeleteJob, FinishJob, Report
from actorstate.errors import ActorStateError, CorruptJob, DiskFull, StoreError, StoreFailed, StoreTooNew
from actorstate.store.contract import JobCommit, Store, StoredChange
from actorstate.store.sqlite import CHECKPOINT_WAL_BYTES, SqliteStore
from tests.support.core import Rehearsal
from tests.support.stores import RUNNING, change, commit_of, every_job, holdings, loaded, opened, stored

JOBS = ["export-1", "export-2", "import-1", "reborn"]
SEED = 7


def reports(job: str, count: int) -> Iterator[Body]:
    for number in range(count):
        yield Report(job, "w", 1, counts=Counts(succeeded=1), phase=f"row {number}")


def story(job: str) -> list[Body]:
    """What happens to a job: all of it in one life, or in two."""
    begin: list[Body] = [CreateJob(job, total=100), Attach(job, "w", "host", 1)]
    match job:
        case "export-2":
            large = [Report(job, "w", 1, checkpoints={"c": pack("x" * 5_000 * n)}) for n in (1, 5)]
            return [*begin, *reports(job, 5), large[0], *reports(job, 5), large[1], *reports(job, 5)]
        case "reborn":
            lives: list[Body] = [FinishJob(job, "failed"), DeleteJob(job)]
            again: list[Body] = [CreateJob(job, total=9), Attach(job, "w", "host", 1)]
            return [*begin, *reports(job, 3), *lives, *again, *reports(job, 3)]
        case _:
            return [*begin, *reports(job, 12)]


@dataclass(slots=True)
class Kept:
    """A directory with four jobs, its store closed, and what each job was."""

    folder: Path
    documents: dict[str, bytes | None] = field(default_factory=dict)
    listed: list[str] = field(default_factory=list)

    @property
    def path(self) -> Path:
        return self.folder / "jobs.sqlite"

    def store(self) -> SqliteStore:
        return SqliteStore(self.path, self.folder / "head")

    def fill(self) -> None:
        with opened(self.store()) as store:
            for job in JOBS:
                rehearsal = Rehearsal(Actor(job))
                for body in story(job):
                    rehearsal.seconds += 1
                    rehearsal.propose(rehearsal.request(body))
                    stored(store, rehearsal)
                self.documents[job] = rehearsal.actor.encoded()
            self.listed = every_job(store)

    def damage(self, *statements: str) -> None:
        """Carries out SQL behind the store's back; each statement must hit something."""
        with contextlib.closing(sqlite3.connect(self.path, isolation_level=None)) as outside:
            outside.create_function("flipped", 2, flipped)
            for statement in statements:
                assert outside.execute(statement).rowcount > 0, statement

    def look(self, job: str) -> bytes | ActorStateError | None:
        """The job's document as the next writer would have it, or the error it gets."""
        with opened(self.store(), epoch=0) as store:
            try:
                return loaded(store, job).encoded()
            except ActorStateError as error:
                return error

    def is_corrupt(self, job: str) -> bool:
        return isinstance(self.look(job), CorruptJob)

    def is_whole(self, *jobs: str) -> bool:
        return all(self.look(job) == self.documents[job] for job in jobs)

    def keyframes(self, job: str) -> list[int]:
        return self._revisions(f"SELECT revision FROM keyframes WHERE job = '{job}' ORDER BY 1")

    def changes(self, job: str) -> list[int]:
        return self._revisions(f"SELECT revision FROM changes WHERE job = '{job}' ORDER BY 1")

    def _revisions(self, query: str) -> list[int]:
        with contextlib.closing(sqlite3.connect(self.path)) as outside:
            return [revision for (revision,) in outside.execute(query)]


def flipped(blob: bytes, place: int) -> bytes:
    """One bit of `blob` turned over."""
    damaged = bytearray(blob)
    damaged[place // 8 % len(damaged)] ^= 1 << place % 8
    return bytes(damaged)


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    kept = Kept(tmp_path)
    kept.fill()
    return kept


@pytest.fixture
def damages() -> Iterator[list[dict[str, object]]]:
    """What the store reports about damage while the test runs."""
    heard: list[dict[str, object]] = []
    stop = telemetry.listen(lambda _name, fields: heard.append(fields), "store.damage_found")
    yield heard
    stop()


def test_the_undamaged_directory_is_damaged(kept: Kept) -> None:
    assert kept.is_whole(*JOBS)
    assert kept.listed == JOBS
    assert len(kept.keyframes("export-2")) == 2
    assert kept.keyframes("import-1") == []
    assert kept.keyframes("reborn")[0] == 7
    assert kept.changes("reborn")[0] == 8


@pytest.mark.parametrize("column", ["body", "digest"])
@pytest.mark.parametrize("revision", [1, 2, 7, 13, 14])
def test_a_flipped_bit_in_a_change_goes_unseen(kept: Kept, column: str, revision: int) -> None:
    chosen = random.Random(SEED + revision)
    for _ in range(5):
        place = chosen.randrange(10_000)
        where = f"WHERE job = 'import-1' AND revision = {revision}"
        kept.damage(f"UPDATE changes SET {column} = flipped({column}, {place}) {where}")
        assert kept.is_corrupt("import-1")
        kept.damage(f"UPDATE changes SET {column} = flipped({column}, {place}) {where}")
    assert kept.is_whole(*JOBS)


def test_a_damaged_job_takes_the_others_with_it(kept: Kept) -> None:
    kept.damage("UPDATE changes SET body = flipped(body, 99) WHERE job = 'import-1' AND revision = 3")
    assert kept.is_corrupt("import-1")
    assert kept.is_whole("export-1", "export-2", "reborn")
    with opened(kept.store()) as store:
        assert every_job(store) == JOBS
        store.commit(1, [commit_of("new", 1)])
        assert every_job(store) == [*JOBS[:3], "new", "reborn"]


def test_the_damaged_bytes_are_not_kept(kept: Kept) -> None:
    kept.damage("UPDATE changes SET body = flipped(body, 99) WHERE job = 'import-1' AND revision = 3")
    before = sorted(contents(kept, "changes"))
    assert kept.is_corrupt("import-1")
    assert sorted(contents(kept, "changes")) == before


def contents(kept: Kept, table: str) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(kept.path)) as outside:
        return outside.execute(f"SELECT * FROM {table}").fetchall()


def test_a_damaged_change_before_the_keyframe_is_shown_as_history(kept: Kept) -> None:
    oldest = kept.keyframes("export-2")[0]
    kept.damage(f"UPDATE changes SET body = flipped(body, 99) WHERE job = 'export-2' AND revision = {oldest - 2}")
    assert kept.is_whole("export-2")
    with opened(kept.store()) as store:
        with pytest.raises(CorruptJob):
            store.changes("export-2", 0, 1_000)
        assert store.changes("export-2", oldest, 1_000)


@pytest.mark.parametrize("column", ["body", "digest"])
def test_the_older_keyframe_does_not_replace_the_damaged_one(
    kept: Kept, damages: list[dict[str, object]], column: str
) -> None:
    newest = kept.keyframes("export-2")[-1]
    for place in (0, 77, 5_000, 99_999):
        kept.damage(
            f"UPDATE keyframes SET {column} = flipped({column}, {place}) WHERE job = 'export-2' AND revision = {newest}"
        )
        assert kept.is_whole(*JOBS)
        assert damages.pop() == {"job": "export-2", "what": "keyframe", "revision": newest}
        kept.damage(
            f"UPDATE keyframes SET {column} = flipped({column}, {place}) WHERE job = 'export-2' AND revision = {newest}"
        )


def test_the_whole_history_does_not_replace_all_keyframes(kept: Kept, damages: list[dict[str, object]]) -> None:
    kept.damage("UPDATE keyframes SET body = flipped(body, 99) WHERE job = 'export-2'")
    assert kept.is_whole(*JOBS)
    assert len(damages) == 2


def test_a_keyframe_without_a_history_is_taken_though_damaged(kept: Kept) -> None:
    """Before a tombstone there is no history: without it revisions would begin again."""
    kept.damage("UPDATE keyframes SET body = flipped(body, 99) WHERE job = 'reborn'")
    assert kept.is_corrupt("reborn")
    kept.damage("DELETE FROM keyframes WHERE job = 'reborn'")
    assert kept.is_corrupt("reborn")


def test_a_damaged_keyframe_and_a_damaged_change_make_one_good_job(kept: Kept) -> None:
    newest = kept.keyframes("export-2")[-1]
    kept.damage(
        f"UPDATE keyframes SET body = flipped(body, 5) WHERE job = 'export-2' AND revision = {newest}",
        f"UPDATE changes SET body = flipped(body, 5) WHERE job = 'export-2' AND revision = {newest - 1}",
    )
    assert kept.is_corrupt("export-2")


@pytest.mark.parametrize("revision", [1, 2, 7, 13])
def test_a_change_lost_from_the_middle_goes_unseen(kept: Kept, revision: int) -> None:
    kept.damage(f"DELETE FROM changes WHERE job = 'import-1' AND revision = {revision}")
    assert kept.is_corrupt("import-1")
    assert kept.is_whole("export-1", "export-2", "reborn")


def test_a_change_lost_behind_the_keyframe_goes_unseen(kept: Kept) -> None:
    for job in ("export-2", "reborn"):
        kept.damage(f"DELETE FROM changes WHERE job = '{job}' AND revision = {kept.keyframes(job)[-1] + 1}")
        assert kept.is_corrupt(job)


def test_a_lost_keyframe_loses_the_job(kept: Kept) -> None:
    kept.damage("DELETE FROM keyframes WHERE job = 'export-2'")
    assert kept.is_whole("export-2")


@pytest.mark.parametrize("lost", ["revision = 14", "revision > 5", "revision > 0"])
def test_the_newest_changes_of_a_job_are_lost_in_silence(kept: Kept, lost: str) -> None:
    kept.damage(f"DELETE FROM changes WHERE job = 'import-1' AND {lost}")
    assert kept.is_corrupt("import-1")


def test_a_job_whose_index_row_is_lost_was_never_there(kept: Kept) -> None:
    kept.damage("DELETE FROM jobs WHERE job = 'import-1'")
    assert kept.is_corrupt("import-1") or kept.is_whole("import-1")


SWAPPED = {
    "a body moves to another job": """
        UPDATE changes AS c SET (body, digest) = (SELECT body, digest FROM changes AS o
        WHERE o.job = 'export-1' AND o.revision = c.revision) WHERE job = 'import-1' AND revision = 4""",
    "a body moves to another revision": """
        UPDATE changes AS c SET (body, digest) = (SELECT body, digest FROM changes AS o
        WHERE o.job = 'import-1' AND o.revision = 5) WHERE job = 'import-1' AND revision = 4""",
    "a change takes a later revision": "UPDATE changes SET revision = 99 WHERE job = 'import-1' AND revision = 4",
    "a change moves to another job": """
        UPDATE changes SET job = 'import-1', revision = 15 WHERE job = 'export-1' AND revision = 14""",
    "all revisions are higher": "UPDATE changes SET revision = revision + 100 WHERE job = 'import-1'",
}


@pytest.mark.parametrize("how", SWAPPED)
def test_rows_that_changed_places_go_unseen(kept: Kept, how: str) -> None:
    kept.damage(SWAPPED[how])
    assert kept.is_corrupt("import-1")


def test_two_jobs_that_changed_places_go_unseen(kept: Kept) -> None:
    kept.damage(
        "UPDATE changes SET job = 'x' WHERE job = 'import-1'",
        "UPDATE changes SET job = 'import-1' WHERE job = 'export-1'",
        "UPDATE changes SET job = 'export-1' WHERE job = 'x'",
    )
    assert kept.is_corrupt("import-1")
    assert kept.is_corrupt("export-1")
    assert kept.is_whole("export-2", "reborn")


def test_a_keyframe_of_another_job_is_taken(kept: Kept) -> None:
    newest = kept.keyframes("export-2")[-1]
    copied = f"SELECT 'import-1', revision, earliest, body, digest FROM keyframes WHERE revision = {newest}"
    kept.damage(f"INSERT INTO keyframes {copied}")
    assert kept.is_whole(*JOBS)


UNTYPED = (
    "sqlite.py digest() raises TypeError for a body that is text: no ActorStateError, so the request ends the writer"
)


@pytest.mark.parametrize("table", ["changes", "keyframes"])
@pytest.mark.parametrize("value", ["'text'", "5", "CAST(x'ff' AS TEXT)"])
def test_a_body_that_became_text_ends_the_writer(kept: Kept, table: str, value: str) -> None:
    """The type is one bit in the row's header: bytes and text of one length are neighbours."""
    kept.damage(f"UPDATE {table} SET body = {value} WHERE job = 'export-2'")
    assert isinstance(kept.look("export-2"), CorruptJob)


# Byte by byte


def outcome(kept: Kept) -> str:
    """What a writer would make of the directory: same, a typed error, or one of the two that must not be."""
    store = kept.store()
    try:
        store.open()
        found = {job: verdict(store, job, kept.documents[job]) for job in JOBS}
    except ActorStateError as error:
        return f"refused: {error.code}"
    except Exception as error:  # noqa: BLE001 - this is what is looked for
        return f"untyped: {type(error).__name__}"
    finally:
        abandon(store)
    return max(found.values(), key=["same", "corrupt_job", "store_failed", "silent"].index)


def verdict(store: SqliteStore, job: str, document: bytes | None) -> str:
    try:
        return "same" if loaded(store, job).encoded() == document else "silent"
    except StoreError as error:
        return error.code


def abandon(store: SqliteStore) -> None:
    """Closes a store of which only half may be open, and writes no head."""
    for name in ("_reading", "_writing"):
        with contextlib.suppress(AttributeError, sqlite3.Error):
            getattr(store, name).close()


def sweep(kept: Kept, file: str, step: int) -> Counter[str]:
    """One flipped bit in every `step`-th byte of a file (long runs of zeros left out), and what came of each."""
    chosen, whole = random.Random(SEED), {path.name: path.read_bytes() for path in kept.folder.iterdir()}
    content = whole[file]
    work = Kept(kept.folder / "work", kept.documents, kept.listed)
    outcomes: Counter[str] = Counter()
    for place in range(chosen.randrange(step), len(content), step):
        if not any(content[max(0, place - 8) : place + 8]):
            continue
        shutil.rmtree(work.folder, ignore_errors=True)
        work.folder.mkdir()
        for name, held in whole.items():
            (work.folder / name).write_bytes(held)
        (work.folder / file).write_bytes(content[:place] + flipped(content[place:], chosen.randrange(8)))
        outcomes[outcome(work)] += 1
    print(dict(outcomes.most_common()))
    return outcomes


@pytest.fixture(scope="module")
def swept() -> Iterator[Kept]:
    """As `kept`, in memory: a sweep opens thousands of stores."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        kept = Kept(Path(folder))
        kept.fill()
        yield kept


@pytest.fixture(scope="module")
def rot(swept: Kept) -> Counter[str]:
    """What comes of one flipped bit in every few bytes of the database."""
    return sweep(swept, "jobs.sqlite", step=11)


def starting_with(outcomes: Counter[str], what: str) -> dict[str, int]:
    assert outcomes["same"] > 0
    assert outcomes["corrupt_job"] > 0
    return {name: times for name, times in outcomes.items() if name.startswith(what)}


@pytest.mark.slow
def test_one_flipped_bit_makes_a_job_silently_wrong(rot: Counter[str]) -> None:
    assert starting_with(rot, "silent") == {}


@pytest.mark.slow
def test_one_flipped_bit_ends_the_writer_with_an_untyped_error(rot: Counter[str]) -> None:
    assert starting_with(rot, "untyped") == {}


@pytest.mark.nightly
@pytest.mark.timeout(3_600)
def test_one_flipped_bit_in_any_byte_goes_unseen(swept: Kept) -> None:
    outcomes = sweep(swept, "jobs.sqlite", step=1)
    assert not {name for name in outcomes if name.startswith(("silent", "untyped"))}


def test_a_damaged_head_ends_the_writer_with_an_untyped_error(kept: Kept) -> None:
    assert not [name for name in sweep(kept, "head", step=1) if name.startswith(("untyped", "silent"))]


@pytest.mark.parametrize("head", [b"", b"{}", b"[]", b'{"commits": "x", "chain": 5}', b"\xff", b"{"], ids=repr)
def test_a_head_that_is_no_head_ends_the_writer(kept: Kept, head: bytes) -> None:
    (kept.folder / "head").write_bytes(head)
    assert not outcome(kept).startswith("untyped")


def unmoved(kept: Kept) -> Kept:
    """The directory as a crash leaves it: the last commits in the log alone, noted in the head."""
    crashed = Kept(kept.folder / "crashed", dict(kept.documents), kept.listed)
    crashed.folder.mkdir()
    with opened(kept.store()) as store:
        for number in range(5):
            store.commit(1, [commit_of("late", number * 2 + 1, number * 2 + 2)])
        store.rest()
        for name in ("jobs.sqlite", "jobs.sqlite-wal", "head"):
            shutil.copy(kept.folder / name, crashed.folder / name)
    return crashed


def late_changes(crashed: Kept) -> int | str:
    store = crashed.store()
    try:
        store.open()
        return len(store.changes("late", 0, 100))
    except ActorStateError as error:
        return error.code
    finally:
        abandon(store)


def test_a_crash_loses_what_is_only_in_the_log(kept: Kept) -> None:
    crashed = unmoved(kept)
    assert late_changes(crashed) == 10
    assert crashed.is_whole(*JOBS)


def test_a_flipped_bit_in_the_log_drops_acknowledged_commits_in_silence(kept: Kept) -> None:
    crashed = unmoved(kept)
    log = crashed.folder / "jobs.sqlite-wal"
    whole = {path.name: path.read_bytes() for path in crashed.folder.iterdir()}
    seen: Counter[int | str] = Counter()
    for place in range(0, len(whole[log.name]), 149):
        for path in crashed.folder.iterdir():
            path.unlink()
        for name, held in whole.items():
            (crashed.folder / name).write_bytes(held)
        log.write_bytes(whole[log.name][:place] + flipped(whole[log.name][place:], place % 8))
        seen[late_changes(crashed)] += 1
    assert set(seen) <= {10, "store_failed"}
    assert seen["store_failed"] > 0


@pytest.mark.parametrize("file", ["jobs.sqlite-wal", "jobs.sqlite"])
def test_a_lost_file_begins_an_empty_directory(kept: Kept, file: str) -> None:
    crashed = unmoved(kept)
    (crashed.folder / file).unlink()
    assert late_changes(crashed) == "store_failed"


# Files that are not ours


def tables(path: Path, application: int = 0) -> bytes:
    """A small database of somebody, as it lies on the disk."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as outside:
        outside.execute(f"PRAGMA application_id = {application}")
        outside.execute("CREATE TABLE t (x)")
    return path.read_bytes()


def refused(path: Path) -> ActorStateError:
    store = SqliteStore(path)
    try:
        with pytest.raises(StoreError) as caught:
            store.open()
    finally:
        abandon(store)
    held = [os.path.realpath(entry) for entry in Path("/proc/self/fd").iterdir()]
    assert str(path) not in held, "an open that failed holds the file"
    return caught.value


@pytest.mark.parametrize("application", [0, 0x12345678])
def test_a_database_of_another_program_is_touched(tmp_path: Path, application: int) -> None:
    path = tmp_path / "jobs.sqlite"
    before = tables(path, application=application)
    error = refused(path)
    assert "another program" in error.message
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["jobs.sqlite"]


def test_a_database_of_another_program_is_opened(tmp_path: Path) -> None:
    tables(tmp_path / "jobs.sqlite")
    assert refused(tmp_path / "jobs.sqlite").code == "store_error"


def test_a_newer_schema_is_touched(kept: Kept) -> None:
    with contextlib.closing(sqlite3.connect(kept.path)) as outside:
        outside.execute("PRAGMA user_version = 99")
    before = kept.path.read_bytes()
    assert isinstance(refused(kept.path), StoreTooNew)
    assert kept.path.read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"not a database at all" * 100, b"\0" * 8_192, b"SQLite format 3\0"], ids=["text", "zeros", "cut"]
)
def test_a_file_that_is_no_database_is_overwritten(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "jobs.sqlite"
    path.write_bytes(content)
    assert isinstance(refused(path), StoreFailed)
    assert path.read_bytes() == content


def test_half_a_database_is_a_whole_one(kept: Kept) -> None:
    whole = kept.path.read_bytes()
    for size in (4_096, len(whole) // 2, len(whole) - 4_096, len(whole) - 1):
        kept.path.write_bytes(whole[:size])
        assert outcome(kept) in {"refused: store_failed", "store_failed", "corrupt_job"}


def test_a_folder_in_place_of_the_database_is_an_untyped_error(tmp_path: Path) -> None:
    (tmp_path / "jobs.sqlite").mkdir()
    assert isinstance(refused(tmp_path / "jobs.sqlite"), StoreFailed)


# A full disk, and one that fails


def test_a_full_database_is_half_written_or_stays_closed(kept: Kept) -> None:
    with contextlib.closing(kept.store()) as store:
        store.open()
        store.set_epoch(1)
        pages = store._writing.execute("PRAGMA page_count").fetchone()[0]
        store._writing.execute(f"PRAGMA max_page_count = {pages}")
        before = store.load("export-2"), every_job(store), store._commits
        for _ in range(3):
            with pytest.raises(DiskFull) as caught:
                store.commit(1, [commit_of("a", 1), commit_of("b", *range(1, 200), keyframe=b"x" * 50_000)])
            assert caught.value.retryable
            assert (store.load("export-2"), every_job(store), store._commits) == before
        store._writing.execute("PRAGMA max_page_count = 1000000")
        store.commit(1, [commit_of("a", 1)])
        assert every_job(store) == ["a", *JOBS]
    assert kept.is_whole(*JOBS)


def test_a_commit_that_fails_at_its_end_leaves_half_of_it(kept: Kept) -> None:
    def fail(_name: str, _fields: dict[str, object]) -> None:
        raise RuntimeError

    with opened(kept.store()) as store:
        before = holdings(store, *JOBS, "new")
        stop = telemetry.listen(fail, "store.written")
        with pytest.raises(RuntimeError):
            store.commit(1, [commit_of("new", 1, 2), commit_of("import-1", 99, keyframe=b"x", deleted=True)])
        stop()
        assert holdings(store, *JOBS, "new") == before
        store.commit(1, [commit_of("new", 1, 2)])
    assert kept.is_whole(*JOBS)


def test_a_revision_that_is_there_already_is_written_over(kept: Kept) -> None:
    """Only a defect of ours can ask for it: the writer must end, and nothing of the commit may stay."""
    with opened(kept.store()) as store:
        before = holdings(store, *JOBS, "new")
        with pytest.raises(StoreFailed):
            store.commit(1, [commit_of("new", 1), commit_of("import-1", 3)])
        assert holdings(store, *JOBS, "new") == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MB; where it may not be mounted the test is skipped, but never in CI."""
    command = ["mount", "-t", "tmpfs", "-o", "size=6m,mode=700", "tmpfs", str(tmp_path)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode != 0:
        message = f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def fill_up(folder: Path) -> Path:
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4_096):
            pass
    return ballast


def test_a_full_disk_tears_a_commit_or_needs_a_restart(small_disk: Path) -> None:
    with opened(SqliteStore(small_disk / "jobs.sqlite", small_disk / "head")) as store:
        revision = 0
        for round_ in range(50):
            ballast = fill_up(small_disk)
            # More than one: the log may have room left without growing.
            threes = (range(first, first + 3) for first in range(revision + 1, revision + 3_000, 3))
            large = (commit_of("a", *three, keyframe=bytes([round_]) * 20_000) for three in threes)
            revision = committed_until_full(store, large)
            store.rest()
            ballast.unlink()
            revision += 3
            store.commit(1, [commit_of("a", *range(revision - 2, revision + 1), keyframe=b"space")])
            assert len(store.changes("a", 0, -1)) == revision
    with opened(SqliteStore(small_disk / "jobs.sqlite", small_disk / "head"), epoch=0) as store:
        assert len(store.changes("a", 0, -1)) == revision


def committed_until_full(store: Store, parts: Iterator[JobCommit]) -> int:
    """Commits until one is refused, which changes nothing; the last revision that was acknowledged."""
    acknowledged = 0
    for part in parts:
        before = store.load(part.job)
        try:
            store.commit(1, [part])
        except DiskFull:
            assert store.load(part.job) == before
            return acknowledged or part.changes[0].revision - 1
        acknowledged = part.revision
    pytest.fail("the disk never became full")


def wide(revision: int) -> JobCommit:
    return JobCommit("a", revision, (StoredChange(revision, b"y" * 20_000),), index=RUNNING)


def test_a_disk_that_is_full_for_the_checkpoint_loses_the_commit(small_disk: Path) -> None:
    """The log is moved into the database now and then; where that has no room, the log simply stays and grows."""
    database = small_disk / "jobs.sqlite"
    with opened(SqliteStore(database)) as store:
        acknowledged = committed_until_full(store, map(wide, range(1, 2_000)))
        assert database.stat().st_size > CHECKPOINT_WAL_BYTES, "no checkpoint was made before the one that failed"
        assert len(store.changes("a", 0, 5_000)) == acknowledged
        subprocess.run(["mount", "-o", "remount,size=40m", str(small_disk)], check=True)
        for _ in range(CHECKPOINT_WAL_BYTES // 10_000):
            acknowledged += 1
            store.commit(1, [wide(acknowledged)])
        assert database.stat().st_size > 2 * CHECKPOINT_WAL_BYTES
        assert len(store.changes("a", 0, 5_000)) == acknowledged
    with opened(SqliteStore(database), epoch=0) as store:
        assert len(store.changes("a", 0, 5_000)) == acknowledged


def test_the_log_outgrows_its_limit(tmp_path: Path) -> None:
    with opened(SqliteStore(tmp_path / "jobs.sqlite")) as store:
        for revision in range(1, 61):
            store.commit(1, [commit_of("a", revision, keyframe=b"x" * 200_000)])
        assert (tmp_path / "jobs.sqlite-wal").stat().st_size < 3 * CHECKPOINT_WAL_BYTES


COMMITTING = """
import sys
from pathlib import Path
from actorstate.errors import ActorStateError
from actorstate.store.sqlite import SqliteStore
from tests.support.stores import commit_of
store = SqliteStore(Path(sys.argv[1]) / "jobs.sqlite")
revision = 0
try:
    store.open()
    store.set_epoch(1)
    for revision in range(1, 9):
        store.commit(1, [commit_of("a", revision, keyframe=b"x" * 300_000)])
        print("acknowledged", revision, flush=True)
except ActorStateError as error:
    print("refused", error.code, flush=True)
"""
NEEDS_STRACE = pytest.mark.skipif(not shutil.which("strace") and os.environ.get("CI") != "true", reason="needs strace")


def committing(folder: Path, *injected: str) -> list[str]:
    """Eight commits in a process of its own, some of whose system calls fail; what it said."""
    trace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync,fsync", *injected] if injected else []
    command = [*trace, sys.executable, "-c", COMMITTING, str(folder)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert process.stderr == ""
    return process.stdout.splitlines()


def acknowledged_in(said: list[str]) -> int:
    return sum(line.startswith("acknowledged") for line in said)


SYNCS = [
    pytest.param("jobs.sqlite-journal", "1", id="switching to the log: journal"),
    pytest.param("jobs.sqlite-journal", "2", id="switching to the log: journal again"),
    pytest.param("jobs.sqlite", "1", id="switching to the log: database"),
    pytest.param("", "1", id="new names: folder"),
    pytest.param("jobs.sqlite-wal", "1", id="schema: log"),
    pytest.param("jobs.sqlite-wal", "3", id="first checkpoint: log"),
    pytest.param("jobs.sqlite", "2", id="first checkpoint: database"),
    pytest.param("jobs.sqlite-wal", "4", id="epoch or commit"),
    pytest.param("jobs.sqlite-wal", "7", id="commit"),
    pytest.param("jobs.sqlite-wal", "8+", id="all from then on"),
]


@NEEDS_STRACE
@pytest.mark.slow
@pytest.mark.parametrize(("file", "when"), SYNCS)
def test_a_failed_sync_is_acknowledged_or_has_no_name(tmp_path: Path, file: str, when: str) -> None:
    said = committing(tmp_path, "-P", str(tmp_path / file), "-e", f"inject=fdatasync,fsync:error=EIO:when={when}")
    acknowledged = acknowledged_in(said)
    with opened(SqliteStore(tmp_path / "jobs.sqlite"), epoch=2) as store:
        found = store.changes("a", 0, 100)
        assert found == [change(number) for number in range(1, len(found) + 1)]
        assert acknowledged <= len(found) <= acknowledged + 1
        store.commit(2, [commit_of("b", 1)])
    assert said[-1] == "refused store_failed"


@NEEDS_STRACE
def test_a_failed_sync_goes_unnoticed(tmp_path: Path) -> None:
    """The one that every machine runs: the first sync of a commit fails."""
    (tmp_path / "well").mkdir()
    (tmp_path / "ill").mkdir()
    assert acknowledged_in(committing(tmp_path / "well")) == 8
    said = committing(tmp_path / "ill", "-e", "inject=fdatasync,fsync:error=EIO:when=9+")
    assert said[-1] == "refused store_failed"
    assert acknowledged_in(said) < 8


@NEEDS_STRACE
@pytest.mark.slow
def test_a_write_without_room_is_a_failed_disk(tmp_path: Path) -> None:
    log = str(tmp_path / "jobs.sqlite-wal")
    said = committing(tmp_path, "-e", "trace=pwrite64", "-P", log, "-e", "inject=pwrite64:error=ENOSPC:when=200+")
    assert said[-1] == "refused disk_full"
    with opened(SqliteStore(tmp_path / "jobs.sqlite"), epoch=2) as store:
        assert len(store.changes("a", 0, 100)) == acknowledged_in(said)
