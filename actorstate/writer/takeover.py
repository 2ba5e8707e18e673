"""`serve --take-over`: ends the process that holds a directory's lock, and no other."""

import os
import select
import signal
from pathlib import Path

from actorstate.endpoint import holds_lock, lock_holder, private_folder
from actorstate.errors import WriterRunning
from actorstate.store.location import quoted

ENDS_WITHIN_S = 10.0
"""SIGKILL reaches a process that hangs in the kernel, or is frozen, only later: after this long it is an error."""


def end_holder(directory: Path) -> int | None:
    """SIGKILLs the holder of the directory's lock, waits for its end and returns its pid; None when there was none.

    Raises WriterRunning when it may not be killed or does not end.
    """
    pid = lock_holder(directory)
    if pid is None:
        return None
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    try:
        return pid if _ended(process, pid, private_folder(directory) / "lock") else None
    except PermissionError as error:
        hint = f"as its owner or as root: actorstate serve {quoted(directory)} --take-over"
        raise WriterRunning(f"process {pid}, the writer of {directory}, is not yours", hint=hint, pid=pid) from error
    finally:
        os.close(process)


def _ended(process: int, pid: int, lock: Path) -> bool:
    """Whether it was the holder, and is no more. `process` is its pidfd.

    The pid may have been given to another process before the pidfd was opened, so the lock is looked for once
    more. Should it pass to another one after that, the pidfd is of a dead process, and nobody is hit.
    """
    if not holds_lock(pid, lock):
        return False
    try:
        signal.pidfd_send_signal(process, signal.SIGKILL)
    except ProcessLookupError:
        return False
    if not select.select([process], [], [], ENDS_WITHIN_S)[0]:
        hint = "it hangs in the kernel or is frozen: look at its disk, then repeat this"
        raise WriterRunning(f"process {pid} does not end {ENDS_WITHIN_S:g} s after SIGKILL", hint=hint, pid=pid)
    return True
