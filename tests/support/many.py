"""A great many stored jobs, fast: through the contract of the stores, a few thousand to a commit."""

from collections.abc import Iterator
from datetime import timedelta

from msgspec.structs import replace

from actorstate.core import codec
from actorstate.core.messages.document import Document, Status
from actorstate.core.messages.replies import Change, Keyframe
from actorstate.core.messages.requests import CreateJob
from actorstate.store.contract import IndexRow, JobCommit, Store, StoredChange
from tests.support.core import EPOCH, START, a_job

JOBS_AT_ONCE = 2_000
KINDS = ("orders", "files", "users", "images")
STATUSES: tuple[Status, ...] = ("completed", "completed", "completed", "failed", "pending", "paused", "cancelled")


def job_name(number: int) -> str:
    return f"job-{number:06}"


def job_of(number: int) -> Document:
    """The job of this number: kinds and statuses take turns, each was created a second after the one before."""
    status, at = STATUSES[number % len(STATUSES)], START + timedelta(seconds=number)
    return replace(
        a_job(status, workers={}, revision=1),
        id=job_name(number),
        kind=KINDS[number // len(STATUSES) % len(KINDS)],
        created_at=at,
        updated_at=at,
    )


def store_jobs(store: Store, count: int, *, epoch: int = EPOCH) -> None:
    """Stores the jobs 0 to `count` - 1, with a keyframe each; the store has this epoch afterwards."""
    store.set_epoch(epoch)
    for first in range(0, count, JOBS_AT_ONCE):
        store.commit(epoch, list(_parts(range(first, min(count, first + JOBS_AT_ONCE)), epoch)))


def _parts(numbers: range, epoch: int) -> Iterator[JobCommit]:
    for number in numbers:
        job = job_of(number)
        change = codec.encode(Change(1, epoch, job.created_at, CreateJob(job.id, job.kind)))
        index = IndexRow(job.kind, job.status, "", job.created_at.timestamp())
        yield JobCommit(job.id, 1, (StoredChange(1, change),), codec.encode(Keyframe(1, job)), index)
