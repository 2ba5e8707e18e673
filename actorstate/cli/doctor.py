"""`doctor`: what is wrong with a directory, and what to type next. It changes nothing there.

Every examination says `ok`, `note` (worth knowing) or `WRONG` (exit status 1), and never ends the others:
what it may not read or cannot reach is itself a finding.
"""

import argparse
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from actorstate.cli import exits
from actorstate.cli.asjson import line
from actorstate.cli.command import Command, add_directory, add_timeout
from actorstate.cli.examine import Finding, note, ok, owner, process_line, process_state, size, wrong
from actorstate.cli.integrity import examine_database
from actorstate.cli.views import span
from actorstate.client.operations import asked
from actorstate.client.start import is_switched_off
from actorstate.client.sync import Client, connect
from actorstate.config import VERSION, ClientSettings
from actorstate.core.messages.replies import Metrics, WriterState
from actorstate.core.messages.requests import ReadMetrics
from actorstate.core.plain import as_plain
from actorstate.endpoint import (
    boot_id,
    highest_epoch,
    is_begun,
    is_published,
    lock_holder,
    private_folder,
    read_endpoint,
)
from actorstate.errors import ActorStateError, CorruptItem, CorruptJob, ForeignEdit, WriterUnavailable
from actorstate.store.choice import kind_of, store_at
from actorstate.store.location import Location, located, quoted

