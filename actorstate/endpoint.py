"""Where the writer of a directory is found, and that there is only one: lock file, socket paths, boot id.

DIR/.actorstate/lock      held by flock while a writer lives; never deleted
DIR/.actorstate/epoch     the highest epoch ever, so that a lost database does not turn time back
DIR/.actorstate/head      how far the commits had come (`store/sqlite/head.py`)
DIR/.actorstate/endpoint  JSON: where to send requests, where to subscribe, which process, which boot;
                          gone when its writer ended in good order, left behind by one that was killed
DIR/.actorstate/starting    whose turn it is to start a writer (`client/start.py`)
DIR/.actorstate/writer.log  what a writer says that was started with --detach, or by a client
"""

import contextlib
import json
import os
import pwd
import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from actorstate import telemetry
from actorstate.errors import NotOwner, StoreFailed, WriterRunning, WriterUnavailable
from actorstate.store.files import lock, make_private_folder, open_lock, sign_lock, signer_of, write_durably
from actorstate.store.location import Kind, Location

FOLDER = ".actorstate"
MAX_SOCKET_PATH_BYTES = 107
"""libzmq's limit for an ipc path; above it the sockets go to a private folder under the temporary one."""
MAX_EPOCH = 2**53
"""More is no epoch: every reader, JavaScript too, must be able to count on from it."""
HIDDEN = -1
"""The start time of a process of another user whom /proc does not show to us."""
SHORT_FOLDER = "actorstate-"
"""What the name of such a folder begins with."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Addresses of the writer's sockets, the process behind them, and the kind of store that it keeps."""

    requests: str
    changes: str
    pid: int
    boot: str
    epoch: int
    store: Kind = "sqlite"


def boot_id() -> str:
    """Names this boot and clock: two processes with equal ids read the same CLOCK_MONOTONIC."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{Path('/proc/self/ns/time').readlink()}" if Path("/proc/self/ns/time").exists() else boot


def process_space() -> str:
    """Names the space in which a pid means one process: this boot and pid namespace."""
    return f"{boot_id()}/{Path('/proc/self/ns/pid').readlink()}"


def process_started(pid: int) -> int:
    """Start time of a process in clock ticks since boot: tells a pid from its reuse.

    0 if there is none, HIDDEN for one that may not be looked at (/proc mounted with hidepid).
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return HIDDEN if _exists(pid) else 0
    state, *fields = stat.rpartition(")")[2].split()
    return 0 if state in "ZX" else int(fields[18])


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def private_folder(directory: Path) -> Path:
    """`DIR/.actorstate`."""
    return directory / FOLDER


def is_begun(location: Location) -> bool:
    """Whether jobs are kept there, as far as names tell: those of the older tool's JSON files had no writer yet."""
    folder = location.directory
    return private_folder(folder).is_dir() or (location.kind == "json" and any(folder.glob("*.json")))


def socket_addresses(directory: Path) -> tuple[str, str]:
    """ipc addresses for requests and changes in the private folder, or in a shorter one if that is too long."""
    folder = private_folder(directory).resolve()
    if len(os.fsencode(folder / "requests")) > MAX_SOCKET_PATH_BYTES:
        import tempfile  # noqa: PLC0415 - rarely needed, and half as costly as the rest of this module's imports

        folder = Path(tempfile.mkdtemp(prefix=SHORT_FOLDER))
    return f"ipc://{folder / 'requests'}", f"ipc://{folder / 'changes'}"


def discard_short_folder(endpoint: Endpoint) -> None:
    """Removes the temporary folder of a dead writer's sockets, if it had one. Only under the directory's lock."""
    paths = [Path(address.removeprefix("ipc://")) for address in (endpoint.requests, endpoint.changes)]
    folder = paths[0].parent
    if not folder.name.startswith(SHORT_FOLDER) or paths != [folder / "requests", folder / "changes"]:
        return
    with contextlib.suppress(OSError):  # gone already, not ours, or something else in it: then it stays
        for path in paths:
            path.unlink(missing_ok=True)
        folder.rmdir()


def write_endpoint(directory: Path, endpoint: Endpoint) -> None:
    """Publishes the addresses, once the sockets are bound."""
    write_durably(private_folder(directory) / "endpoint", json.dumps(asdict(endpoint), indent=1).encode() + b"\n")


