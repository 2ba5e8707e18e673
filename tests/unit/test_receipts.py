"""Exactly once: what a producer is told when its requests come again, late, or out of order."""

import contextlib
from collections.abc import Iterable
from datetime import timedelta

import pytest

from actorstate.core.messages.replies import Applied, Receipt
from actorstate.core.messages.requests import CreateJob, DeleteJob, Detach, FinishJob, Request
from actorstate.core.receipts import MAX_IN_FLIGHT, MAX_PRODUCERS, MAX_UNCHANGED, PRODUCER_IDLE_S, remembered
from actorstate.errors import ActorStateError, AlreadyAttached, BadMessage, Busy, JobFinished, OutcomeUnknown
from tests.support.core import JOB, P1, P2, START, Rehearsal, attach, begun, control, counted

LATE_S = PRODUCER_IDLE_S + 10
FULL = MAX_IN_FLIGHT + 2
"""The first number that is one too many, when 2 and all after it are unanswered."""


def rows(rehearsal: Rehearsal) -> int:
    return rehearsal.document.progress.processed


def counting(rehearsal: Rehearsal, number: int, *, acked: int = 0, producer: bytes = P1) -> Request:
    """One more row, under this number."""
    return rehearsal.request(counted(1), id=number, acked=acked, producer=producer)


def sent_all(rehearsal: Rehearsal, requests: Iterable[Request]) -> list[Applied]:
    return [rehearsal.send(request) for request in requests]


@pytest.fixture
def rehearsal() -> Rehearsal:
    """A running job whose worker `w` has used the numbers 1 and 2."""
    return begun("w")


def test_a_resend_counts_twice(rehearsal: Rehearsal) -> None:
    first = rehearsal.send(counting(rehearsal, 10))
    assert sent_all(rehearsal, [counting(rehearsal, 10)] * 3) == [first] * 3
    assert rows(rehearsal) == 1


def test_a_resend_in_the_same_commit_counts_twice(rehearsal: Rehearsal) -> None:
    told = [rehearsal.propose(counting(rehearsal, 10)) for _ in range(3)]
    rehearsal.commit()
    assert told == [told[0]] * 3
    assert rows(rehearsal) == 1


def test_a_resend_after_a_writer_crash_counts_twice(rehearsal: Rehearsal) -> None:
    first = rehearsal.send(counting(rehearsal, 10))
    rehearsal.restart()
    assert rehearsal.send(counting(rehearsal, 10)) == first
    assert rows(rehearsal) == 1


def test_an_attach_that_comes_again_gets_another_incarnation(rehearsal: Rehearsal) -> None:
    first = rehearsal.send(rehearsal.request(attach("v"), id=10))
    rehearsal.send(rehearsal.request(attach("x"), id=11))
    rehearsal.restart()
    assert rehearsal.send(rehearsal.request(attach("v"), id=10)) == first
    assert rehearsal.document.workers["v"].incarnation == first.incarnation


def test_two_producers_share_their_numbers(rehearsal: Rehearsal) -> None:
    sent_all(rehearsal, [counting(rehearsal, 10), counting(rehearsal, 10, producer=P2)])
    assert rows(rehearsal) == 2


def test_requests_that_overtake_each_other_are_lost(rehearsal: Rehearsal) -> None:
    sent_all(rehearsal, [counting(rehearsal, number, acked=10) for number in (14, 10, 13, 11, 12)])
    assert rows(rehearsal) == 5
    sent_all(rehearsal, [counting(rehearsal, number, acked=10) for number in (12, 14, 10, 11, 13)])
    assert rows(rehearsal) == 5


def test_a_number_that_was_given_up_is_applied_later(rehearsal: Rehearsal) -> None:
    rehearsal.send(counting(rehearsal, 20, acked=20))
    for number in (3, 19):
        with pytest.raises(OutcomeUnknown):
            rehearsal.send(counting(rehearsal, number))
    assert rows(rehearsal) == 1


def test_the_floor_sinks(rehearsal: Rehearsal) -> None:
    sent_all(rehearsal, [counting(rehearsal, 20, acked=20), counting(rehearsal, 21, acked=3)])
    with pytest.raises(OutcomeUnknown):
        rehearsal.send(counting(rehearsal, 19, acked=3))


