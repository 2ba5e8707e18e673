"""A migration that is killed or fails at any named point: the next run leaves one good state and nothing lost."""

from pathlib import Path

import pytest

from tests.support.migration import (
    CASES,
    NEW,
    Case,
    Disks,
    Stage,
    disks,
    failing_at,
    killed_at,
    migrated,
    points_of,
    says,
)

__all__ = ["disks"]

EVERYDAY = Case(wal=True, images=True, other_disk=True)
EVERY_CASE = [pytest.param(case, marks=[] if case == EVERYDAY else pytest.mark.slow, id=str(case)) for case in CASES]


@pytest.fixture
def stage(request: pytest.FixtureRequest, tmp_path: Path, disks: Disks) -> Stage:
    stage = Stage(tmp_path / "disk/data", request.param, disks)
    stage.prepare()
    return stage


@pytest.mark.parametrize("stage", EVERY_CASE, indirect=True)
def test_a_kill_at_a_named_point_loses_rows_or_images_or_leaves_two_states(stage: Stage) -> None:
    points = points_of(stage.run)
    assert len(points) > 20
    for number in range(len(points)):
        stage.set_up()
        killed_at(number, stage.run)
        stage.check_migrated()


@pytest.mark.parametrize("stage", EVERY_CASE, indirect=True)
def test_an_error_at_a_named_point_leaves_the_user_half_way(stage: Stage) -> None:
    points = points_of(stage.run)
    for number, point in enumerate(points):
        stage.set_up()
        with failing_at(number, OSError(5, "injected")):
            report = migrated(stage.data)
        if point.startswith(("remove", "done")):
            assert (stage.folder / NEW).exists()
        else:
            assert [one.result for one in report.users] == ["failed"], (point, report)
            assert says(stage.folder) == stage.before, point
            assert not (stage.folder / NEW).exists()
        stage.check_migrated()


@pytest.mark.parametrize("stage", [pytest.param(EVERYDAY, id=str(EVERYDAY))], indirect=True)
def test_a_kill_while_an_interrupted_run_is_finished_loses_something(stage: Stage) -> None:
    points = points_of(stage.run)
    for first in (points.index("stage.ended"), points.index("switch.database_placed"), points.index("remove.begun")):
        stage.set_up()
        killed_at(first, stage.run)
        for number in range(0, 40, 3):
            try:
                killed_at(number, stage.run)
            except AssertionError:
                break
        stage.check_migrated()
