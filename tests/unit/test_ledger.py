"""The item ledger's rules, without a store: rows and counts say the same, and a retried item counts once."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorstate.core import codec
from actorstate.core.evolve import evolve
from actorstate.core.ledger import MAX_TOLD, Entry, entered, keys_in
from actorstate.core.messages.document import Document, ItemState, Progress
from actorstate.core.messages.replies import Change
from actorstate.core.messages.requests import Counts, ErrorReport, ItemReport, Report, RetryItems
from tests.support.core import EPOCH, JOB, START, Rehearsal, a_job, begun, moment, report


class Ledger:
    """A job and its ledger, changed by reports as the writer does it; each change is decoded before it counts."""

    def __init__(self) -> None:
        self.document, self.rows = a_job(), dict[str, ItemState]()

    def take(self, body: Report | RetryItems) -> Entry:
        entry = entered(body, {key: self.rows[key] for key in keys_in(body) if key in self.rows}, self.now.wall)
        change = Change(
            self.document.revision + 1,
            EPOCH,
            self.now.wall,
            entry.body,
            taken=entry.taken,
            retrying=entry.retrying,
        )
        document = evolve(self.document, codec.decode_change(codec.encode(change)))
        assert document is not None
        self.document = document
        self.rows |= entry.rows
        return entry

    def say(self, *items: ItemReport) -> Entry:
        """What a worker's report of these items is: what is not retried is counted beside them."""
        counts = [self.counts(item) for item in items if not item.retried]
        summed: dict[str, Any] = {
            name: sum(getattr(each, name) for each in counts)
            for name in ("succeeded", "failed", "skipped", "duplicates")
        }
        by_category: dict[str, int] = {}
        for each in counts:
            for category, count in each.by_category.items():
                by_category[category] = by_category.get(category, 0) + count
        return self.take(report(items=items, counts=Counts(**summed, by_category=by_category) if counts else None))

    @staticmethod
    def counts(item: ItemReport) -> Counts:
        failed = item.outcome == "failed"
        return Counts(
            succeeded=item.outcome == "succeeded",
            failed=failed,
            skipped=item.outcome == "skipped",
            duplicates=item.outcome == "duplicate",
            by_category={item.category: 1} if failed else {},
        )

    def retry(self, *keys: str) -> Entry:
        return self.take(RetryItems(JOB, keys))

    @property
    def now(self) -> Any:
        return moment(self.document.revision)

    @property
    def progress(self) -> Progress:
        return self.document.progress

    def in_outcome(self, outcome: str) -> int:
        return sum(row.outcome == outcome for row in self.rows.values())


def failed(key: str, category: str = "network", error: str = "timeout", *, retried: bool = False) -> ItemReport:
    return ItemReport(key, "failed", category, error, retried)


def redone(key: str) -> ItemReport:
    return ItemReport(key, "succeeded", retried=True)


def test_an_outcome_is_not_in_the_ledger() -> None:
    ledger = Ledger()
    entry = ledger.say(failed("a"), ItemReport("b", "skipped"), ItemReport("c", "duplicate"))
    assert entry.rows == {
        "a": ItemState("a", "failed", moment(3).wall, moment(3).wall, "network", 1, "timeout"),
        "b": ItemState("b", "skipped", moment(3).wall, moment(3).wall),
        "c": ItemState("c", "duplicate", moment(3).wall, moment(3).wall),
    }
    assert ledger.progress == Progress(None, 3, 0, 1, 1, 1, by_category={"network": 1})
    assert [error.key for error in ledger.document.errors] == ["a"]
    assert ledger.document.error_count == 1


def test_an_item_said_again_forgets_when_it_was_first_seen() -> None:
    ledger = Ledger()
    ledger.say(failed("a", "network", "first"))
    ledger.say(failed("a", "validation", "second"))
    assert ledger.rows["a"] == ItemState("a", "failed", moment(3).wall, moment(4).wall, "validation", 2, "second")
    ledger.say(ItemReport("a", "skipped"))
    row = ledger.rows["a"]
    assert (row.outcome, row.category, row.attempts, row.error) == ("skipped", "validation", 3, "second")


