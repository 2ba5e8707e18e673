"""What several tests of the migration stand on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.migration import Disks, Stage


@pytest.fixture
def disks() -> Iterator[Disks]:
    """Small file systems that are unmounted when the test ends."""
    disks = Disks()
    yield disks
    disks.unmount_below(Path("/"))


@pytest.fixture
def stage(request: pytest.FixtureRequest, tmp_path: Path, disks: Disks) -> Stage:
    """DATA with one user of the case that the test is parametrized with."""
    stage = Stage(tmp_path / "disk/data", request.param, disks)
    stage.prepare()
    return stage
