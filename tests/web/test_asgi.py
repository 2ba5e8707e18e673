"""The same answers over ASGI, many readers held in one process, and streams that end when anybody goes."""

import asyncio
import json

import pytest

from actorstate.client.aio import connect_async
from actorstate.client.sync import connect
from actorstate.core.messages.replies import NotModified, Reply
from actorstate.core.messages.requests import Get
from actorstate.errors import WriterUnavailable
from actorstate.web.asgi import Application
from actorstate.web.flights import AsyncFlights
from actorstate.web.settings import WebSettings
from tests.support.web import ALWAYS

PATIENCE_S = 20.0


class Exchange:
    """One request to the application, as a server would carry it."""

    def __init__(self, application, path, method="GET", headers=(), body=b""):
        self.application, self.body, self.sent = application, body, []
        path, _, query = path.partition("?")
        self.scope = {
            "type": "http", "method": method, "path": path, "root_path": "", "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in headers],
        }  # fmt: skip
        self.gone, self.news = asyncio.Event(), asyncio.Condition()

    async def receive(self):
        if self.body is not None:
            body, self.body = self.body, None
            return {"type": "http.request", "body": body}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, event):
        async with self.news:
            self.sent.append(event)
            self.news.notify_all()

    async def carried_out(self):
        await asyncio.wait_for(self.application(self.scope, self.receive, self.send), PATIENCE_S)
        return self

    async def until(self, wanted):
        async with self.news:
            await asyncio.wait_for(self.news.wait_for(lambda: wanted in self.text), PATIENCE_S)

    @property
    def status(self):
        return self.sent[0]["status"]

    @property
    def headers(self):
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def text(self):
        return b"".join(event.get("body", b"") for event in self.sent[1:])


@pytest.fixture(scope="module")
def directory(shared_writer):
    return shared_writer.directory


@pytest.fixture
def client(directory):
    with connect(directory, autostart=False) as client:
        yield client


def asked(directory, story, **settings):
    """Runs the story with an application of this directory."""

    async def run():
        async with connect_async(directory, autostart=False) as client:
            await story(Application(client, WebSettings(**settings)))

    asyncio.run(run())


def test_a_job_and_its_tag(directory, client):
    client.create("import-1", total=10)

    async def story(application):
        first = await Exchange(application, "/api/jobs/import-1").carried_out()
        assert (first.status, json.loads(first.text)["id"]) == (200, "import-1")
        assert first.headers["content-length"] == str(len(first.text))
        seen = [("If-None-Match", first.headers["etag"])]
        again = await Exchange(application, "/api/jobs/import-1", headers=seen).carried_out()
        assert (again.status, again.text) == (304, b"")
        assert "content-length" not in again.headers

    asked(directory, story)


def test_a_control_with_a_body_and_one_that_is_too_large(directory, client):
    client.create("import-2")
    client.fail("import-2", "no")

    async def story(application):
        ours = [("X-Actorstate", "1")]
        path = "/api/jobs/import-2/retry"
        assert (await Exchange(application, path, "POST", ours, b" " * 20_000).carried_out()).status == 413
        done = await Exchange(application, path, "POST", ours, b'{"from_start": true}').carried_out()
        assert json.loads(done.text)["attempt"] == 2

    asked(directory, story, control=lambda request: str(request.context["type"]))
    assert client.get("import-2").attempts[0].retried_by == "http"


def test_two_hundred_held_readers_of_one_job_are_one_question(directory, client):
    client.create("import-3")
    before = client.ask().reads

    async def story(application):
        path, seen = "/api/jobs/import-3?wait=20", [("If-None-Match", '"1-1"')]
        held = [asyncio.ensure_future(Exchange(application, path, headers=seen).carried_out()) for _ in range(200)]
        while len(application._router._reading._waiting) < 200:  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(0)
        await asyncio.to_thread(client.pause, "import-3")
        assert {each.status for each in await asyncio.gather(*held)} == {200}

    asked(directory, story)
    assert client.ask().reads - before < 10, "each of them asked the writer"


def test_events_go_out_as_they_happen_and_end_with_the_job(directory, client):
    client.create("import-4")

    async def story(application):
        reader = Exchange(application, "/api/jobs/import-4/events")
        task = asyncio.ensure_future(reader.carried_out())
        await reader.until(b"id: 1-1\n")
        await asyncio.to_thread(client.pause, "import-4")
        await reader.until(b'"status":"paused"')
        await asyncio.to_thread(client.cancel, "import-4")
        await task
        assert b'"status":"cancelled"' in reader.text
        assert reader.headers["content-type"] == "text/event-stream"

    asked(directory, story, stream_every_s=0.0)


def test_a_reader_that_goes_ends_his_stream(directory, client):
    client.create("import-5")

    async def story(application):
        reader = Exchange(application, "/api/jobs/import-5/events")
        task = asyncio.ensure_future(reader.carried_out())
        await reader.until(b"id: 1-1\n")
        reader.gone.set()
        await task
        assert not application._router._reading._streams

    asked(directory, story)


def test_streams_end_at_shutdown(directory, client):
    client.create("import-6")

    async def story(application):
        readers = [Exchange(application, "/api/jobs/import-6/events") for _ in range(20)]
        tasks = [asyncio.ensure_future(reader.carried_out()) for reader in readers]
        for reader in readers:
            await reader.until(b"id: 1-1\n")
        application.end_streams()
        await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE_S)

    asked(directory, story)


def test_the_life_of_the_process_is_followed(directory):
    async def story(application):
        events = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
        said = []

        async def receive():
            return next(events)

        async def send(event):
            said.append(event["type"])

        await application({"type": "lifespan"}, receive, send)
        assert said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]

    asked(directory, story)


def test_a_path_below_a_mount_point_is_found(directory, client):
    client.create("import-7")

    async def story(application):
        reader = Exchange(application, "/admin/api/jobs/import-7")
        reader.scope["root_path"] = "/admin"
        assert (await reader.carried_out()).status == 200
        reader = Exchange(application, "/admin")
        reader.scope["root_path"] = "/admin"
        assert (await reader.carried_out()).headers["location"] == "/admin/"

    asked(directory, story)


def test_an_asyncio_reader_is_not_given_an_answer_older_than_his_question():
    async def story():
        revision, gate, asked = 1, asyncio.Event(), 0

        async def call(_body, _timeout_s):
            nonlocal asked
            asked += 1
            told, first = revision, asked == 1
            if first:
                await gate.wait()
            return Reply(1, 1, NotModified(told))

        flights = AsyncFlights(call, ALWAYS)
        send = type("Send", (), {"body": Get("import-42"), "timeout_s": None})
        first = asyncio.ensure_future(flights.reply(send))
        while not asked:  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(0)
        revision = 2
        rest = [asyncio.ensure_future(flights.reply(send)) for _ in range(50)]
        await asyncio.sleep(0)
        rest[0].cancel()  # who leads the others may go
        gate.set()
        assert (await first).answer.revision == 1
        assert {(await each).answer.revision for each in rest[1:]} == {2}
        assert asked == 2
        assert not flights._next
        assert not flights._under_way

    asyncio.run(story())


def test_during_an_outage_one_task_asks_for_all():
    async def story():
        asked = 0

        async def call(_body, _timeout_s):
            nonlocal asked
            asked += 1
            raise WriterUnavailable("away")

        flights = AsyncFlights(call, ALWAYS)
        send = type("Send", (), {"body": Get("import-42"), "timeout_s": None})
        for _ in range(20):
            with pytest.raises(WriterUnavailable):
                await flights.reply(send)
        assert asked <= 2

    asyncio.run(story())