def test_a_number_between_the_highest_and_the_floor_is_applied(rehearsal: Rehearsal) -> None:
    """Not from our client, whose `acked` is at most its own number; the law says never applied, whoever sends it."""
    rehearsal.send(counting(rehearsal, 10, acked=30))
    with pytest.raises(OutcomeUnknown):
        rehearsal.send(counting(rehearsal, 20))


def test_replies_are_kept_after_they_arrived(rehearsal: Rehearsal) -> None:
    for number in range(10, 200):
        rehearsal.send(counting(rehearsal, number, acked=number - 2))
    kept = rehearsal.actor._receipts[P1].replies
    assert set(kept) == {197, 198, 199}


def test_one_client_fills_the_memory_with_unanswered_requests(rehearsal: Rehearsal) -> None:
    for number in range(3, FULL):
        rehearsal.propose(counting(rehearsal, number))
    before = rehearsal.actor.staged
    with pytest.raises(Busy) as caught:
        rehearsal.propose(counting(rehearsal, FULL))
    assert caught.value.retryable
    assert rehearsal.actor.staged is before
    rehearsal.commit()
    assert rows(rehearsal) == FULL - 3
    rehearsal.send(counting(rehearsal, FULL, acked=500))
    assert rows(rehearsal) == FULL - 2


def test_busy_is_remembered_as_the_answer(rehearsal: Rehearsal) -> None:
    for number in range(3, FULL):
        rehearsal.propose(counting(rehearsal, number))
    with pytest.raises(Busy):
        rehearsal.propose(counting(rehearsal, 9_999))
    rehearsal.commit()
    assert rehearsal.send(counting(rehearsal, 9_999, acked=900)).revision == rehearsal.document.revision


def test_a_known_request_is_refused_at_the_bound(rehearsal: Rehearsal) -> None:
    told = [rehearsal.propose(counting(rehearsal, number)) for number in range(3, FULL)]
    assert rehearsal.propose(counting(rehearsal, 3)) == told[0]


def test_a_change_without_a_producer_is_applied(rehearsal: Rehearsal) -> None:
    with pytest.raises(BadMessage):
        rehearsal.send(counting(rehearsal, 10, producer=b""))
    assert rows(rehearsal) == 0


def forgotten(rehearsal: Rehearsal) -> Request:
    """A row of the first producer is counted, and the producer forgotten while another one works on."""
    late = counting(rehearsal, 10)
    rehearsal.send(late)
    rehearsal.seconds += LATE_S
    rehearsal.send(rehearsal.request(FinishJob(JOB, "completed"), id=1, producer=P2))
    assert P1 not in rehearsal.actor._receipts
    return late


@pytest.mark.parametrize("restart", [False, True])
def test_a_resend_of_a_forgotten_producer_is_applied_again(rehearsal: Rehearsal, *, restart: bool) -> None:
    late = forgotten(rehearsal)
    if restart:
        rehearsal.restart()
    with pytest.raises(OutcomeUnknown):
        rehearsal.send(rehearsal.request(late.body, id=late.id, sent_ago_s=LATE_S + 5))
    assert rows(rehearsal) == 1


def after_a_long_silence() -> tuple[Rehearsal, Request]:
    """As `forgotten`, with a job that goes on: its history is long enough for a keyframe."""
    rehearsal = begun("w")
    late = counting(rehearsal, 10)
    rehearsal.send(late)
    rehearsal.seconds += LATE_S
    number = 1
    while P1 in rehearsal.actor._receipts:
        rehearsal.send(counting(rehearsal, number, acked=number, producer=P2))
        number += 1
        assert number < 1_000
    return rehearsal, late


def test_a_forgotten_producer_cannot_go_on() -> None:
    rehearsal, _ = after_a_long_silence()
    before = rows(rehearsal)
    rehearsal.send(counting(rehearsal, 11, acked=11))
    assert rows(rehearsal) == before + 1


def test_a_forgotten_producer_that_says_something_new_first_counts_its_resend_twice() -> None:
    """Two threads of a process that was stopped for an hour: one goes on with 11 before the other resends 10."""
    rehearsal, late = after_a_long_silence()
    rehearsal.send(counting(rehearsal, 11, acked=10))
    before = rows(rehearsal)
    with pytest.raises(OutcomeUnknown):
        rehearsal.send(rehearsal.request(late.body, id=late.id, sent_ago_s=LATE_S + 5, acked=10))
    assert rows(rehearsal) == before


