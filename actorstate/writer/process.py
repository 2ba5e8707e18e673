"""The writer process: one at a time. Lock, store, epoch, sockets, readiness; and the way back.

The order is the safety: nobody is answered before the lock is held and the new epoch is on the disk.
"""

import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from types import FrameType

from actorstate import telemetry
from actorstate.config import WriterSettings
from actorstate.endpoint import (
    Endpoint,
    WriterLock,
    boot_id,
    discard_short_folder,
    highest_epoch,
    private_folder,
    read_endpoint,
    socket_addresses,
    withdraw_endpoint,
    write_endpoint,
    write_epoch,
)
from actorstate.errors import ActorStateError, DiskFull, StoreError, WriterUnavailable
from actorstate.store.choice import store_at
from actorstate.store.contract import Store
from actorstate.store.files import make_private_folder
from actorstate.store.location import Location
from actorstate.writer.notify import notify, watchdog_interval_s
from actorstate.writer.server import TICK_S, Server

log = logging.getLogger("actorstate.writer")

SWITCH_INTERVAL_S = 0.0001
"""How long the loop may keep a waiting commit thread from running; CPython's default of 5 ms is 50 times more."""
EXIT_STORE = 74
"""Exit status after a disk failure or a lost epoch (EX_IOERR of sysexits.h): a supervisor should start anew."""


def serve(location: Location, settings: WriterSettings, ready: Callable[[Endpoint], None]) -> int:
    """Serves `location` until SIGTERM, SIGINT or idleness and returns the exit status.

    Raises WriterRunning, OtherStore, StoreTooNew, StoreFailed when it cannot begin. Main thread only, for the signals.
    """
    os.umask(0o077)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    directory, store = location.directory, store_at(location)
    make_private_folder(private_folder(directory))
    lock = WriterLock(directory)
    lock.acquire()
    stop_log = telemetry.listen(_log_event, *_LEVELS)
    try:
        with _opened(store):
            return _serve(directory, settings, store, lock, ready=ready)
    finally:
        stop_log()
        lock.release()


def next_epoch(directory: Path, store: Store) -> int:
    """Raises the epoch above all that store and directory ever saw, durably."""
    epoch = highest_epoch(directory, store.epoch()) + 1
    store.set_epoch(epoch)
    write_epoch(directory, epoch)
    return epoch


def _serve(
    directory: Path, settings: WriterSettings, store: Store, lock: WriterLock, *, ready: Callable[[Endpoint], None]
) -> int:
    epoch = next_epoch(directory, store)
    server = Server(store, epoch, settings, lock.descriptor)
    with contextlib.suppress(WriterUnavailable):  # there was none, or it has ended in good order
        discard_short_folder(read_endpoint(directory))
    requests, changes = socket_addresses(directory)
    endpoint = Endpoint(requests, changes, os.getpid(), boot_id(), epoch)
    server.bind(requests, changes)
    try:
        server.recover()
        write_endpoint(directory, endpoint)
        _keep_watchdog(server)
        with _stopping(server):
            notify("READY=1")
            ready(endpoint)
            drained = server.run()
        if not drained:
            log.critical("the disk did not answer in time; what was not acknowledged is not written")
            os._exit(EXIT_STORE)  # the commit thread may hang in the kernel: nothing here can wait for it
        withdraw_endpoint(directory, endpoint)
    except StoreError as error:
        log.critical("the writer ends: %s", error)
        return EXIT_STORE
    finally:
        server.close()
        discard_short_folder(endpoint)
    return 0


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

    def stop(_number: int, _frame: FrameType | None) -> None:
        server.stop()
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


_LEVELS = {
    "actor.failed": logging.ERROR,
    "actor.lost": logging.ERROR,
    "list.left_out": logging.ERROR,
    "epoch.damaged": logging.ERROR,
    "expiry.failed": logging.ERROR,
    "recovery.failed": logging.ERROR,
    "store.damage_found": logging.ERROR,
    "store.parse_failed": logging.ERROR,
    "store.read_retried": logging.WARNING,
    "store.job_recovered": logging.WARNING,
    "store.foreign_edit": logging.WARNING,
    "store.counts_mended": logging.WARNING,
    "store.job_adopted": logging.INFO,
    "store.stranger_left": logging.WARNING,
    "store.second_copy_made": logging.INFO,
    "commit.refused": logging.WARNING,
    "history.kept": logging.WARNING,
    "recall.failed": logging.ERROR,
    "reply.undelivered": logging.INFO,
    "writer.drain_failed": logging.WARNING,
    "writer.idle": logging.INFO,
}


def _log_event(name: str, fields: dict[str, object]) -> None:
    level = _LEVELS[name]
    error = fields.get("error")
    defect = error if isinstance(error, Exception) and not isinstance(error, ActorStateError) else None
    log.log(level, "%s %s", name, fields, exc_info=defect)
