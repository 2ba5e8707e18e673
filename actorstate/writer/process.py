"""The writer process: one at a time. Lock, store, epoch, sockets, readiness; and the way back.

The order is the safety: nobody is answered before the lock is held and the new epoch is on the disk.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Generator
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from actorstate import telemetry
from actorstate.config import VERSION, WriterSettings
from actorstate.endpoint import (
    Endpoint,
    WriterLock,
    boot_id,
    discard_short_folder,
    highest_epoch,
    read_endpoint,
    socket_addresses,
    withdraw_endpoint,
    write_endpoint,
    write_epoch,
)
from actorstate.errors import DiskFull, StoreError, WriterUnavailable
from actorstate.store.choice import store_at
from actorstate.store.contract import Store
from actorstate.store.files import is_full
from actorstate.store.location import Location, quoted
from actorstate.writer.log import Log
from actorstate.writer.meter import Meter
from actorstate.writer.notify import notify, watchdog_interval_s
from actorstate.writer.server import TICK_S, Server

SWITCH_INTERVAL_S = 0.0001
"""How long the loop may keep a waiting commit thread from running; CPython's default of 5 ms is 50 times more."""
EXIT_STORE = 74
"""Exit status after a disk failure or a lost epoch (EX_IOERR of sysexits.h): a supervisor should start anew."""


def serve(location: Location, settings: WriterSettings, ready: Callable[[Endpoint], None]) -> int:
    """Serves `location` until SIGTERM, SIGINT or idleness and returns the exit status.

    Raises WriterRunning, OtherStore, NotOwner, StoreTooNew, DiskFull, StoreFailed when it cannot begin. Main thread
    only, for the signals.
    """
    os.umask(0o077)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    directory, store = location.directory, store_at(location)
    lock, meter = WriterLock(directory), Meter()
    with _told_full(location):
        lock.acquire()
    try:
        with _told_full(location), Log().listening(), meter.listening(), _opened(store):
            return _serve(location, settings, store, lock, meter=meter, ready=ready)
    finally:
        lock.release()


@contextlib.contextmanager
def _told_full(location: Location) -> Generator[None]:
    """A start needs some room; nobody waits for a call that could be repeated."""
    try:
        yield
    except (DiskFull, OSError) as error:
        if not isinstance(error, DiskFull) and not is_full(error):
            raise
        again, look = f"actorstate serve {quoted(location)}", f"df -h {quoted(location.directory)}"
        hint = f"free some space, then: {again}; how full it is: {look}"
        told = f"the disk under {location.directory} is full: the writer cannot begin; what was stored is as it was"
        raise DiskFull(told, hint=hint) from error


def next_epoch(directory: Path, store: Store) -> int:
    """Raises the epoch above all that store and directory ever saw, durably."""
    epoch = highest_epoch(directory, store.epoch()) + 1
    store.set_epoch(epoch)
    write_epoch(directory, epoch)
    return epoch


def _serve(
    location: Location,
    settings: WriterSettings,
    store: Store,
    lock: WriterLock,
    *,
    meter: Meter,
    ready: Callable[[Endpoint], None],
) -> int:
    directory = location.directory
    epoch = next_epoch(directory, store)
    server = Server(store, epoch, settings, lock.descriptor, meter=meter)
    _clear_up(directory)
    requests, changes = socket_addresses(directory)
    endpoint = Endpoint(requests, changes, os.getpid(), boot_id(), epoch, location.kind)
    server.bind(requests, changes)
    try:
        server.recover()
        write_endpoint(directory, endpoint)
        _keep_watchdog(server)
        with _stopping(server):
            notify("READY=1")
            born = {"epoch": epoch, "pid": endpoint.pid, "release": VERSION}
            telemetry.event("writer.started", directory=directory, **born, requests=requests)
            ready(endpoint)
            drained = server.run()
        if not drained:
            told = "the disk did not answer in time; what was not acknowledged is not written"
            telemetry.event("writer.drain_failed", message=told, **_life(meter))
            os._exit(EXIT_STORE)  # the commit thread may hang in the kernel: nothing here can wait for it
        withdraw_endpoint(directory, endpoint)
        telemetry.event("writer.ended", reason=server.stop_reason, epoch=epoch, **_life(meter))
    except StoreError as error:
        telemetry.event("writer.failed", error=error, next=error.hint, epoch=epoch, **_life(meter))
        return EXIT_STORE
    finally:
        server.close()
        discard_short_folder(endpoint)
    return 0


def _clear_up(directory: Path) -> None:
    """After a writer that was killed; there is no address where there was none, or it has ended in good order."""
    with contextlib.suppress(WriterUnavailable):
        before = read_endpoint(directory)
        telemetry.event("writer.was_killed", pid=before.pid, epoch=before.epoch)
        discard_short_folder(before)


def _life(meter: Meter) -> dict[str, object]:
    """What is told of a writer at its end."""
    meter.fold()
    up_s = (datetime.now(UTC) - meter.started_at).total_seconds()
    return {"up_s": round(up_s, 3), "commits": meter.commits, "changes": meter.changes}


@contextlib.contextmanager
def _opened(store: Store) -> Generator[Store]:
    store.open()
    try:
        yield store
    finally:
        store.close()


@contextlib.contextmanager
def _stopping(server: Server) -> Generator[None]:
    """SIGTERM and SIGINT drain the writer; the wake-up descriptor ends a poll that would miss the signal."""

    def stop(number: int, _frame: FrameType | None) -> None:
        server.stop(signal.Signals(number).name)
        notify("STOPPING=1")

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    wake = signal.set_wakeup_fd(server.wake_descriptor, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(wake)
        for number, handler in previous.items():
            signal.signal(number, handler)


def _keep_watchdog(server: Server) -> None:
    interval_s = watchdog_interval_s()
    if interval_s is None:
        return
    last = time.monotonic()

    def tell(last_commit: float) -> None:
        nonlocal last
        if time.monotonic() - last < interval_s - TICK_S:
            return
        if last_commit < last:
            with contextlib.suppress(DiskFull):  # it lives, and says so to who asks for a change
                server.probe()
        notify("WATCHDOG=1")
        last = time.monotonic()

    server.on_tick = tell
