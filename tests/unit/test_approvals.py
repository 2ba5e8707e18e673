"""Questions that people must answer: asked at creation or by a worker, answered once, forgotten by nobody."""

import pytest

from actorstate.core.job import decide
from actorstate.core.messages.document import Document, order_of
from actorstate.core.messages.requests import ApproveJob, Counts, CreateJob, Detach, FinishJob, RetryJob
from actorstate.core.reports import MAX_APPROVALS
from actorstate.errors import IllegalTransition, JobFinished
from tests.support.core import JOB, a_job, attach, begun, changed, control, counted, report

ASKED = report(question="12 groups to delete")


def running(*workers: str) -> Document:
    return changed(None, CreateJob(JOB, total=100), *(attach(worker) for worker in workers or ("w",)))


def waits(job: Document) -> tuple[str, bool]:
    return job.status, order_of(job).waiting


def test_a_job_begins_before_it_is_approved() -> None:
    job = changed(None, CreateJob(JOB, question="may it begin?"))
    assert (waits(job), job.started_at) == (("waiting", True), None)
    job = changed(job, attach())
    assert (waits(job), job.started_at) == (("waiting", True), None)
    job = changed(job, ApproveJob(JOB, by="ops"))
    assert waits(job) == ("running", False)
    assert job.started_at == job.updated_at
    assert job.approval is not None
    assert (job.approval.approved_by, job.approval.approved_at) == ("ops", job.updated_at)


def test_an_approved_job_without_workers_runs() -> None:
    job = changed(None, CreateJob(JOB, question="may it begin?"), ApproveJob(JOB))
    assert waits(job) == ("pending", False)


def test_a_worker_is_told_to_go_on_while_its_question_is_open() -> None:
    job = changed(running(), ASKED)
    assert waits(job) == ("waiting", True)
    assert job.approval is not None
    assert (job.approval.question, job.approval.by, job.approval.asked_at) == (
        "12 groups to delete",
        "w",
        job.updated_at,
    )
    assert job.rate.eta is None
    assert waits(changed(job, counted(1))) == ("waiting", True)
    assert waits(changed(job, counted(1), ApproveJob(JOB))) == ("running", False)


def test_a_waiting_job_has_an_arrival() -> None:
    job = changed(running(), *(counted(5) for _ in range(5)))
    assert job.rate.eta is not None
    assert changed(job, ASKED).rate.eta is None


def test_what_was_said_with_the_question_is_lost() -> None:
    job = changed(running(), report(question="sure?", counts=Counts(succeeded=3), checkpoints={"a": b"1"}))
    assert (job.progress.processed, job.checkpoints["a"].packed, job.status) == (3, b"1", "waiting")


def test_the_same_question_asked_again_needs_another_answer() -> None:
    job = changed(running(), ASKED, ApproveJob(JOB), Detach(JOB, "w", 1), attach("v"))
    again = changed(job, report("v", 2, question="12 groups to delete"))
    assert waits(again) == ("running", False)
    assert again.approvals == job.approvals


def test_another_question_is_answered_by_the_first_answer() -> None:
    job = changed(running(), ASKED, ApproveJob(JOB), report(question="13 groups to delete"))
    assert waits(job) == ("waiting", True)


def test_two_open_questions_are_answered_by_one_word() -> None:
    job = changed(running("w", "v"), ASKED, report("v", 2, question="format the disk?"))
    assert [each.question for each in job.approvals] == ["12 groups to delete"]
    job = changed(job, ApproveJob(JOB), report("v", 2, question="format the disk?"))
    assert waits(job) == ("waiting", True)
    assert job.approval is not None
    assert job.approval.question == "format the disk?"


def test_a_question_is_approved_that_the_person_has_not_read() -> None:
    job = changed(running(), ASKED)
    with pytest.raises(IllegalTransition, match="another question by now: '12 groups to delete'"):
        decide(job, ApproveJob(JOB, "11 groups to delete"))
    assert decide(job, ApproveJob(JOB, "12 groups to delete"))


def test_an_approval_is_taken_where_nothing_was_asked_or_twice() -> None:
    with pytest.raises(IllegalTransition, match="nobody has asked"):
        decide(running(), ApproveJob(JOB))
    with pytest.raises(JobFinished):
        decide(a_job("completed"), ApproveJob(JOB))
    assert not decide(changed(running(), ASKED, ApproveJob(JOB)), ApproveJob(JOB))


def test_a_paused_job_goes_on_by_an_approval() -> None:
    job = changed(running(), ASKED, control("pause"), report(acknowledged="pause"))
    assert waits(job) == ("paused", True)
    assert waits(changed(job, control("resume"))) == ("waiting", True)
    job = changed(job, ApproveJob(JOB))
    assert waits(job) == ("paused", False)
    assert changed(job, control("resume")).status == "running"


def test_a_waiting_job_cannot_be_cancelled_or_ended() -> None:
    asked = changed(running(), ASKED)
    assert changed(asked, control("cancel"), report(acknowledged="cancel")).status == "cancelled"
    assert changed(asked, FinishJob(JOB, "failed", "no answer")).status == "failed"
    assert changed(None, CreateJob(JOB, question="?"), control("cancel")).status == "cancelled"


def test_the_question_is_lost_with_the_writer() -> None:
    rehearsal = begun("w")
    rehearsal.say(ASKED)
    rehearsal.restart()
    assert waits(rehearsal.document) == ("waiting", True)
    rehearsal.say(ApproveJob(JOB, by="ops"))
    rehearsal.restart()
    assert waits(rehearsal.document) == ("running", False)


def test_a_retry_goes_on_without_the_answer_that_it_needs() -> None:
    first = changed(None, CreateJob(JOB, question="may it begin?"), control("cancel"))
    assert waits(changed(first, RetryJob(JOB))) == ("waiting", True)
    approved = changed(None, CreateJob(JOB, question="may it begin?"), ApproveJob(JOB), FinishJob(JOB, "failed"))
    assert waits(changed(approved, RetryJob(JOB))) == ("pending", False)
    assert waits(changed(approved, RetryJob(JOB, from_start=True))) == ("waiting", True)
    asked = changed(running(), ASKED, control("cancel"), report(acknowledged="cancel"))
    assert waits(changed(asked, RetryJob(JOB))) == ("pending", False)


def test_answers_pile_up() -> None:
    job = running()
    for number in range(MAX_APPROVALS + 5):
        job = changed(job, report(question=f"question {number}"), ApproveJob(JOB))
    assert len(job.approvals) == MAX_APPROVALS
