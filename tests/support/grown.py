"""Stores with jobs that have a life behind them, made without a writer."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

from actorstate.core.actor import Actor
from actorstate.core.messages.payload import pack
from actorstate.core.messages.requests import (
    Attach,
    Body,
    Counts,
    CreateJob,
    DeleteJob,
    Detach,
    FinishJob,
    Report,
    Request,
)
from actorstate.store.choice import opened_store
from actorstate.store.contract import JobCommit, Store, StoredChange, StoredItem
from actorstate.store.index import index_of
from actorstate.store.location import Location, located
from tests.support.core import EPOCH, P1, moment

MANY = 1_200
"""Changes of the long job: more than one page."""


def grown(location: str | Path, *, many: int = MANY) -> Location:
    """A store with a long job, short ones, one with items, an ended and a deleted one."""
    place = located(location)
    (place.directory / ".actorstate").mkdir(parents=True, exist_ok=True)
    store = opened_store(place)
    store.open()
    store.set_epoch(EPOCH)
    grow(store, "long", lived(many))
    grow(store, "short", lived(3))
    grow(store, "ended", lived(2, FinishJob("ended", "completed")))
    items = (StoredItem(f"row-{n}", "failed", "network", b"no %d" % n) for n in range(12))
    grow(store, "with-items", lived(2), items=tuple(items))
    grow(store, "deleted", lived(1, Detach("deleted", "w", 1), DeleteJob("deleted")))
    store.close()
    return place


def lived(reports: int, *end: Body) -> Iterator[Body]:
    """A job that is attached to and reports; `job` is filled in by `grow`."""
    yield CreateJob("", kind="orders", total=10**6, meta={"who": pack("me")})
    yield Attach("", "w", "host", 1)
    for number in range(reports):
        saved = {"main": pack({"after": number})} if number % 10 == 0 else {}
        yield Report("", "w", 1, Counts(succeeded=1), checkpoints=saved)
    yield from end


def grow(store: Store, job: str, bodies: Iterator[Body], items: tuple[StoredItem, ...] = ()) -> None:
    """Commits these requests, a hundred at a time, as the writer would."""
    actor, numbers = Actor(job), count(1)
    for number in numbers:
        body = next(bodies, None)
        if body is not None:
            body = type(body)(**{n: getattr(body, n) for n in body.__struct_fields__} | {"job": job})
            actor.propose(Request(number, body, P1, number), moment(number), EPOCH)
        if actor.staged is not None and (body is None or len(actor.staged.changes) >= 100):
            store.commit(EPOCH, [replace(sealed(actor, store, number), items=items)])
            actor.confirm()
        if body is None:
            return


def sealed(actor: Actor, store: Store, seconds: float) -> JobCommit:
    """What the writer would commit of what is staged."""
    staged = actor.seal(moment(seconds), whole=store.whole)
    assert staged is not None
    document, first = staged.document, staged.revision - len(staged.changes) + 1
    changes = tuple(
        StoredChange(first + place, body, moment(seconds).wall) for place, body in enumerate(staged.changes)
    )
    index = index_of(document) if document is not None else None
    return JobCommit(actor.job, staged.revision, changes, staged.keyframe, index, document is None)
