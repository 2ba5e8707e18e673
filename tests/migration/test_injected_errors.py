"""Errors put under the migration at its system calls: the next run still leaves one good state."""

from pathlib import Path

import pytest

from tests.support.migration import Case, Stage
from tests.support.syscalls import Hit, hits, injected

FULL = {"write", "pwrite64", "fsync", "rename", "link", "mkdir", "sendfile", "copy_file_range"}
"""Calls that a full disk may answer with ENOSPC."""
CASES = [
    pytest.param(Case(wal=True, images=True, other_disk=True), False, id="other disk", marks=pytest.mark.slow),
    pytest.param(Case(wal=True, images=True, other_disk=True), True, id="other disk, all", marks=pytest.mark.nightly),
    pytest.param(Case(wal=True, images=True), True, id="same disk, all", marks=pytest.mark.nightly),
]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("stage", "thorough"), CASES, indirect=["stage"])
def test_an_error_of_a_system_call_loses_something_or_leaves_two_states(stage: Stage, tmp_path: Path, thorough) -> None:
    first: dict[tuple[str, str], Hit] = {}
    for hit in hits(stage.run_here, stage.data, tmp_path / "log"):
        first.setdefault((hit.call, hit.role), hit)
    assert len(first) > 40
    for hit in first.values():
        for error in errors_of(hit, thorough=thorough):
            stage.set_up()
            assert injected(stage.run_here, tmp_path / "hit", hit, f"error={error}") == 0, hit
            stage.check_migrated()


def errors_of(hit: Hit, *, thorough: bool) -> tuple[str, ...]:
    """On each push one a call and kind of file, at night all that the call can answer."""
    possible = ("ENOSPC", "EIO") if hit.call in FULL else ("EIO",)
    return possible if thorough else possible[:1]
