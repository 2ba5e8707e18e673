"""`retry`, `approve`, `throttle`, and what `get` and `jobs` show of them, typed as a tired person would type them."""

import json
import os
from pathlib import Path

import pytest

from actorstate.client.sync import Client, connect
from tests.integration.test_cli import actorstate, client, directory, on_a_terminal
from tests.support.processes import job

__all__ = ["client", "directory", "job"]

QUESTION = "delete \x1b[2J12 groups?"


def shown(*arguments: str | Path) -> str:
    result = actorstate(*arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture
def asking(client: Client, job: str) -> str:
    """A job that waits for an answer."""
    client.create(job, total=10, needs_approval=QUESTION)
    return job


@pytest.mark.slow
def test_a_retried_job_does_not_say_how_it_ended(client: Client, directory: Path, job: str) -> None:
    client.create(job, total=10)
    with client.attach(job) as run:
        run.progress(succeeded=4)
    client.fail(job, "disk broke")
    told = shown("retry", directory, job, "--by", "ann")
    assert "pending" in told
    assert "attempt 2 is open and waits for a worker" in told
    page = shown("get", directory, job)
    assert "1 failed" in page
    assert "at 4 of 10 rows: disk broke, retried by ann" in page
    assert "attempt_2" in shown("jobs", directory)
    client.fail(job, "again")
    told = json.loads(shown("retry", directory, job, "--from-start", "--json"))
    assert (told["attempt"], told["progress"]["processed"]) == (3, 0)
    assert [(each["number"], each["progress"]["processed"]) for each in told["attempts"]] == [(1, 4), (2, 4)]


def test_a_question_is_approved_unread(client: Client, directory: Path, asking: str) -> None:
    assert "asks_for_approval" in shown("jobs", directory, "--status", "waiting")
    page = shown("get", directory, asking)
    assert "\x1b" not in page
    assert "12 groups?  (asked" in page
    told = shown("approve", directory, asking, "--by", "ann")
    assert told.splitlines()[0].startswith(f"{asking} asks: delete ")
    assert client.get(asking).status == "pending"
    assert "by ann" in shown("get", directory, asking)
    assert "approved already" in shown("approve", directory, asking)


def test_an_answer_on_a_terminal_is_not_asked_for(client: Client, directory: Path, asking: str) -> None:
    def no(_screen: str, master: int) -> None:
        os.write(master, b"\n")

    def yes(_screen: str, master: int) -> None:
        os.write(master, b"y\n")

    status, seen = on_a_terminal("approve", directory, asking, until="[y/N]", then=no)
    assert (status, "it waits on" in seen) == (1, True)
    assert client.get(asking).status == "waiting"
    status, _ = on_a_terminal("approve", directory, asking, until="[y/N]", then=yes)
    assert (status, client.get(asking).status) == (0, "pending")


@pytest.mark.slow
def test_another_question_is_approved_than_the_one_on_the_screen(directory: Path, client: Client, job: str) -> None:
    client.create(job)

    def ask(text: str) -> None:
        with client.attach(job) as run, pytest.raises(Exception, match="nobody has answered"):
            run.wait_for_approval(text, timeout_s=0)

    ask("delete 12 groups?")

    def answer_late(_screen: str, master: int) -> None:
        client.approve(job)
        ask("delete 13 groups?")
        os.write(master, b"y\n")

    status, seen = on_a_terminal("approve", directory, job, until="[y/N]", then=answer_late)
    assert (status, "13 groups?" in seen) == (4, True)
    assert client.get(job).status == "waiting"


@pytest.mark.slow
def test_a_limit_is_invisible(client: Client, directory: Path, job: str) -> None:
    client.create(job)
    assert "at most 2.5/s" in shown("throttle", directory, job, "2.5", "--by", "ann")
    assert "at most 2.5 rows/s for all workers together by ann" in shown("get", directory, job)
    assert "at_most_2.5/s" in shown("jobs", directory)
    assert json.loads(shown("throttle", directory, job, "off", "--json"))["throttle"] is None
    assert "at most" not in shown("get", directory, job)


@pytest.mark.slow
def test_the_rules_of_a_job_are_invisible(client: Client, directory: Path, job: str) -> None:
    client.create(
        job, unique_key="orders/march", late_after_s=5, dead_after_s=20, on_dead="free", expire_after_s=86_400
    )
    page = shown("get", directory, job)
    for words in ("unique key orders/march (held)", "late after 5 s, dead after 20 s", "frees the seats"):
        assert words in page
    assert "is deleted 1 d 0 h after its end" in page
    client.complete(job)
    assert ", expires 20" in shown("get", directory, job)
    assert "until_20" in shown("jobs", directory)


def test_serve_forgets_when_jobs_expire(start_writer, directory: Path) -> None:
    start_writer("--expire-after", "3600")
    with connect(directory) as client:
        assert client.create("job").expire_after_s == 3_600


def test_the_hints_cannot_be_typed(client: Client, directory: Path, job: str) -> None:
    client.create(job, unique_key=job)
    with pytest.raises(Exception, match="holds the unique key") as refused:
        client.create(f"{job}-2", unique_key=job)
    command = str(refused.value).rpartition("actorstate get ")[2].rstrip(")").split()
    assert job in shown("get", *command)
