"""Items as an app has them, an HTTP service with moods that takes them, and migrations that are killed at a point."""

import contextlib
import json
import os
import queue
import signal
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from actorstate import telemetry
from actorstate.client.options import JobOptions
from actorstate.client.sync import Client, connect
from actorstate.core.messages.document import JobState
from actorstate.migrate.items.course import REACHED
from actorstate.migrate.items.files import CsvFile, JsonLines
from actorstate.migrate.items.mapping import FieldMapping
from actorstate.migrate.items.overhttp import HttpTarget
from actorstate.migrate.items.rules import Migration, Rules
from actorstate.migrate.items.run import migrate_items
from actorstate.migrate.items.shape import Source, Target
from actorstate.migrate.sqlitefiles.records import TableSource, TableTarget
from tests.support.processes import LIVELY, WITHIN_S, Aside, Child, tell
from tests.support.writer import WriterProcess

ROWS = 20
BATCH = 5
THERE, NAMELESS = 3, 7
"""The row that the target has already, and the one that it cannot take."""
MAPPING = FieldMapping({"name": "full_name"}, {"origin": "old app"})
EXPECTED = [(n, f"person {n}", float(20 + n), "old app") for n in range(1, ROWS + 1) if n not in {THERE, NAMELESS}]
"""What is in the target when all is done, beside the row that was there."""
COUNTS = {"processed": ROWS, "succeeded": ROWS - 2, "failed": 1, "skipped": 0, "duplicates": 1}


def make_source(folder: Path, rows: int = ROWS) -> None:
    """The same people as a table, as CSV and as JSON lines."""
    people = [(n, None if n == NAMELESS else f"person {n}", 20 + n) for n in range(1, rows + 1)]
    with contextlib.closing(sqlite3.connect(folder / "old.sqlite")) as database, database:
        database.execute("CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT, age INTEGER)")
        database.executemany("INSERT INTO people VALUES (?, ?, ?)", people)
    lines = [json.dumps({"id": n, "name": name, "age": age}) for n, name, age in people]
    (folder / "people.jsonl").write_text("\n".join(lines) + "\n")
    table = [f'{n},"{name}",{age}' for n, name, age in people]
    (folder / "people.csv").write_text("\r\n".join(["id,name,age", *table]) + "\r\n")


def make_target(folder: Path) -> None:
    """A table that notes each write to it, and has one of the people already."""
    with contextlib.closing(sqlite3.connect(folder / "new.sqlite")) as database, database:
        database.executescript(f"""
            CREATE TABLE members (id INTEGER PRIMARY KEY, full_name TEXT NOT NULL, age REAL, origin TEXT);
            INSERT INTO members VALUES ({THERE}, 'somebody else', 1, 'here before');
            CREATE TABLE writes (id INTEGER);
            CREATE TRIGGER created AFTER INSERT ON members BEGIN INSERT INTO writes VALUES (new.id); END;
            CREATE TRIGGER updated AFTER UPDATE ON members BEGIN INSERT INTO writes VALUES (new.id); END;
        """)


def asked(folder: Path, sql: str) -> list[tuple[Any, ...]]:
    """What the target's database answers."""
    with contextlib.closing(sqlite3.connect(folder / "new.sqlite")) as database, database:
        return database.execute(sql).fetchall()


def members(folder: Path) -> list[tuple[Any, ...]]:
    """The target's rows, but for the one that was there."""
    return asked(folder, f"SELECT * FROM members WHERE id <> {THERE} ORDER BY id")


def written_twice(folder: Path) -> dict[int, int]:
    """Rows that were written more than once."""
    return {row: number for (row,), number in Counter(asked(folder, "SELECT id FROM writes")).items() if number > 1}


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """A folder with source and target."""
    make_source(tmp_path)
    make_target(tmp_path)
    return tmp_path


@contextlib.contextmanager
def migrating(folder: Path, job: str, source: str = "table", url: str = "", **rules: Any) -> Generator[Migration]:
    """A migration of the people; `rules` in the place of the usual ones."""
    options = {"key": "id", "mapping": MAPPING, "batch_size": BATCH} | rules
    with contextlib.ExitStack() as ends:
        origin: Source = (
            ends.enter_context(TableSource(folder / "old.sqlite", "people"))
            if source == "table"
            else {"csv": CsvFile, "jsonl": JsonLines}[source](folder / f"people.{source}")
        )
        target: Target = ends.enter_context(
            HttpTarget(url) if url else TableTarget(folder / "new.sqlite", "members", "id")
        )
        yield Migration(job, origin, target, Rules(**options), "people", "members")


def migrate(client: Client, folder: Path, job: str, source: str = "table", url: str = "", **rules: Any) -> JobState:
    """Migrates the people; `retry`, `again` and the job's options may be among the rules."""
    named = ("retry", "again", *JobOptions.__annotations__)
    options = {name: rules.pop(name) for name in named if name in rules}
    with migrating(folder, job, source, url, **rules) as migration:
        return migrate_items(client, migration, **options)


