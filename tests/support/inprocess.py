"""A writer in a thread of the test, so that telemetry listeners can hold its commits or make them fail."""

import contextlib
import os
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from actorstate import telemetry
from actorstate.config import WriterSettings
from actorstate.endpoint import (
    Endpoint,
    WriterLock,
    boot_id,
    private_folder,
    read_endpoint,
    socket_addresses,
    withdraw_endpoint,
    write_endpoint,
)
from actorstate.store.contract import JobCommit, Store
from actorstate.store.sqlite import SqliteStore
from actorstate.writer.meter import Meter
from actorstate.writer.process import next_epoch
from actorstate.writer.server import Server
from tests.support.writer import listening

PATIENCE_S = 30.0
BESIDE = WriterSettings(beside_above_s=0.0)
"""Every commit runs beside the loop, as on a slow disk."""


class WriterThread:
    """The server of `directory` in a thread of its own, over real sockets and a real store.

    `store` makes the store. The block waits for readiness, and at its end for the thread; an error that
    ended the loop is raised there.
    """

    def __init__(
        self,
        directory: Path,
        settings: WriterSettings = BESIDE,
        store: Callable[[Path, Path], Store] = SqliteStore,
    ) -> None:
        self.directory, self._settings, self._make_store = directory, settings, store
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self.thread = threading.Thread(target=self._work, name="writer", daemon=True)
        self.server: Server | None = None
        self.meter = Meter()

    def __enter__(self) -> Self:
        self.thread.start()
        assert self._ready.wait(PATIENCE_S)
        self._raise()
        return self

    def __exit__(self, kind: type[BaseException] | None, _value: object, _trace: TracebackType | None) -> None:
        self.stop()
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive(), "the writer's loop did not end"
        if kind is None:
            self._raise()

    @property
    def endpoint(self) -> Endpoint:
        """Where it serves."""
        return read_endpoint(self.directory)

    def stop(self) -> None:
        """What SIGTERM does; fine more than once, and on one that has ended."""
        server, self.server = self.server, None
        if server is not None and self.thread.is_alive():
            with contextlib.suppress(OSError):  # it ended by itself just now
                server.stop("the test")

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _work(self) -> None:
        try:
            self._serve()
        except BaseException as error:  # noqa: BLE001 - __enter__ and __exit__ hand it to the test
            self._error = error
        finally:
            self._ready.set()

    def _serve(self) -> None:
        lock = WriterLock(self.directory)
        lock.acquire()
        store = self._make_store(self.directory / "jobs.sqlite", private_folder(self.directory) / "head")
        store.open()
        try:
            with self.meter.listening():
                self._run(store, lock)
        finally:
            store.close()
            lock.release()

    def _run(self, store: Store, lock: WriterLock) -> None:
        epoch = next_epoch(self.directory, store)
        server = Server(store, epoch, self._settings, lock.descriptor, meter=self.meter)
        requests, changes = socket_addresses(self.directory)
        endpoint = Endpoint(requests, changes, os.getpid(), boot_id(), epoch)
        server.bind(requests, changes)
        try:
            server.recover()
            write_endpoint(self.directory, endpoint)
            self.server = server
            self._ready.set()
            server.run()
            withdraw_endpoint(self.directory, endpoint)
        finally:
            server.close()


COMMITTED = "test.committed"


class Announced(SqliteStore):
    """A store that tells of each commit once it is durable, before the writer hears of it: the event `COMMITTED`."""

    def commit(self, epoch: int, batch: Sequence[JobCommit]) -> None:
        """See Store."""
        super().commit(epoch, batch)
        telemetry.event(COMMITTED)


@dataclass(slots=True)
class Gate:
    """A listener that holds the thread where its event happens until the gate is opened, or raises `error` there.

    `reached` is set when a thread has come to it.
    """

    error: BaseException | None = None
    reached: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)

    def __call__(self, _name: str, _fields: dict[str, object]) -> None:
        self.reached.set()
        assert self.opened.wait(PATIENCE_S), "the test never opened the gate"
        if self.error is not None:
            raise self.error

    def wait_reached(self) -> None:
        """Returns once a thread waits at the gate."""
        assert self.reached.wait(PATIENCE_S), "nobody came to the gate"

    def close(self) -> None:
        """Holds the next one again."""
        self.reached.clear()
        self.opened.clear()


@contextlib.contextmanager
def held(*names: str, error: BaseException | None = None) -> Generator[Gate]:
    """While the block is open, whoever comes to one of these events waits, then goes on or fails with `error`."""
    gate = Gate(error)
    with listening(gate, *names):
        try:
            yield gate
        finally:
            gate.opened.set()


@contextlib.contextmanager
def failing(event: str, error: BaseException) -> Generator[None]:
    """While the block is open, the event fails with `error`."""

    def fail(_name: str, _fields: dict[str, object]) -> None:
        raise error

    with listening(fail, event):
        yield


@contextlib.contextmanager
def recorded(*names: str) -> Generator[list[dict[str, object]]]:
    """The fields of these events, as they happen; the event's own name under `event`."""
    heard: list[dict[str, object]] = []

    def note(name: str, fields: dict[str, object]) -> None:
        heard.append({"event": name, **fields})

    with listening(note, *names):
        yield heard