def read_endpoint(directory: Path) -> Endpoint:
    """The addresses of the directory's writer, perhaps of one that has ended. Raises WriterUnavailable."""
    path = private_folder(directory) / "endpoint"
    try:
        return Endpoint(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise WriterUnavailable(f"{directory} has no writer's address ({error})", directory=str(directory)) from error


def withdraw_endpoint(directory: Path, endpoint: Endpoint) -> None:
    """Says that nobody serves any more, so that clients need not knock to find out; a successor's address stays."""
    with contextlib.suppress(WriterUnavailable):
        if read_endpoint(directory) == endpoint:
            (private_folder(directory) / "endpoint").unlink(missing_ok=True)


def is_published(directory: Path) -> bool:
    """Whether there is an address; a writer that has ended in good order took its own away."""
    return (private_folder(directory) / "endpoint").exists()


def check_owner(directory: Path) -> None:
    """Refuses what would leave this user's files in another one's directory. Raises NotOwner.

    Root is everybody's other. Whoever else may write to a directory may begin it, as its group may; after that
    it is his whose private folder it is.
    """
    folder, us = private_folder(directory), os.geteuid()
    if not folder.exists():
        folder = directory if us == 0 and directory.exists() else folder
    if folder.exists() and (uid := folder.stat().st_uid) != us:
        owner = user_name(uid)
        raise NotOwner(
            f"{directory} belongs to {owner}, and you are {user_name(us)}", owner=owner, directory=str(directory)
        )


def user_name(uid: int) -> str:
    """The user's name, or `#1000` where the number has none (in containers, often); `sudo -u` takes both."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


class WriterLock:
    """The right to be the directory's only writer: an flock, which the kernel drops with the process.

    `descriptor` is the held file, -1 before; a link count of 0 shows that somebody deleted it.
    """

    def __init__(self, directory: Path) -> None:
        self._path = private_folder(directory) / "lock"
        self.descriptor = -1

    def acquire(self) -> None:
        """Raises WriterRunning, with the holder's pid, when another process has it, and NotOwner."""
        check_owner(self._path.parent.parent)
        make_private_folder(self._path.parent)
        descriptor = open_lock(self._path)
        if not lock(descriptor):
            pid = signer_of(descriptor)
            os.close(descriptor)
            raise WriterRunning(f"process {pid} is the writer of {self._path.parent.parent}", pid=pid)
        if not os.fstat(descriptor).st_nlink:
            os.close(descriptor)
            raise WriterRunning(f"the lock file of {self._path.parent.parent} was replaced just now; try again", pid=0)
        sign_lock(descriptor)
        self.descriptor = descriptor

    def release(self) -> None:
        """Lets another writer start; the file stays."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def lock_holder(directory: Path) -> int | None:
    """The pid that holds the directory's lock, None when nobody does. Only looks: probing would disturb a start.

    A holder in another container is not seen.
    """
    path = private_folder(directory) / "lock"
    for pid in flock_holders(path):
        with contextlib.suppress(PermissionError, FileNotFoundError):  # not to be looked at: the number must do
            if not holds_lock(pid, path):
                continue
        return pid
    return None


def holds_lock(pid: int, lock: Path) -> bool:
    """Whether the process has the file open and locked. Raises PermissionError where that may not be seen."""
    wanted = lock.stat()
    for number in _open_files(pid):
        with contextlib.suppress(FileNotFoundError):  # closed between two looks
            found = Path(f"/proc/{pid}/fd/{number}").stat()
            same = (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino)
            if same and "FLOCK" in Path(f"/proc/{pid}/fdinfo/{number}").read_text():
                return True
    return False


def _open_files(pid: int) -> list[str]:
    try:
        return os.listdir(f"/proc/{pid}/fd")  # noqa: PTH208 - numbers, not paths
    except FileNotFoundError:
        return []


def flock_holders(path: Path) -> Iterator[int]:
    """Processes with a lock on a file of this number: inode numbers repeat from one file system to the next."""
    if not path.exists():
        return
    inode = str(path.stat().st_ino)
    for line in Path("/proc/locks").read_text().splitlines():
        _number, kind, _mode, _access, pid, place, *_range = line.replace("->", "").split()
        if kind == "FLOCK" and place.rpartition(":")[2] == inode:
            yield int(pid)


def highest_epoch(directory: Path, known: int = 0) -> int:
    """The highest of the epoch in the file and `known`, the store's own: without a good file that is the truth.

    Raises StoreFailed where the file is damaged and the store knows of no epoch either.
    """
    path = private_folder(directory) / "epoch"
    try:
        epoch = int(path.read_bytes())
    except FileNotFoundError:
        return known
    except ValueError:
        epoch = -1
    if 0 <= epoch <= MAX_EPOCH:
        return max(epoch, known)
    damaged = StoreFailed(f"{path} holds no epoch; the jobs are not touched by it", hint=f"rm {shlex.quote(str(path))}")
    if not known:
        raise damaged
    telemetry.event("epoch.damaged", path=str(path), taken=known, error=damaged)
    return known


def write_epoch(directory: Path, epoch: int) -> None:
    """Makes the epoch durable beside the store."""
    write_durably(private_folder(directory) / "epoch", b"%d\n" % epoch)