def counted(state: JobState) -> dict[str, int]:
    """The counts of a job."""
    return {name: getattr(state.progress, name) for name in COUNTS}


def ledger(client: Client, job: str) -> dict[str, tuple[str, str, int]]:
    """Outcome, category and attempts by key."""
    return {item.key: (item.outcome, item.category, item.attempts) for item in client.items(job)}


def killed(jobs: str, folder: str, job: str, told: str) -> None:
    """In a child: migrates, tells each point that it reaches, and at the n-th of a kind sends itself a signal."""
    options: dict[str, Any] = json.loads(told)
    point, left = options.pop("point"), options.pop("number")
    how = signal.Signals(options.pop("signal", signal.SIGKILL))

    def strike(_name: str, fields: dict[str, object]) -> None:
        nonlocal left
        tell(fields["point"])
        if fields["point"] == point:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), how)

    telemetry.listen(strike, REACHED)
    with connect(jobs, settings=LIVELY) as client:
        migrate(client, Path(folder), job, **options)


def killed_in(served: WriterProcess, folder: Path, job: str, **how: object) -> Child:
    """A child that migrates until `point` is reached the `number`-th time."""
    return Child(killed, served.directory, folder, job, json.dumps(how))


class Beside(Aside):
    """A migration beside the test. At the points `held` it waits until `go_on` is called."""

    def __init__(self, work: Callable[[], object], *held: str) -> None:
        self._held, self._came, self._may_go = held, queue.SimpleQueue[str](), threading.Semaphore(0)
        self._stop = telemetry.listen(self._reach, REACHED)
        super().__init__(work)

    def reached(self, point: str) -> None:
        """Returns once it has come to this point."""
        while self._came.get(timeout=WITHIN_S) != point:
            pass

    def go_on(self) -> None:
        """Lets it go on from a point at which it is held."""
        self._may_go.release()

    def result(self, within_s: float = WITHIN_S) -> object:
        try:
            return super().result(within_s)
        finally:
            self._stop()

    def _reach(self, _name: str, fields: dict[str, object]) -> None:
        point = str(fields["point"])
        self._came.put(point)
        if point in self._held:
            assert self._may_go.acquire(timeout=WITHIN_S), "the test never let it go on"


Mood = tuple[int, dict[str, str]]
"""A status and headers that answer a PUT once; status 0 closes the connection without an answer."""


@dataclass(slots=True)
class Service:
    """What a server of items has, and how it is going to answer next."""

    url: str = ""
    items: dict[str, dict[str, object]] = field(default_factory=dict[str, dict[str, object]])
    moods: dict[str, list[Mood]] = field(default_factory=dict[str, list[Mood]])
    lost_answers: set[str] = field(default_factory=set[str])
    """Keys whose next PUT is carried out, and its answer lost."""
    puts: Counter[str] = field(default_factory=Counter[str])
    """PUTs that have changed something."""
    tokens: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    requests: int = 0
    on_put: Callable[[str], object] = lambda _key: None
    on_request: Callable[[Message], object] = lambda _headers: None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    service: Service

    @property
    def key(self) -> str:
        return unquote(self.path.rpartition("/")[2])

    def do_GET(self) -> None:
        self.service.requests += 1
        self.service.on_request(self.headers)
        found = self.service.items.get(self.key)
        self._answer(404 if found is None else 200, b"" if found is None else json.dumps(found).encode())

    def do_PUT(self) -> None:
        service, key = self.service, self.key
        service.requests += 1
        service.on_request(self.headers)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        service.tokens.setdefault(key, set()).add(self.headers["Idempotency-Key"])
        service.on_put(key)
        if moods := service.moods.get(key):
            status, headers = moods.pop(0)
            if status:
                return self._answer(status, b'{"error": "not now"}', headers)
            self.close_connection = True
            return None
        if key in service.items and self.headers.get("If-None-Match") == "*":
            return self._answer(412, b"")
        created = key not in service.items
        service.items[key] = json.loads(body)
        service.puts[key] += 1
        if key in service.lost_answers:
            service.lost_answers.discard(key)
            self.close_connection = True
            return None
        return self._answer(201 if created else 200, b"")

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """What gets no answer is tried again at once."""
    monkeypatch.setattr("actorstate.migrate.items.batch.NETWORK_PAUSE_S", 0.01)


@pytest.fixture
def service() -> Iterator[Service]:
    """A real server on the loopback."""
    state = Service()
    handler = type("Handler", (_Handler,), {"service": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    beside = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    beside.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}/people/{{key}}"
    yield state
    server.shutdown()
    server.server_close()
    beside.join()
