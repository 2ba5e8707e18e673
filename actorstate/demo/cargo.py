"""What is migrated, and who does which part of it: the same answer in every process of one demo."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from actorstate.demo.library import SCHEMA, FileTree, standard_library
from actorstate.demo.options import Place
from actorstate.demo.verdict import TableFound
from actorstate.migrate.rowcopy import Group, Part, Range, RowSource, content_of, divide
from actorstate.migrate.sqlitefiles.rows import SqliteSource
from actorstate.migrate.sqlitefiles.tables import Skipped
from actorstate.migrate.sqlitefiles.whole import create_database, create_target, finish_target, snapshot

PARTS_PER_WORKER = 4


def load(place: Place, database: Path | None) -> tuple[Skipped, ...]:
    """Takes the snapshot and makes the empty target; returns what is not migrated, and why."""
    if database is None:
        create_database(place.target, [SCHEMA])
        return ()
    snapshot(database, place.source)
    with SqliteSource(place.source) as source:
        return (*source.skipped, *create_target(source, place.target))


def unload(place: Place) -> tuple[Skipped, ...]:
    """Finishes the target when all rows are in it; returns what could not be made around them."""
    if not place.source.exists():
        return ()
    with SqliteSource(place.source) as source:
        return finish_target(source, place.target)


@contextmanager
def opened_source(place: Place) -> Generator[RowSource]:
    """The snapshot, or the standard library where there is none."""
    if not place.source.exists():
        yield FileTree(standard_library())
        return
    with SqliteSource(place.source) as source:
        yield source


def wanted_groups(source: RowSource, place: Place) -> list[Group]:
    """The source's groups, as far as the target could be given a table for them."""
    with SqliteSource(place.target) as target:
        made = {table.name for table in target.tables}
    return [group for group in source.groups() if group.name in made]


def shares(groups: Sequence[Group], workers: int) -> list[tuple[Part, ...]]:
    """Each worker's parts."""
    parts = divide(groups, workers * PARTS_PER_WORKER)
    return [parts[at::workers] for at in range(workers)]


def compared(place: Place) -> tuple[TableFound, ...]:
    """Every table of the source against the same one of the target, row by row."""
    with opened_source(place) as source, SqliteSource(place.target) as target:
        found = {group.name: group.items for group in target.groups()}
        return tuple(
            _compared(source, target, group, found[group.name]) for group in source.groups() if group.name in found
        )


def _compared(source: RowSource, target: RowSource, group: Group, found: int) -> TableFound:
    expected = content_of(source.items(Range(group.name, 0, group.items)))
    content = content_of(target.items(Range(group.name, 0, found)))
    return TableFound(group.name, expected.items, content.items, content == expected)