ANSWER_S = 5.0
"""How long the writer may take to answer before it is called silent."""
LITTLE_BYTES, SOME_BYTES = 100 * 2**20, 2**30
LITTLE_INODES = 1000
SLOW_SYNC_S = 0.1
JOBS_NAMED = 5
DAMAGE = (CorruptJob.code, ForeignEdit.code, CorruptItem.code)
"""Refusals that do not go away by themselves."""
REMOTE = {"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "glusterfs", "fuse.sshfs", "lustre"}
"""File systems on which neither the lock nor SQLite's log can be relied upon."""


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    add_directory(parser)
    add_timeout(parser, f"how long the writer may take to answer (default {ANSWER_S:.0f})")


def _doctor(options: argparse.Namespace) -> int:
    directory = located(options.directory).directory
    findings: list[Finding] = []
    for found in examine(directory, options.timeout or ANSWER_S):
        finding = replace(
            found, next=found.next.replace(f"serve {quoted(directory)}", f"serve {quoted(_place(directory))}")
        )
        findings.append(finding)
        if not options.json:
            print(finding.text(), flush=True)
    trouble = [finding for finding in findings if finding.level == "wrong"]
    if options.json:
        told = {"directory": str(directory), "ok": not trouble, "findings": findings}
        print(line(as_plain(told)))
    else:
        print("\n" + _summary(trouble, in_need=any(each.name == "jobs" for each in findings)))
    return exits.NO if trouble else exits.FINE


def _place(directory: Path) -> Location:
    """The directory as the commands must be given it."""
    return Location("json" if directory.is_dir() and kind_of(directory) == "json" else "sqlite", directory)


def _summary(trouble: list[Finding], *, in_need: bool) -> str:
    if not trouble:
        return "nothing is wrong here, but for the jobs named above" if in_need else "all is well"
    damage_first = sorted(trouble, key=lambda finding: finding.name != "database")
    steps = list(dict.fromkeys(finding.next for finding in damage_first if finding.next))
    wrong_things = "1 thing is wrong" if len(trouble) == 1 else f"{len(trouble)} things are wrong"
    return "\n".join([f"{wrong_things}; type next:", *(f"  {step}" for step in steps)])


def examine(directory: Path, timeout_s: float) -> Iterator[Finding]:
    """All findings about a directory, the cheap ones first."""
    yield from _told("directory", directory, lambda: _directory(directory))
    if not os.path.isdir(directory):  # noqa: PTH112 - False, not an error, where it may not be looked at
        return
    yield from _told("permissions", directory, lambda: _permissions(directory))
    yield from _told("disk", directory, lambda: _disk(directory))
    yield from _told("file system", directory, lambda: _file_system(directory))
    yield from _told("epoch", directory, lambda: _epoch(directory))
    yield from _told("store", directory, lambda: _store(directory))
    yield from _told("lock", directory, lambda: _lock(directory))
    yield from _told("writer", directory, lambda: _writer(directory, timeout_s))
    yield from _told("database", directory, lambda: examine_database(directory))


def _told(name: str, directory: Path, examination: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """The findings, or as the last of them why it could not go on."""
    try:
        yield from examination()
    except PermissionError as error:
        step = f"sudo -u {owner(directory)} actorstate doctor {quoted(directory)}"
        yield wrong(name, f"not allowed to read {error.filename or directory}", step)
    except OSError as error:
        yield wrong(name, f"{error.filename or directory}: {error.strerror or error}")
    except ActorStateError as error:
        yield wrong(name, error.message, error.hint)


def _directory(directory: Path) -> Iterator[Finding]:
    if not directory.exists():
        yield wrong("directory", f"{directory} does not exist", f"actorstate serve {quoted(directory)}")
    elif not directory.is_dir():
        yield wrong("directory", f"{directory} is a file", "name the directory it lies in")
    else:
        yield ok("directory", str(directory.resolve()))


def _permissions(directory: Path) -> Iterator[Finding]:
    found = directory.stat()
    if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
        yield wrong("permissions", f"everybody may delete files in {directory}", f"chmod o-w {quoted(directory)}")
    for path in (private_folder(directory), directory / "jobs.sqlite"):
        if path.exists() and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            yield wrong("permissions", f"{path} is open to others than {owner(path)}", f"chmod go-rwx {quoted(path)}")
    if os.access(directory, os.W_OK):
        yield ok("permissions", f"{stat.S_IMODE(found.st_mode):04o}, owned by {owner(directory)}")
    else:
        step = f"sudo -u {owner(directory)} actorstate doctor {quoted(directory)}"
        yield wrong("permissions", f"you may not write there; its owner is {owner(directory)}", step)


def _disk(directory: Path) -> Iterator[Finding]:
    disk = os.statvfs(directory)
    free = disk.f_bavail * disk.f_frsize
    said = f"{size(free)} free of {size(disk.f_blocks * disk.f_frsize)}"
    if free < LITTLE_BYTES:
        yield wrong("disk", f"{said}: changes are refused when it is full", _space_step(directory))
    elif disk.f_files and disk.f_favail < LITTLE_INODES:
        yield wrong("disk", f"only {disk.f_favail} more files fit (df -i)", f"df -i {quoted(directory)}")
    else:
        yield note("disk", said) if free < SOME_BYTES else ok("disk", said)


def _file_system(directory: Path) -> Iterator[Finding]:
    kind = file_system(directory.resolve(), Path("/proc/self/mountinfo").read_text())
    if kind in REMOTE:
        step = "move the directory to a local disk, and let other machines ask over the network"
        yield wrong("file system", f"{kind} is shared over a network: locks and logs cannot be relied upon", step)
    elif kind in {"tmpfs", "ramfs"}:
        yield note("file system", f"{kind} lives in memory: everything is gone after a restart of the machine")


def file_system(path: Path, mountinfo: str) -> str:
    """The type of the file system that holds `path`: of all mount points above it the longest, the last of equals."""
    best, kind = -1, ""
    for mount in mountinfo.splitlines():
        before, _, after = mount.partition(" - ")
        point = before.split(" ")[4].replace("\\040", " ")
        if path.is_relative_to(point) and len(point) >= best:
            best, kind = len(point), after.split(" ")[0]
    return kind


def _epoch(directory: Path) -> Iterator[Finding]:
    highest_epoch(directory)
    yield from ()


def _store(directory: Path) -> Iterator[Finding]:
    """What a start of the writer refuses before it opens anything, and a directory that no command takes for one."""
    location = _place(directory)
    store_at(location)
    if kind_of(directory) is not None and not is_begun(location):
        step = f"actorstate serve {quoted(directory)}"
        yield wrong("store", f"it has jobs, and no {private_folder(directory).name}: only `serve` opens it", step)


def _lock(directory: Path) -> Iterator[Finding]:
    holder = lock_holder(directory)
    if holder is None:
        yield _unwritten(directory)
        return
    state = process_state(holder)
    if state == "T":
        step = f"kill -CONT {holder}   # or replace it: actorstate serve {quoted(directory)} --detach --take-over"
        yield wrong("lock", f"process {holder} holds it and is stopped (by kill -STOP, Ctrl-Z or a debugger)", step)
    elif not state:
        yield note("lock", f"held by process {holder}, which is not to be seen from here (another container?)")
    else:
        yield ok("lock", f"held by process {holder}: {process_line(holder)}")


def _unwritten(directory: Path) -> Finding:
    """Rest is no fault where the next client starts a writer; a writer that was killed, or must be there, is one."""
    if is_switched_off() or is_published(directory):
        return wrong("lock", "no writer runs", f"actorstate serve {quoted(directory)}")
    return note("lock", "no writer runs; the last one ended in good order, and the next client starts one")


def _writer(directory: Path, timeout_s: float) -> Iterator[Finding]:
    holder = lock_holder(directory)
    if holder is None:
        return
    if process_state(holder) == "T":
        yield wrong("writer", f"process {holder} is stopped, and answers nobody until it goes on")
        return
    endpoint = read_endpoint(directory)
    if endpoint.boot != boot_id():
        yield wrong("writer", "its address is of another boot or container", f"actorstate serve {quoted(directory)}")
        return
    with connect(str(_place(directory)), autostart=False, settings=ClientSettings(timeout_s=timeout_s)) as client:
        try:
            found = client.transport.result_of(asked(ReadMetrics(), Metrics))
        except WriterUnavailable as error:
            step = (
                f"read its log; if nothing there explains it: kill {holder}, then actorstate serve {quoted(directory)}"
            )
            yield wrong("writer", f"process {holder} does not answer within {timeout_s:g} s ({error.message})", step)
            return
        yield _alive(found)
        yield from _concerns(found.state, directory)
        try:
            yield from _jobs_in_need(client)
        except CorruptJob as error:
            yield wrong("damage", error.message, _verify_step(directory))


def _alive(found: Metrics) -> Finding:
    """In one line what matters first; all of the writer's numbers are its facts."""
    state = found.state
    where = "beside" if state.beside else "in"
    said = (
        f"process {state.pid}, release {state.version}, epoch {state.epoch}, up for {span(state.uptime_s)}, "
        f"{state.commits:,} commits of {state.changes:,} changes, {state.reads:,} reads, "
        f"{state.sync_s * 1000:.2f} ms a sync ({where} the loop), {state.resident:,} jobs in memory, "
        f"{state.workers:,} workers, {state.waiting:,} waiting"
    )
    plain = as_plain(found)
    return ok("writer", said, {**plain, **plain["state"]} if isinstance(plain, dict) else {})


def _concerns(state: WriterState, directory: Path) -> Iterator[Finding]:
    if state.version != VERSION:
        step = f"kill {state.pid}; actorstate serve {quoted(directory)}"
        yield wrong("release", f"the writer runs {state.version}, this is {VERSION}", step)
    if state.disk_full:
        yield wrong("disk", "changes are refused: it is full", _space_step(directory))
    if state.sync_s > SLOW_SYNC_S:
        yield note("disk", f"a sync takes {state.sync_s * 1000:.0f} ms: every durable change waits so long")
    refused = {code: f"{number:,} {code}" for code, number in sorted(state.refusals.items())}
    damage = [refused.pop(code) for code in DAMAGE if code in refused]
    if damage:
        yield wrong("damage", f"met by requests since its start: {', '.join(damage)}", _verify_step(directory))
    if refused:
        yield note("refusals", f"since its start: {', '.join(refused.values())}")


def _space_step(directory: Path) -> str:
    return f"du -xh {quoted(directory)} | sort -h | tail"


def _verify_step(directory: Path) -> str:
    return f"actorstate verify {quoted(_place(directory))}"


def _jobs_in_need(client: Client) -> Iterator[Finding]:
    for health in ("dead", "stalled"):
        ids = [state.id for _, state in zip(range(JOBS_NAMED + 1), client.jobs(health=health), strict=False)]
        if ids:
            more = ", ..." if len(ids) > JOBS_NAMED else ""
            yield note("jobs", f"health {health}: {', '.join(ids[:JOBS_NAMED])}{more}")


COMMANDS = {"doctor": Command(_add_doctor, _doctor)}
