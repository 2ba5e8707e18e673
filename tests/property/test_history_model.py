"""Every revision that was ever committed, against what the writer's look into the past makes of it.

Any changes, commits that fail, restarts, restores, deletions and forgetting; the clock may stand or go back.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from actorstate.config import WriterSettings
from actorstate.core import codec
from actorstate.core.ledger import Entry
from actorstate.core.messages.document import Document
from actorstate.core.messages.replies import Found, HistoryPage, JobRestored
from actorstate.core.messages.requests import (
    Attach,
    Body,
    ControlJob,
    Counts,
    CreateJob,
    DeleteJob,
    FinishJob,
    GetAt,
    ReadHistory,
    Recalling,
    Report,
    Request,
    RestoreJob,
)
from actorstate.errors import ActorStateError, HistoryPruned, JobNotFound
from actorstate.store.contract import MemoryStore
from actorstate.writer.commit import Committer
from actorstate.writer.meter import Meter
from actorstate.writer.past import Past, Told
from actorstate.writer.residents import Residents
from tests.support.core import EPOCH, JOB, START, Rehearsal
from tests.support.stores import loaded, stored

CLIENT = b"reader"
few = st.integers(0, 3)


class HistoryMachine(RuleBasedStateMachine):
    """`states` is what each revision was when it was committed; None for one that is in no history any more."""

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore()
        self.store.set_epoch(EPOCH)
        self.rehearsal = Rehearsal()
        self.states: dict[int, Document] = {}
        self.oldest = 1
        self.say(CreateJob(JOB, total=100))
        self.say(Attach(JOB, "w", "host", 1))

    def say(self, body: Body, **options: Any) -> None:
        try:
            request = self.rehearsal.request(body)
            self.rehearsal.actor.propose(request, self.rehearsal.now, EPOCH, **options)
        except ActorStateError:
            return
        self.commit()

    def commit(self) -> None:
        staged = self.rehearsal.actor.staged
        stored(self.store, self.rehearsal, EPOCH)
        document = self.rehearsal.actor.document
        if staged is None:
            return
        if document is None:
            self.states.clear()
            self.oldest = self.rehearsal.actor.revision + 1
        else:
            self.states[document.revision] = document

    @property
    def incarnation(self) -> int:
        document = self.rehearsal.actor.document
        return document.incarnations if document else 0

    @rule(rows=few, failed=few, size=st.sampled_from([0, 1, 3_000]), named=st.sampled_from(["a", "b"]))
    def report(self, rows: int, failed: int, size: int, named: str) -> None:
        saved = {named: b"x" * size} if size else {}
        counts = Counts(succeeded=rows, failed=failed)
        self.say(Report(JOB, "w", self.incarnation, counts=counts, checkpoints=saved, phase=named))

    @rule(intent=st.sampled_from(["pause", "resume"]))
    def control(self, intent: Any) -> None:
        self.say(ControlJob(JOB, intent))

    @rule()
    def attach(self) -> None:
        self.say(Attach(JOB, "w", "host", 1))

    @rule(now=st.sampled_from([False, False, False, True]))
    def finish(self, *, now: bool) -> None:
        if now:
            self.say(FinishJob(JOB, "failed"))

    @rule(now=st.sampled_from([False, False, False, True]))
    def delete_and_create(self, *, now: bool) -> None:
        if now:
            self.say(FinishJob(JOB, "completed"))
            self.say(DeleteJob(JOB))
            self.say(CreateJob(JOB))

    @rule(seconds=st.sampled_from([0.0, 1.0, 60.0, -30.0]))
    def wait(self, seconds: float) -> None:
        """The wall clock may go back; the monotonic one is read from it here, which the job does not mind."""
        self.rehearsal.seconds += seconds

    @rule()
    def restart(self) -> None:
        self.rehearsal.actor = loaded(self.store, JOB)

    @rule(number=few)
    def fail_a_commit(self, number: int) -> None:
        request = self.rehearsal.request(Report(JOB, "w", self.incarnation, counts=Counts(succeeded=number)))
        try:
            self.rehearsal.actor.propose(request, self.rehearsal.now, EPOCH)
        except ActorStateError:
            return
        self.rehearsal.actor.abort()

    @precondition(lambda self: self.states)
    @rule(place=st.integers(0, 99))
    def restore(self, place: int) -> None:
        kept = [revision for revision in self.states if revision >= self.oldest]
        revision = kept[place % len(kept)]
        found = self.recalled(RestoreJob(JOB, revision))
        assert isinstance(found, JobRestored)
        assert found.state == self.states[revision]
        before = self.rehearsal.actor.document
        self.say(RestoreJob(JOB, revision), entry=Entry(found))
        after = self.rehearsal.actor.document
        assert before is not None
        assert after is not None
        assert (after.progress, after.checkpoints) == (found.state.progress, found.state.checkpoints)
        assert (after.status, after.workers, after.revision) == ("paused", {}, before.revision + 1)
        assert after.incarnations == before.incarnations

    @rule(keep=st.integers(0, 12))
    def forget(self, keep: int) -> None:
        self.store.prune(EPOCH, JOB, keep, START)
        self.oldest = self.store.oldest(JOB) or self.oldest

    def recalled(self, body: Recalling) -> object:
        """What a look into the past of the present store finds; raises what it is refused with."""
        settings_ = WriterSettings()
        residents = Residents(self.store, settings_)
        committer = Committer(self.store, EPOCH, settings_, lambda: None, meter=Meter())
        past = Past(self.store, residents, committer, settings_)
        past.begin(CLIENT, Request(1, body, b"other"), body, float("inf"))
        told: Told | None = None
        while past.due:
            told = past.step(0.0)
        if told is None:
            return residents.find(JOB, 0.0).mailbox[0].restores
        if isinstance(told[2], ActorStateError):
            raise told[2]
        return told[2]

    def state_at(self, revision: int | None = None, at: datetime | None = None) -> Document:
        found = self.recalled(GetAt(JOB, revision, at))
        assert isinstance(found, Found)
        return codec.decode_document(found.document)

    @invariant()
    def the_past_is_as_it_was(self) -> None:
        for revision, state in self.states.items():
            if revision >= self.oldest:
                assert self.state_at(revision) == state
                continue
            with pytest.raises(HistoryPruned):
                self.state_at(revision)

    @invariant()
    def a_moment_leads_to_the_last_revision_before_it(self) -> None:
        kept = {revision: state.updated_at for revision, state in self.states.items() if revision >= self.oldest}
        for at in set(kept.values()):
            expected = max(revision for revision, made in kept.items() if made <= at)
            try:
                assert self.state_at(at=at).revision == expected
            except JobNotFound:
                assert at < self.states[max(self.states)].created_at

    @invariant()
    def history_is_whole_from_the_oldest_on(self) -> None:
        if not self.states:
            return
        for newest in (False, True):
            page = self.recalled(ReadHistory(JOB, newest=newest, states=True, limit=500))
            assert isinstance(page, HistoryPage)
            entries = page.entries[::-1] if newest else page.entries
            assert [entry.revision for entry in entries] == list(range(self.oldest, max(self.states) + 1))
            assert not page.more
            for entry in entries:
                state = self.states[entry.revision]
                assert entry.progress is not None
                assert (entry.status, entry.progress.processed) == (state.status, state.progress.processed)


def run(examples: int) -> None:
    search: Callable[..., None] = run_state_machine_as_test
    search(HistoryMachine, settings=settings(max_examples=examples, stateful_step_count=25, deadline=None))


def test_a_revision_is_remembered_as_another() -> None:
    run(8)


@pytest.mark.slow
def test_a_revision_is_remembered_as_another_in_a_long_search() -> None:
    run(150)