def test_the_stored_change_carries_the_items() -> None:
    entry = Ledger().say(*(failed(str(number), error="x" * 2_000) for number in range(1_000)))
    assert isinstance(entry.body, Report)
    assert entry.body.items == ()
    assert [error.key for error in entry.body.errors] == [str(number) for number in range(950, 1_000)]
    assert entry.body.error_count == 1_000
    assert len(codec.encode(entry.body)) < 2_100 * MAX_TOLD


def test_a_failure_without_a_key_is_in_the_ledger_or_not_in_the_tail() -> None:
    ledger = Ledger()
    entry = ledger.say(failed("", error="no key"))
    assert not entry.rows
    assert [error.message for error in ledger.document.errors] == ["no key"]


def test_errors_beside_the_items_are_lost() -> None:
    ledger = Ledger()
    ledger.take(report(items=(failed("a"),), errors=(ErrorReport("b", "x"),), error_count=1))
    assert ({error.key for error in ledger.document.errors}, ledger.document.error_count) == ({"a", "b"}, 2)


def test_a_retry_leaves_its_items_in_the_counts() -> None:
    ledger = Ledger()
    ledger.say(failed("a"), failed("b"), failed("c", "validation"), ItemReport("d", "skipped"))
    entry = ledger.retry("a", "b", "d", "none-such", "a")
    assert set(entry.rows) == {"a", "b"}
    assert ledger.progress == Progress(None, 2, 0, 1, 1, by_category={"validation": 1}, retrying=2)
    assert entry.body == RetryItems(JOB)
    ledger.retry("a", "b")
    assert ledger.progress.retrying == 2


def test_a_redone_item_is_counted_twice_or_never() -> None:
    ledger = Ledger()
    ledger.say(failed("a"), failed("b"))
    ledger.retry("a", "b")
    for _ in range(2):
        ledger.say(redone("a"), failed("b", "validation", retried=True), redone("b"))
    assert ledger.progress == Progress(None, 2, 1, 1, by_category={"validation": 1})
    assert (ledger.rows["a"].attempts, ledger.rows["b"].attempts) == (2, 2)
    assert (ledger.rows["a"].outcome, ledger.rows["a"].category, ledger.rows["a"].error) == (
        "succeeded",
        "network",
        "timeout",
    )
    assert ledger.document.error_count == 3, "two failures, and one of the second time"


def test_a_plain_report_of_a_retrying_item_leaves_it_waiting() -> None:
    ledger = Ledger()
    ledger.say(failed("a"))
    ledger.retry("a")
    ledger.say(ItemReport("a", "skipped"))
    assert ledger.progress == Progress(None, 1, skipped=1)
    ledger.say(redone("a"))
    assert ledger.progress == Progress(None, 1, skipped=1), "somebody else had done it"


def test_an_item_whose_row_is_gone_is_never_counted() -> None:
    ledger = Ledger()
    ledger.say(redone("a"))
    assert (ledger.progress.succeeded, ledger.rows["a"].attempts) == (1, 1)


def test_counts_go_below_zero_when_the_ledger_knows_more() -> None:
    """After a restore the document is older than the ledger."""
    ledger = Ledger()
    ledger.say(failed("a"), failed("b"), failed("c"))
    ledger.document = a_job(progress=Progress(processed=1, failed=1, by_category={"network": 1}))
    ledger.retry("a", "b", "c")
    assert ledger.progress == Progress(retrying=3)


def test_a_retry_over_many_categories_cannot_be_read_again() -> None:
    ledger = Ledger()
    for number in range(200):
        ledger.say(failed(f"k-{number}", f"category-{number}"))
    ledger.retry(*(f"k-{number}" for number in range(200)))
    assert ledger.progress.failed == ledger.progress.processed == 0
    assert ledger.progress.retrying == 200
    ledger.say(*(failed(f"k-{number}", f"category-{number}", retried=True) for number in range(200)))
    assert sum(ledger.progress.by_category.values()) == ledger.progress.failed == 200


