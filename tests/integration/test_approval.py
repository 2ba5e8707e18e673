"""Workers that wait for an answer: through pauses, cancellations, restarts of either side, and others' questions."""

from contextlib import ExitStack

import pytest

from actorstate.client.run import Run
from actorstate.client.sync import Client, connect
from actorstate.core.messages.document import JobState
from actorstate.errors import IllegalTransition, NotApproved
from tests.support.processes import LIVELY, Aside, Child, client, job, served, tell, unchanged, until, wait_told
from tests.support.writer import WriterProcess, Writers, writers

__all__ = ["client", "job", "served", "writers"]

QUESTION = "12 groups to delete"


def asks(directory: str, job: str, question: str = QUESTION) -> None:
    """Counts three rows, asks, and goes on with the name of who approved."""
    with connect(directory, settings=LIVELY) as client, client.attach(job, worker=f"asks {question}") as run:
        run.progress(succeeded=3)
        tell(run.wait_for_approval(question))
        run.progress(succeeded=4)


def asked(client: Client, job: str, question: str = QUESTION) -> JobState:
    """The state in which this question is open."""

    def is_asked(state: JobState) -> bool:
        return state.awaits_approval and state.approvals[-1].question == question

    return until(client, job, is_asked)


def after_some_beats(client: Client, job: str) -> JobState:
    """The state when a worker that did not wait would have gone on."""
    return client.wait(job, after=2**40, timeout_s=5 * LIVELY.heartbeat_s)


def test_a_worker_goes_on_before_anybody_has_answered(client: Client, served: WriterProcess, job: str) -> None:
    client.create(job)
    with Child(asks, served.directory, job) as child:
        state = asked(client, job)
        assert (state.status, state.progress.processed, state.health) == ("waiting", 3, "healthy")
        assert state.approval is not None
        assert state.approval.by == f"asks {QUESTION}"
        assert unchanged(client, job, 5 * LIVELY.heartbeat_s).workers
        with pytest.raises(IllegalTransition, match="another question"):
            client.approve(job, question="11 groups to delete")
        client.approve(job, question=QUESTION, by="ann")
        child.expect("ann")
        child.ends_well()
    state = client.get(job)
    assert (state.status, state.progress.processed) == ("running", 7)


def test_an_answer_is_lost_with_the_worker_or_the_writer(writers: Writers) -> None:
    writer = writers().start()
    with connect(writer.directory, settings=LIVELY) as client:
        client.create("job")
        with Child(asks, writer.directory, "job") as child:
            asked(client, "job")
            writer.restart()
            assert client.get("job").status == "waiting"
            child.kill()
        client.approve("job", by="ann")
        writer.restart()
        with Child(asks, writer.directory, "job") as child:
            child.expect("ann")
            child.ends_well()
        assert client.get("job").progress.processed == 10


def test_a_worker_that_waits_does_not_hear_of_its_cancellation(client: Client, served: WriterProcess, job: str) -> None:
    client.create(job)
    with Child(asks, served.directory, job) as child:
        asked(client, job)
        client.cancel(job)
        child.ends_well()
        assert child.remaining() == []
    state = client.get(job)
    assert (state.status, state.progress.processed) == ("cancelled", 3)


def test_an_approval_lets_a_paused_job_go_on(client: Client, served: WriterProcess, job: str) -> None:
    client.create(job)
    with Child(asks, served.directory, job) as child:
        asked(client, job)
        client.pause(job)
        until(client, job, lambda state: state.status == "paused")
        client.approve(job, by="ann")
        state = after_some_beats(client, job)
        assert (state.status, state.progress.processed, len(state.workers)) == ("paused", 3, 1)
        client.resume(job)
        child.expect("ann")
        child.ends_well()
    assert client.get(job).progress.processed == 7


def test_one_answer_is_taken_for_two_questions(client: Client, served: WriterProcess, job: str) -> None:
    client.create(job)
    with ExitStack() as stack:
        one = stack.enter_context(Child(asks, served.directory, job, "delete groups?"))
        asked(client, job, "delete groups?")
        two = stack.enter_context(Child(asks, served.directory, job, "format the disk?"))
        until(client, job, lambda state: state.progress.processed == 6)
        client.approve(job, by="ann")
        one.expect("ann")
        asked(client, job, "format the disk?")
        client.approve(job, by="bob")
        two.expect("bob")
        one.ends_well()
        two.ends_well()
    state = client.get(job)
    assert [(each.question, each.approved_by) for each in state.approvals] == [
        ("delete groups?", "ann"),
        ("format the disk?", "bob"),
    ]
    assert state.progress.processed == 14


def test_a_wait_without_an_answer_never_ends_or_withdraws_the_question(client: Client, job: str) -> None:
    client.create(job)
    with client.attach(job) as run:
        with pytest.raises(NotApproved, match=QUESTION):
            run.wait_for_approval(QUESTION, timeout_s=0.05)
        assert client.get(job).status == "waiting"
        client.approve(job, by="ann")
        assert run.wait_for_approval(QUESTION, timeout_s=0) == "ann"


def test_another_worker_goes_on_while_a_question_is_open(client: Client, job: str) -> None:
    client.create(job)
    seen: list[int] = []

    def work(run: Run) -> None:
        seen.extend(run.track(range(5), every=1))

    with client.attach(job, worker="asks") as one, client.attach(job, worker="works") as two:
        with pytest.raises(NotApproved):
            one.wait_for_approval(QUESTION, timeout_s=0)
        until(client, job, lambda state: state.status == "waiting")
        two.progress(skipped=1)
        two.flush()
        beside = Aside(lambda: work(two))
        revision = until(client, job, lambda state: bool(state.tracks)).revision
        assert (seen, client.get(job).revision >= revision) == ([], True)
        client.approve(job)
        beside.result()
    assert (seen, client.get(job).progress.processed) == ([0, 1, 2, 3, 4], 6)


def begins(directory: str, job: str) -> None:
    """A run of a job that needs an approval."""
    with connect(directory, settings=LIVELY) as client, client.run(job, needs_approval=True) as run:
        tell("attached")
        for row in run.track(range(3)):
            tell(row)


def test_a_job_that_needs_an_approval_begins_without_it(writers: Writers) -> None:
    writer = writers().start()
    with connect(writer.directory, settings=LIVELY) as client, Child(begins, writer.directory, "job") as child:
        child.expect("attached")
        state = client.get("job")
        assert (state.status, state.approvals[0].question) == ("waiting", "may job begin?")
        writer.restart()
        state = after_some_beats(client, "job")
        assert (state.status, state.progress.processed) == ("waiting", 0)
        client.approve("job", by="ann")
        for row in range(3):
            child.expect(row)
        child.ends_well()
        assert client.get("job").status == "completed"


def test_a_worker_told_of_nothing_waits_at_its_first_row(client: Client, job: str) -> None:
    client.create(job, needs_approval="may it begin?")
    with client.attach(job) as run:
        assert run.sender.order.waiting
        client.approve(job)
        wait_told(run, None)
        run.heed()
        run.progress(succeeded=1)
    assert client.get(job).progress.processed == 1