def test_an_active_producer_is_forgotten() -> None:
    receipts = {bytes([n]): Receipt(START, START + timedelta(seconds=n)) for n in range(100)}
    kept = remembered(receipts, START + timedelta(seconds=PRODUCER_IDLE_S + 49.5))
    assert set(kept) == {bytes([n]) for n in range(50, 100)}


def test_ten_thousand_producers_fill_a_keyframe() -> None:
    receipts = {n.to_bytes(2): Receipt(START, START + timedelta(seconds=n / 100)) for n in range(10_000)}
    kept = remembered(receipts, START + timedelta(seconds=100))
    assert set(kept) == {n.to_bytes(2) for n in range(10_000 - MAX_PRODUCERS, 10_000)}


def test_a_resend_after_the_job_was_deleted_creates_it_again() -> None:
    rehearsal = Rehearsal()
    create = rehearsal.request(CreateJob(JOB), id=1)
    first = rehearsal.send(create)
    rehearsal.send(rehearsal.request(DeleteJob(JOB), id=2))
    for _ in range(2):
        assert rehearsal.send(create) == first
        assert rehearsal.actor.document is None
        rehearsal.restart()
    assert rehearsal.send(rehearsal.request(CreateJob(JOB), id=3)).revision == 3


def test_a_late_copy_of_a_refused_attach_becomes_a_ghost_worker() -> None:
    """A client resends after half a second; both copies wait at a slow writer. It was told: nothing changed."""
    rehearsal = begun("holder")
    refused = rehearsal.request(attach("v", exclusive=True), id=10)
    with pytest.raises(AlreadyAttached):
        rehearsal.send(refused)
    rehearsal.send(rehearsal.request(Detach(JOB, "holder", 1), id=1, producer=P2))
    with contextlib.suppress(ActorStateError):
        rehearsal.send(refused)
    assert "v" not in rehearsal.document.workers


def test_a_late_copy_of_a_pause_without_effect_pauses_a_resumed_job() -> None:
    """Told `Applied`, the caller went on, and somebody resumed; then the copy comes that was sent for safety."""
    rehearsal = begun()
    rehearsal.send(rehearsal.request(control("pause"), id=10))
    again = rehearsal.request(control("pause"), id=11)
    told = rehearsal.send(again)
    rehearsal.send(rehearsal.request(control("resume"), id=1, producer=P2))
    assert rehearsal.send(again) == told
    assert rehearsal.document.status != "paused"


def test_a_failed_commit_forgets_what_was_answered_before_it() -> None:
    rehearsal = begun()
    rehearsal.send(rehearsal.request(control("pause"), id=10))
    again = rehearsal.request(control("pause"), id=11)
    told = rehearsal.send(again)
    rehearsal.propose(rehearsal.request(attach("v"), id=12))
    rehearsal.actor.abort()
    rehearsal.send(rehearsal.request(control("resume"), id=1, producer=P2))
    assert rehearsal.send(again) == told
    assert rehearsal.document.status != "paused"


def test_an_answer_without_effect_that_rested_on_a_failed_commit_is_given_again(rehearsal: Rehearsal) -> None:
    """`completed` twice in one commit: the second has no effect, but it has one when it is tried again alone."""
    first, second = (rehearsal.request(FinishJob(JOB, "completed"), id=number) for number in (10, 11))
    rehearsal.propose(first)
    rehearsal.propose(second)
    rehearsal.actor.abort()
    again = rehearsal.send(second)
    assert (again.revision, rehearsal.document.status) == (3, "completed")


def test_a_refusal_that_rested_on_a_failed_commit_is_given_again(rehearsal: Rehearsal) -> None:
    """Refused because the job was completed, which it then was not."""
    rehearsal.propose(rehearsal.request(FinishJob(JOB, "completed"), id=10))
    late = counting(rehearsal, 11)
    with pytest.raises(JobFinished):
        rehearsal.propose(late)
    rehearsal.actor.abort()
    rehearsal.send(late)
    assert rows(rehearsal) == 1


def test_one_client_fills_the_memory_with_requests_without_effect(rehearsal: Rehearsal) -> None:
    for number in range(10, 5_000):
        rehearsal.send(rehearsal.request(CreateJob(JOB), id=number))
    assert len(rehearsal.actor.unchanged.answers) <= MAX_UNCHANGED