def test_a_rate_goes_backwards_with_a_retry() -> None:
    ledger = Ledger()
    for number in range(20):
        ledger.say(failed(str(number)))
    ledger.retry(*map(str, range(20)))
    assert ledger.document.rate.samples == ()


keys = st.sampled_from("abcdef")
outcomes = st.sampled_from(["failed", "skipped", "duplicate", "succeeded"])
categories = st.sampled_from(["network", "validation"])


@given(
    st.lists(
        st.one_of(
            st.builds(failed, keys, categories),
            st.builds(ItemReport, keys, outcomes, categories),
            st.builds(ItemReport, keys, outcomes, categories, st.just(""), st.just(value=True)),
            st.lists(keys, max_size=6),
        ),
        max_size=40,
    )
)
def test_the_ledger_and_the_counts_say_different_things(steps: list[Any]) -> None:
    """Each key is said once before it is retried: then the counts are those of the rows."""
    ledger = Ledger()
    for step in steps:
        if isinstance(step, list):
            ledger.retry(*step)
        elif (row := ledger.rows.get(step.key)) is None or row.outcome == "retrying" or step.retried:
            ledger.say(step)
        counted = {
            name: ledger.in_outcome(name) for name in ("failed", "skipped", "duplicate", "succeeded", "retrying")
        }
        told = ledger.progress
        assert counted == {
            "failed": told.failed,
            "skipped": told.skipped,
            "duplicate": told.duplicates,
            "succeeded": told.succeeded,
            "retrying": told.retrying,
        }
        assert told.processed == told.failed + told.skipped + told.duplicates + told.succeeded
        assert sum(told.by_category.values()) == told.failed
        assert told.by_category == by_category(ledger.rows)


def by_category(rows: Mapping[str, ItemState]) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in rows.values():
        if row.outcome == "failed":
            found[row.category] = found.get(row.category, 0) + 1
    return found


def taken(rehearsal: Rehearsal, body: Report | RetryItems, rows: dict[str, ItemState]) -> dict[str, ItemState]:
    """Sends `body` to the actor as the writer does; the rows that it stages."""
    rehearsal.seconds += 1
    entry = entered(body, rows, rehearsal.now.wall)
    rehearsal.actor.propose(rehearsal.request(body), rehearsal.now, EPOCH, entry=entry)
    assert rehearsal.actor.staged is not None
    return dict(rehearsal.actor.staged.items)


def test_a_restart_counts_differently() -> None:
    rehearsal = begun("w")
    rows = taken(rehearsal, report(items=(failed("a"), failed("b")), counts=Counts(failed=2)), {})
    rehearsal.commit()
    rows |= taken(rehearsal, RetryItems(JOB, ("a", "b")), rows)
    rehearsal.commit()
    rows |= taken(rehearsal, report(items=(redone("a"),)), rows)
    rehearsal.commit()
    before: Document = rehearsal.document
    rehearsal.restart()
    assert rehearsal.document == before
    assert (before.progress.succeeded, before.progress.retrying) == (1, 1)


def test_an_aborted_commit_leaves_its_items() -> None:
    rehearsal = begun("w")
    assert taken(rehearsal, report(items=(failed("a"),), counts=Counts(failed=1)), {}).keys() == {"a"}
    rehearsal.actor.abort()
    assert taken(rehearsal, report(items=(failed("b"),), counts=Counts(failed=1)), {}).keys() == {"b"}


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_items_of_a_finished_job_are_retried(status: Any) -> None:
    ledger = Ledger()
    ledger.document = a_job(status)
    rehearsal = Rehearsal()
    rehearsal.actor.document = ledger.document
    from actorstate.errors import JobFinished

    with pytest.raises(JobFinished, match="stays so") as refused:
        rehearsal.actor.propose(rehearsal.request(RetryItems(JOB, ("a",))), rehearsal.now, EPOCH)
    assert "actorstate retry DIR" in refused.value.hint
    assert ledger.document.created_at >= START
