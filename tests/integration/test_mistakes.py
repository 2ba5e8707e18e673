"""What people get wrong: it is refused where it is done, says how it is meant, and costs nothing that was right."""

from collections.abc import Callable
from pathlib import Path

import pytest

from actorstate.client.run import Run
from actorstate.client.start import is_switched_off
from actorstate.client.sync import Client, connect
from actorstate.config import ClientSettings
from actorstate.errors import AlreadyTracked, BadRequest, Conflict, NotApproved, WriterUnavailable
from tests.support.processes import client, frozen, job, served
from tests.support.writer import WriterProcess

__all__ = ["client", "job", "served"]


@pytest.mark.parametrize("count", [True, 5.0, "5", None, -1, 2**63])
def test_a_count_that_is_none_ends_the_run(client: Client, job: str, count: object) -> None:
    client.create(job)
    with client.attach(job) as run:
        run.progress(succeeded=7)
        with pytest.raises(BadRequest, match="a count is"):
            run.progress(bytes=count)  # type: ignore[arg-type]  # that is the mistake
        run.progress(succeeded=1)
    assert client.get(job).progress.succeeded == 8


def test_a_misspelt_option_is_taken_for_a_promise(client: Client, job: str) -> None:
    with pytest.raises(TypeError, match=r"uniqe_key.*unique_key"):
        client.create(job, uniqe_key="march")  # type: ignore[call-arg]  # that is the mistake
    with pytest.raises(TypeError, match="needs_aproval"), client.run(job, needs_aproval=True):  # type: ignore[call-arg]
        pass


def test_a_key_that_the_existing_job_does_not_have_is_believed_to_be_held(client: Client, job: str) -> None:
    client.create(job)
    with pytest.raises(Conflict, match="unique key None"):
        client.create(job, unique_key=f"key of {job}")
    client.create(f"{job}-2", unique_key=f"key of {job}")
    client.create(f"{job}-2", unique_key=f"key of {job}")


def test_a_source_that_has_shrunk_completes_its_job(client: Client, job: str) -> None:
    client.create(job)
    with pytest.raises(ZeroDivisionError), client.attach(job) as run:  # noqa: PT012 - the block is the case
        for row in run.track(range(10)):
            1 / (7 - row)
    with pytest.raises(BadRequest, match="the rows ended after 3, but 7 were done before"), client.run(job) as run:
        list(run.track(range(7, 10)))
    state = client.get(job)
    assert (state.status, state.progress.processed) == ("failed", 7)


def nested(run: Run) -> None:
    for _ in run.track("ab"):
        list(run.track("xyz"))


def beside_each_other(run: Run) -> None:
    first, second = run.track("ab"), run.track("ab")
    next(first)
    next(second)


@pytest.mark.parametrize("loops", [nested, beside_each_other])
def test_two_loops_of_one_name_mix_their_rows(client: Client, job: str, loops: Callable[[Run], None]) -> None:
    client.create(job)
    with client.attach(job) as run, pytest.raises(AlreadyTracked, match="another loop of this run"):
        loops(run)


def test_rows_come_again_because_their_source_failed(client: Client, job: str) -> None:
    def failing() -> "list[int]":  # a generator of rows
        yield from range(3)
        raise OSError("the connection is gone")

    client.create(job)
    with pytest.raises(OSError, match="gone"), client.attach(job) as run:
        list(run.track(failing()))
    with client.attach(job) as run:
        assert list(run.track(range(5))) == [3, 4]


def test_an_open_question_fails_its_job(client: Client, job: str) -> None:
    with pytest.raises(NotApproved), client.run(job) as run:
        run.wait_for_approval("12 groups to delete", timeout_s=0.05)
    assert client.get(job).status == "waiting"
    client.approve(job)


def test_a_misspelt_category_opens_a_job_again(client: Client, job: str) -> None:
    with client.run(job) as run:
        run.failed("a", "timeout", category="network")
    with pytest.raises(BadRequest, match="'netwrk'; its categories: network"):
        client.retry(job, where="netwrk")
    assert client.get(job).status == "completed"


@pytest.mark.parametrize("word", [{"status": "runing"}, {"health": "fine"}])
def test_a_misspelt_word_finds_no_jobs(client: Client, word: dict[str, str]) -> None:
    with pytest.raises(BadRequest, match="no job is"):
        list(client.jobs(**word))  # type: ignore[arg-type]  # that is the mistake


@pytest.mark.parametrize("word", ["0", "no", "False", " off "])
def test_a_word_for_no_starts_a_writer(monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    monkeypatch.setenv("ACTORSTATE_AUTOSTART", word)
    assert is_switched_off()


@pytest.mark.parametrize("place", [None, b"/tmp/x", "/tmp/\0x"])
def test_a_place_that_is_none_is_made(place: object) -> None:
    with pytest.raises(BadRequest, match="names no store"):
        connect(place)  # type: ignore[arg-type]  # that is the mistake


def test_words_lost_at_the_end_of_a_block_are_said_to_be_kept(client: Client, served: WriterProcess, job: str) -> None:
    client.create(job)
    hasty = ClientSettings(timeout_s=0.5, attempt_s=0.1, exit_flush_s=0.5)
    expected = pytest.raises(WriterUnavailable, match=f"while job '{job}' was left: 6 rows")
    with connect(served.directory, settings=hasty) as other:
        with expected as raised, other.attach(job) as run:
            run.progress(succeeded=5)
            run.flush()
            served.stop()
            run.progress(succeeded=6)
        served.go_on()
    assert f"actorstate get {served.directory} {job}" in raised.value.hint


def test_a_hung_writer_is_said_to_be_absent(served: WriterProcess, client: Client, tmp_path: Path) -> None:
    hasty = ClientSettings(timeout_s=0.5, attempt_s=0.1)
    with connect(served.directory, settings=hasty) as other, frozen(served), pytest.raises(WriterUnavailable) as raised:
        other.get("job")
    assert f"process {served.pid} holds its lock" in raised.value.hint
    assert f"actorstate serve {served.directory} --detach --take-over" in raised.value.hint
