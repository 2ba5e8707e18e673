"""The mirror's copy without a writer: what it holds, what it must look at, and that it never goes back."""

import pytest
from msgspec.structs import replace

from actorstate.client.mirror import copy as copies
from actorstate.client.mirror.copy import Copy, mirror
from actorstate.core import codec
from actorstate.core.messages.replies import JobsChanged
from actorstate.errors import BadJobId
from tests.support.core import JOB, a_job


def a_copy(jobs=None, max_jobs=10):
    return Copy(mirror(jobs, max_jobs=max_jobs), "jobs")


def state(revision, status="running", *, epoch=7, job=JOB):
    document = replace(a_job(status), id=job, revision=revision, epoch=epoch)
    return codec.decode_state(codec.encode(document))


def test_a_late_answer_takes_the_copy_back():
    copy = a_copy()
    for each in (state(5), state(4), state(9, epoch=6)):
        copy.take(each)
        assert copy.held[JOB].revision == 5
    copy.take(state(6))
    copy.take(state(3, epoch=8))
    assert (copy.held[JOB].epoch, copy.held[JOB].revision) == (8, 3)


@pytest.mark.parametrize(
    ("second", "continues"),
    [
        (JobsChanged(7, 3, {JOB: 9}), True),
        (JobsChanged(7, 2), True),
        (JobsChanged(7, 4, {JOB: 9}), False),
        (JobsChanged(7, 3), False),
        (JobsChanged(8, 3, {JOB: 9}), False),
        (JobsChanged(8, 1), False),
        (JobsChanged(6, 9, {JOB: 9}), True),
    ],
    ids=["next", "beat", "gap", "loss seen by a beat", "new epoch", "beat of a new epoch", "of a replaced writer"],
)
def test_a_gap_in_the_feed_is_overlooked(second, continues):
    copy = a_copy()
    assert not copy.hear(JobsChanged(7, 2, {JOB: 5}))
    assert copy.hear(second) == continues


def test_a_fact_of_a_replaced_writer_is_waited_for():
    copy = a_copy()
    copy.hear(JobsChanged(8, 1))
    copy.hear(JobsChanged(7, 9, {JOB: 99}))
    assert copy.awaited == {}
    assert copy.position == (8, 1)


def test_what_changed_is_fetched_twice_or_never():
    copy = a_copy()
    copy.hear(JobsChanged(7, 1, {JOB: 5}))
    copy.take(state(4))
    assert copy.awaited == {JOB: 5}
    copy.take(state(5))
    copy.hear(JobsChanged(7, 2, {JOB: 5}))
    assert copy.awaited == {}


def test_jobs_beyond_its_scope_are_held():
    named, small = a_copy([JOB]), a_copy(max_jobs=1)
    for copy in (named, small):
        copy.take(state(5))
        copy.take(state(5, job="other"))
        assert set(copy.held) == {JOB}
    named.hear(JobsChanged(7, 1, {"other": 6}))
    assert named.awaited == {}
    with pytest.raises(BadJobId):
        mirror(["no id"])


def test_finished_jobs_fill_the_memory(monkeypatch):
    monkeypatch.setattr(copies, "KEPT_FINISHED", 3)
    copy = a_copy(max_jobs=100)
    copy.take(state(5, "completed", job="ended-before"))
    assert not copy.held
    for number in range(10):
        copy.take(state(5, job=f"job-{number}"))
        copy.take(state(6, "completed", job=f"job-{number}"))
    assert set(copy.held) == {"job-7", "job-8", "job-9"}
    copy.take(state(7, job="job-7"))
    copy.take(state(7, job="job-0"))
    copy.take(state(8, "completed", job="job-0"))
    assert set(copy.held) == {"job-0", "job-7", "job-8", "job-9"}
