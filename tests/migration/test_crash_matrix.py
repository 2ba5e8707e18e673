"""A migration that is killed or fails at any point: the next run leaves one good state and nothing lost.

There are two ways of killing it: at the points that the code names, on each push, and before each system call that
changes a file, at night. What the first leaves must be among what the second leaves, or a name lies.
"""

from pathlib import Path

import pytest

from actorstate.migrate.journal import read_journal
from actorstate.migrate.rollback import roll_back_all
from actorstate.migrate.run import Watcher
from tests.support.migration import (
    CASES,
    HASTY,
    NEW,
    OLD,
    Case,
    Stage,
    failing_at,
    killed_at,
    migrated,
    points_of,
    says,
)
from tests.support.syscalls import hits, injected

EVERYDAY = Case(wal=True, images=True, other_disk=True)
EVERY_CASE = [pytest.param(case, marks=[] if case == EVERYDAY else pytest.mark.slow, id=str(case)) for case in CASES]
WITH_IMAGES = [one if case.images else pytest.param(case, marks=pytest.mark.nightly, id=str(case))
               for case, one in zip(CASES, EVERY_CASE, strict=True)]  # fmt: skip
"""An error meets all that a database alone has in these cases too; the others have their turn at night."""


def undisturbed(stage: Stage) -> tuple[list[str], str]:
    """The named points of a run, and the state it comes to."""
    stage.set_up()
    return points_of(stage.run), stage.ended()


@pytest.mark.parametrize("stage", EVERY_CASE, indirect=True)
def test_a_kill_at_a_named_point_loses_rows_or_images_or_leaves_two_states(stage: Stage) -> None:
    points, end = undisturbed(stage)
    assert len(points) > 20
    for number, point in enumerate(points):
        stage.set_up()
        killed_at(number, stage.run)
        stage.check_migrated()
        assert stage.ended() == end, point


@pytest.mark.nightly
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("stage", [pytest.param(case, id=str(case)) for case in CASES], indirect=True)
def test_the_two_ways_of_killing_do_not_come_to_the_same_states(stage: Stage, tmp_path: Path) -> None:
    points, end = undisturbed(stage)
    left_by_points, left_by_calls = set(), {stage.left()}  # after the last call nothing is left to kill
    ends_by_points, ends_by_calls = set(), set()
    for number in range(len(points)):
        stage.set_up()
        killed_at(number, stage.run)
        left_by_points.add(stage.left())
        stage.check_migrated()
        ends_by_points.add(stage.ended())
    stage.set_up()
    everything = list(hits(stage.run_here, stage.data, tmp_path / "log"))
    assert len(everything) > 60
    for hit in everything:
        stage.set_up()
        assert injected(stage.run_here, tmp_path / "hit", hit, "signal=KILL") == -9, hit
        left_by_calls.add(stage.left())
        stage.check_migrated()
        ends_by_calls.add(stage.ended())
    assert ends_by_points == ends_by_calls == {end}
    assert left_by_points <= left_by_calls, "a named point is passed in a state that no system call is made in"
    print(f"\n{stage.case}: {len(points)} points, {len(everything)} calls, {len(left_by_points)} and "
          f"{len(left_by_calls)} different states left, {len(ends_by_calls)} end state")  # fmt: skip


@pytest.mark.parametrize("stage", WITH_IMAGES, indirect=True)
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
def test_a_backup_that_no_journal_told_of_is_forgotten(stage: Stage) -> None:
    point = points_of(stage.run).index("backup.ended")
    stage.set_up()
    killed_at(point, stage.run)
    assert read_journal(stage.folder).backups == ()  # type: ignore[union-attr]
    roll_back_all(stage.data, Watcher(), HASTY)
    kept = read_journal(stage.folder)
    assert kept is not None
    assert (kept.state, kept.backups) == ("undone", (f"{OLD}.pre-migration-backup",))


@pytest.mark.parametrize("stage", [pytest.param(EVERYDAY, id=str(EVERYDAY))], indirect=True)
def test_a_run_that_had_verified_everything_goes_back_for_want_of_its_backup(stage: Stage) -> None:
    point = points_of(stage.run).index("remove.database_gone")
    stage.set_up()
    killed_at(point, stage.run)
    (stage.folder / f"{OLD}.pre-migration-backup").unlink()
    assert migrated(stage.data).counts == {"migrated": 1}
    assert says(stage.folder) == stage.before


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
