"""Deleting in the target what the source does not have: found, shown, approved, and only that deleted.

detecting ─▶ the keys are saved in the job ─▶ approval ─▶ deleting, batch by batch
             (the question has their digest)              (none that the source has by now)
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import cast

from actorstate import telemetry
from actorstate.client.exits import postponed
from actorstate.client.run import Run
from actorstate.core.messages.document import JobState
from actorstate.migrate.items.course import REACHED
from actorstate.migrate.items.rules import Migration, known_items
from actorstate.migrate.items.shape import Item, Purgeable

FROZEN = "delete-"
"""The checkpoints that have the keys: `delete-0` and so on."""
PIECE_BYTES = 128 * 1024
MAX_PIECES = 4
"""Keys beyond so many pieces are left for the next migration."""
SHOWN = 8
HEED_EVERY = 1_000


def delete_missing(migration: Migration, run: Run) -> None:
    """Deletes what was found and approved. Raises JobCancelled, SourceUnreadable, TargetFailed."""
    target = migration.target
    if not isinstance(target, Purgeable):
        return
    run.step("delete")
    run.phase("detecting")
    keys = _frozen(run.resume_from_name)
    if keys is None:
        keys = _freeze(run, target.surplus(_items(migration, run)))
    _reached("frozen")
    if keys:
        run.wait_for_approval(_question(migration, keys))
        run.phase("deleting")
        _delete(migration, run, target, keys)
    run.step("delete", "done", {"approved": len(keys), "deleted": _gone(migration, keys)})
    run.flush()


def frozen_keys(state: JobState) -> list[str] | None:
    """The keys that were found and are to be approved; None while they have not been looked for."""
    return _frozen(lambda name: state.checkpoints[name].data if name in state.checkpoints else None)


def deleted_in(state: JobState) -> int | None:
    """How many of them the target does not have any more; None before the end."""
    told = next((step.data for step in state.steps if step.name == "delete"), None)
    return None if told is None else cast("dict[str, int]", told)["deleted"]


def _question(migration: Migration, keys: list[str]) -> str:
    digest = hashlib.sha256("\n".join(keys).encode()).hexdigest()[:12]
    shown = ", ".join(keys[:SHOWN]) + (", ..." if len(keys) > SHOWN else "")
    return (
        f"delete {len(keys):,} items of {migration.target_name or 'the target'} that "
        f"{migration.source_name or 'the source'} does not have (set {digest}): {shown}"
    )


def _frozen(saved: Callable[[str], object]) -> list[str] | None:
    """All pieces; the first one is saved last, so that without it there is none."""
    if saved(f"{FROZEN}0") is None:
        return None
    pieces = (saved(f"{FROZEN}{number}") for number in range(MAX_PIECES))
    return [key for piece in pieces for key in cast("list[str]", piece or [])]


def _freeze(run: Run, keys: Iterator[str]) -> list[str]:
    pieces: list[list[str]] = [[]]
    size = 0
    for key in keys:
        size += len(key.encode()) + 5
        if size > PIECE_BYTES:
            pieces.append([])
            size = len(key.encode()) + 5
        if len(pieces) > MAX_PIECES:
            break
        pieces[-1].append(key)
    for number, piece in reversed(list(enumerate(pieces[:MAX_PIECES]))):
        run.checkpoint(piece, name=f"{FROZEN}{number}")
    return [key for piece in pieces[:MAX_PIECES] for key in piece]


def _delete(migration: Migration, run: Run, target: Purgeable, keys: list[str]) -> None:
    surplus = set(target.surplus(_items(migration, run)))
    size = migration.rules.batch_size
    for at in range(0, len(keys), size):
        run.heed()
        with postponed():
            target.delete([key for key in keys[at : at + size] if key in surplus])
            _reached("deleted")


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


def _reached(point: str) -> None:
    if REACHED in telemetry.heard:
        telemetry.event(REACHED, point=point)
