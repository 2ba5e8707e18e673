"""Deleting in the target what the source does not have: found, shown, approved, and only that deleted.

detecting ─▶ the keys are saved in the job ─▶ approval ─▶ deleting, batch by batch
             (the question has their digest)              (none that the source has by now)
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import NamedTuple, cast

from actorstate.client.exits import postponed
from actorstate.client.run import Run
from actorstate.core.messages.document import JobState
from actorstate.migrate.items.course import reached
from actorstate.migrate.items.rules import Migration, known_items
from actorstate.migrate.items.shape import Item, Purgeable

FROZEN = "delete-"
"""The checkpoints that have the keys: `delete-0` and so on."""
PIECE_BYTES = 128 * 1024
MAX_PIECES = 4
"""Keys beyond so many pieces are counted, said, and left for the next migration."""
LEFT = "delete-left"
"""The checkpoint that has the number of those."""
SHOWN = 8
HEED_EVERY = 1_000


def delete_missing(migration: Migration, run: Run) -> None:
    """Deletes what was found and approved. Raises JobCancelled, SourceUnreadable, TargetFailed."""
    target = migration.target
    if not isinstance(target, Purgeable):
        return
    run.step("delete")
    run.phase("detecting")
    found = _frozen(run.resume_from_name) or _freeze(run, target.surplus(_items(migration, run)))
    reached("frozen")
    if found.keys:
        run.wait_for_approval(_question(migration, found))
        run.phase("deleting")
        _delete(migration, run, target, found.keys)
    told = {"approved": len(found.keys), "deleted": _gone(migration, found.keys), "left": found.left}
    run.step("delete", "done", told)
    run.flush()


class Found(NamedTuple):
    """The keys that are to be approved, and how many more there are than one migration deletes."""

    keys: list[str]
    left: int


def frozen(state: JobState) -> Found | None:
    """What was found in the target alone; None while it has not been looked for."""
    return _frozen(lambda name: state.checkpoints[name].data if name in state.checkpoints else None)


def deleted_in(state: JobState) -> dict[str, int] | None:
    """How many were approved, deleted (the target does not have them any more) and left; None before the end."""
    told = next((step.data for step in state.steps if step.name == "delete"), None)
    return None if told is None else cast("dict[str, int]", told)


def _question(migration: Migration, found: Found) -> str:
    digest = hashlib.sha256("\n".join(found.keys).encode()).hexdigest()[:12]
    shown = ", ".join(found.keys[:SHOWN]) + (", ..." if len(found.keys) > SHOWN else "")
    left = f"; {found.left:,} more are left for another time" if found.left else ""
    return (
        f"delete {len(found.keys):,} items of {migration.target_name or 'the target'} that "
        f"{migration.source_name or 'the source'} does not have (set {digest}{left}): {shown}"
    )


def _frozen(saved: Callable[[str], object]) -> Found | None:
    """All pieces; the first one is saved last, so that without it there is none."""
    if saved(f"{FROZEN}0") is None:
        return None
    pieces = (saved(f"{FROZEN}{number}") for number in range(MAX_PIECES))
    keys = [key for piece in pieces for key in cast("list[str]", piece or [])]
    return Found(keys, cast("int", saved(LEFT) or 0))


def _freeze(run: Run, keys: Iterator[str]) -> Found:
    pieces: list[list[str]] = [[]]
    size = left = 0
    for key in keys:
        size += len(key.encode()) + 5
        if size > PIECE_BYTES and len(pieces) < MAX_PIECES:
            pieces.append([])
            size = len(key.encode()) + 5
        if size > PIECE_BYTES:
            left += 1
        else:
            pieces[-1].append(key)
    run.checkpoint(left, name=LEFT)
    for number, piece in reversed(list(enumerate(pieces))):
        run.checkpoint(piece, name=f"{FROZEN}{number}")
    return Found([key for piece in pieces for key in piece], left)


def _delete(migration: Migration, run: Run, target: Purgeable, keys: list[str]) -> None:
    surplus = set(target.surplus(_items(migration, run)))
    size = migration.rules.batch_size
    for at in range(0, len(keys), size):
        run.heed()
        with postponed():
            target.delete([key for key in keys[at : at + size] if key in surplus])
            reached("deleted")


def _items(migration: Migration, run: Run) -> Iterator[Item]:
    """What the source has; pause and cancel are honoured on the way."""
    for number, item in enumerate(known_items(migration)):
        if number % HEED_EVERY == 0:
            run.heed()
        yield item


def _gone(migration: Migration, keys: list[str]) -> int:
    """How many of them the target does not have: counted at the end, so that a crash on the way changes nothing."""
    name = migration.rules.mapping.name(migration.rules.key)
    return sum(seen is None for seen in migration.target.look([Item(key, {name: key}, "") for key in keys]))
