"""Answers out of a web process's memory: they cost the writer nothing, and none of them is one that does not hold."""

import time

import pytest

from actorstate.client.mirror.news import News
from actorstate.client.sync import connect
from actorstate.core.messages.replies import JobsChanged
from tests.support.processes import forked, joined
from tests.support.web import act, ask, header, served, told

WITHIN_S = 20.0
JOB = "/api/jobs/import-42"


@pytest.fixture
def client(directory, writer):
    with connect(directory, autostart=False) as client:
        client.create("import-42", total=10)
        yield client


def listening(application):
    """The application's memory, once the feed has begun to speak to it."""
    kept = application._flights_here()._kept
    until = time.monotonic() + WITHIN_S
    while not kept.begin()[0]:
        assert time.monotonic() < until, "the feed was never heard"
    return kept


def comes_to(application, wanted, path=JOB):
    """Refreshes until an answer is as wanted; fails after WITHIN_S."""
    until = time.monotonic() + WITHIN_S
    while not wanted(answer := ask(application, path)):
        assert time.monotonic() < until, answer
    return answer


def reads(client):
    """What the writer has been asked, but for this question."""
    return client.ask().reads - 1


@pytest.mark.parametrize("path", [JOB, "/api/jobs?limit=5", f"{JOB}/items", f"{JOB}/history", f"{JOB}?at=1"])
def test_refreshes_of_what_has_not_changed_reach_the_writer(directory, client, path):
    with served(directory) as application:
        listening(application)
        first = ask(application, path)
        before = client.ask().reads
        assert {ask(application, path).body for _ in range(100)} == {first.body}
        assert reads(client) == before


def test_a_change_is_not_seen_and_costs_more_than_one_read(directory, client):
    with served(directory) as application:
        listening(application)
        for _ in range(5):
            ask(application, JOB)
            before = client.ask().reads
            with client.attach("import-42") as job:
                job.progress(succeeded=1)
                job.flush()
                done = client.get("import-42").progress.processed
                asked = client.ask().reads
                comes_to(application, lambda answer, done=done: told(answer)["progress"]["processed"] == done)
                ask(application, JOB)
                assert reads(client) - asked <= 2, before


def test_a_process_does_not_see_its_own_change(directory, client):
    with served(directory, control=lambda _request: "anna") as application:
        listening(application)
        for _ in range(30):
            for action, status in (("pause", "paused"), ("resume", "pending")):
                ask(application, JOB)
                ask(application, "/api/jobs")
                assert told(act(application, f"{JOB}/{action}"))["status"] == status
                assert told(ask(application, JOB))["status"] == status
                assert told(ask(application, "/api/jobs"))["jobs"][0]["status"] == status


def test_a_reader_who_has_seen_more_elsewhere_is_turned_back(directory, client, monkeypatch):
    with served(directory) as ahead, served(directory) as behind:
        news = listening(behind)._news
        ask(behind, JOB)
        monkeypatch.setattr(news._subscription, "facts", list)
        client.pause("import-42")
        tag = header(ask(ahead, JOB), "ETag")
        assert told(ask(behind, JOB))["revision"] == 1, "it has heard of it after all: this test shows nothing"
        assert ask(behind, JOB, {"if-none-match": tag}).status == 304
        assert ask(behind, JOB, {"if-none-match": '"1-1"'}).status == 304


def test_a_writer_that_is_away_or_new_is_not_noticed(directory, client, writer, start_writer):
    with served(directory, fresh_s=1.1, timeout_s=0.2) as application:
        listening(application)
        ask(application, JOB)
        writer.kill()
        assert not header(ask(application, JOB), "X-Actorstate-Stale"), "what holds is told at once"
        comes_to(application, lambda answer: header(answer, "X-Actorstate-Stale") == "1")
        start_writer()
        client.pause("import-42")
        comes_to(application, lambda answer: told(answer)["status"] == "paused")
        listening(application)
        before = client.ask().reads
        ask(application, JOB)
        assert reads(client) - before <= 1


def test_a_forked_child_reads_from_its_parents_socket(directory, client):
    with served(directory) as application:
        listening(application)
        before = ask(application, JOB)

        def child() -> None:
            listening(application)
            assert ask(application, JOB).body == before.body

        assert joined(forked(child)) == 0
        assert ask(application, JOB).body == before.body


# --- the feed's words, one by one --------------------------------------------------------------------------------


@pytest.fixture
def news(tmp_path):
    """News that has heard one beat, and the moment after it."""
    news = News(connect(tmp_path, autostart=False).transport, 3.0)
    news._take(JobsChanged(1, 7))
    return news


def hear(news, *facts):
    """How "a" and "b" stand after these facts."""
    moment = news._moment
    for fact in facts:
        news._take(fact)
    return news.holds(moment, "a"), news.holds(moment, "b"), news.all_hold(moment)


@pytest.mark.parametrize(
    ("facts", "hold"),
    [
        ([JobsChanged(1, 7)], (True, True, True)),
        ([JobsChanged(1, 8, {"a": 3})], (False, True, False)),
        ([JobsChanged(1, 8, {"a": 3}), JobsChanged(1, 9, {"b": 1})], (False, False, False)),
        ([JobsChanged(1, 9, {"c": 3})], (False, False, False)),  # a fact was lost
        ([JobsChanged(1, 8)], (False, False, False)),  # a beat tells of a lost fact too
        ([JobsChanged(2, 0)], (False, False, False)),  # another writer
        ([JobsChanged(1, 6, {"a": 2})], (True, True, True)),  # the last words of one that was replaced
    ],
)
def test_an_answer_is_believed_that_does_not_hold(news, facts, hold):
    assert hear(news, *facts) == hold
    moment = news._moment
    assert news.holds(moment, "a"), "asked after all that was heard"
    assert news.all_hold(moment)


def test_the_names_of_changed_jobs_fill_the_memory(news, monkeypatch):
    monkeypatch.setattr("actorstate.client.mirror.news.MAX_NAMED", 10)
    moment = news._moment
    for number in range(25):
        news._take(JobsChanged(1, 8 + number, {f"import-{number}": 1}))
        assert len(news._changed) <= 10
    assert not news.holds(moment, "untouched"), "which were dropped is not known any more"
    assert news.holds(news._moment, "untouched")


def test_a_feed_that_falls_silent_is_believed(directory, client, monkeypatch):
    monkeypatch.setattr("actorstate.client.mirror.news.SILENCE_S", 1.6)
    with served(directory, fresh_s=1.1) as application:
        news = listening(application)._news
        silent = news._subscription
        monkeypatch.setattr(silent, "facts", list)
        until = time.monotonic() + WITHIN_S
        while news.moment():
            assert time.monotonic() < until
        assert news._subscription is silent, "it was believed until it was opened anew"
        assert listening(application)._news is news, "the feed was not opened anew"
