"""Reads of a mirror, of Redis and of SQLite by the same number of processes, while the job changes.

pytest -s -m nightly tests/integration/test_mirror_against_peers.py

The peers are given every advantage: their readers take the bytes as they come and decode nothing, Redis is
asked over its Unix socket in its own protocol, SQLite by its key in one prepared statement. A mirror's reader
gets the state decoded, and is told when it is too old.
"""

import contextlib
import itertools
import select
import shutil
import socket
import sqlite3
import statistics
import subprocess
import threading
import time
from pathlib import Path

import pytest

from actorstate.client.sync import Client, connect
from actorstate.core import codec
from tests.support.processes import WITHIN_S, Child, client, hear, job, served, tell
from tests.support.writer import WriterProcess

__all__ = ["client", "job", "served"]
pytestmark = [pytest.mark.nightly, pytest.mark.alone]
READERS, ROUNDS, SLICE_S, BATCH = 4, 3, 1.0, 200
CHANGE_EVERY_S = 0.01
GET = b"*2\r\n$3\r\nGET\r\n$8\r\nimport-1\r\n"


def reads(read):
    """In a child: how many reads a second, for a slice, each time that it is told to."""
    read()
    tell("ready")
    while hear():
        number, began = 0, time.monotonic()
        while (now := time.monotonic()) < began + SLICE_S:
            for _ in range(BATCH):
                read()
            number += BATCH
        tell(number / (now - began))


def read_mirror(directory: str) -> None:
    with connect(directory, autostart=False) as client, client.mirror() as mirror:
        reads(lambda: mirror.get("import-1"))


def read_redis(place: str) -> None:
    with socket.socket(socket.AF_UNIX) as redis:
        redis.connect(place)

        def read() -> None:
            redis.sendall(GET)
            answer = redis.recv(65_536)
            while not answer.endswith(b"\r\n"):
                answer += redis.recv(65_536)

        reads(read)


def read_sqlite(place: str) -> None:
    database = sqlite3.connect(place)
    reads(lambda: database.execute("SELECT state FROM jobs WHERE id = ?", ("import-1",)).fetchone())


@contextlib.contextmanager
def redis_server(folder: Path, state: bytes):
    """Redis without a disk, and what sets the key in it."""
    place = folder / "redis"
    command = ["redis-server", "--port", "0", "--unixsocket", str(place), "--save", "", "--appendonly", "no"]
    with subprocess.Popen([*command, "--dir", str(folder)], stdout=subprocess.PIPE) as process:
        try:
            told = b""
            while b"ready to accept" not in told.lower():
                assert select.select([process.stdout], [], [], WITHIN_S)[0], told
                told += process.stdout.read1()
            with socket.socket(socket.AF_UNIX) as writer:
                writer.connect(str(place))

                def change(number: int) -> None:
                    value = state + b"%d" % number
                    writer.sendall(b"*3\r\n$3\r\nSET\r\n$8\r\nimport-1\r\n$%d\r\n%s\r\n" % (len(value), value))
                    writer.recv(100)

                change(0)
                yield str(place), change
        finally:
            process.terminate()


@contextlib.contextmanager
def sqlite_file(folder: Path, state: bytes):
    """A database in WAL mode, and what updates the row in it."""
    place = folder / "peer.sqlite"
    with contextlib.closing(sqlite3.connect(place, check_same_thread=False, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute("CREATE TABLE jobs (id TEXT PRIMARY KEY, state BLOB) WITHOUT ROWID")
        database.execute("INSERT INTO jobs VALUES ('import-1', ?)", (state,))
        yield str(place), lambda number: database.execute("UPDATE jobs SET state = ?", (state + b"%d" % number,))


@contextlib.contextmanager
def changing(change):
    """Calls it a hundred times a second while the block is open."""
    over = threading.Event()

    def work() -> None:
        number = 0
        while not over.wait(CHANGE_EVERY_S):
            number += 1
            change(number)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(WITHIN_S)


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="needs redis-server: apt install redis-server")
def test_a_mirror_is_not_five_times_as_fast_as_redis_and_sqlite(
    served: WriterProcess, client: Client, tmp_path: Path
) -> None:
    client.create("import-1", total=1_000_000, meta={"source": "s" * 1_500})
    state = codec.encode(client.get("import-1"))
    with contextlib.ExitStack() as stack:
        run = stack.enter_context(client.attach("import-1"))
        redis, set_key = stack.enter_context(redis_server(tmp_path, state))
        database, update = stack.enter_context(sqlite_file(tmp_path, state))
        peers = {
            "mirror": (read_mirror, str(served.directory), lambda _number: run.progress(succeeded=1)),
            "redis": (read_redis, redis, set_key),
            "sqlite": (read_sqlite, database, update),
        }
        children = {
            name: [stack.enter_context(Child(read, place)) for _ in range(READERS)]
            for name, (read, place, _change) in peers.items()
        }
        for child in itertools.chain.from_iterable(children.values()):
            child.expect("ready")
        rates = {name: [] for name in peers}
        for _ in range(ROUNDS):
            for name, (_read, _place, change) in peers.items():
                with changing(change):
                    for child in children[name]:
                        child.say("go")
                    rates[name].append(sum(child.read() for child in children[name]))
    best = {name: statistics.median(each) for name, each in rates.items()}
    size = len(state)
    told = ", ".join(f"{name} {rate:,.0f}" for name, rate in best.items())
    better = max(best["redis"], best["sqlite"])
    print(f"\nreads a second, {READERS} processes, {size:,} bytes, 100 changes a second: {told}")
    print(f"the mirror against the better peer: {best['mirror'] / better:.1f} times")
    assert best["mirror"] >= 5 * better
