"""`serve --detach`: a writer in a process and session of its own; whoever started it goes on when it serves.

    launcher   forks, before there is a thread, a lock or a socket; waits for one word of the child; tells it and ends
    child      new session, `/` as its folder, standard input from nowhere, output to DIR/.actorstate/writer.log;
               says over the pipe where it serves, or why it does not

A child that loses the election says so, and writes nothing into the log of the one that won it.
"""

import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn, cast

from actorstate.endpoint import Endpoint, check_owner, private_folder
from actorstate.errors import ActorStateError, WriterRunning, WriterUnavailable, from_wire
from actorstate.store.files import make_private_folder
from actorstate.store.location import quoted
from actorstate.writer.log import write

MAX_LOG_BYTES = 1024 * 1024
"""A longer writer.log becomes writer.log.1 at the next start; the one before that is dropped."""
TAIL_BYTES, TAIL_LINES = 4_000, 5
EXIT_REFUSED, EXIT_DEFECT = 4, 70

Serve = Callable[[Callable[[Endpoint], None]], int]
"""Serves until it is told to end, calls its argument once it is ready, and returns the exit status."""


def log_path(directory: Path) -> Path:
    """`DIR/.actorstate/writer.log`."""
    return private_folder(directory) / "writer.log"


def detached(directory: Path, serve: Serve) -> Endpoint:
    """Where the new writer serves, which outlives this process.

    Raises NotOwner, what `serve` raised, WriterUnavailable with its last log lines when it ended without a word.
    Only where there is one thread; `directory` is absolute.
    """
    check_owner(directory)
    output = _open_log(directory)
    began_at = os.fstat(output).st_size
    ours, childs = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if not pid:
        os.close(ours)
        _live(output, childs, serve)
    os.close(output)
    os.close(childs)
    with os.fdopen(ours, "rb") as pipe:
        told = pipe.read()
    said = cast("dict[str, Any]", json.loads(told or b"{}"))
    if "pid" in said:
        return Endpoint(**said)
    os.waitpid(pid, 0)
    if "code" in said:
        raise from_wire(**said)
    raise WriterUnavailable(
        f"the writer of {directory} ended before it served: {_tail(log_path(directory), began_at)}",
        hint=f"read all that it said: less {quoted(log_path(directory))}",
        directory=str(directory),
    )


def _open_log(directory: Path) -> int:
    path = log_path(directory)
    make_private_folder(path.parent)
    if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
        path.replace(path.with_name("writer.log.1"))
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _tail(path: Path, began_at: int) -> str:
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(began_at, size - TAIL_BYTES))
        lines = file.read().decode(errors="replace").strip().splitlines()
    return " | ".join(lines[-TAIL_LINES:]) or "it said nothing"


def _live(output: int, pipe: int, serve: Serve) -> NoReturn:
    """The child's whole life; the launcher's stack above it is never seen again."""
    status = EXIT_DEFECT
    try:
        _leave(output)
        status = serve(lambda endpoint: _tell(pipe, asdict(endpoint)))
    except ActorStateError as error:
        status = EXIT_REFUSED
        if not isinstance(error, WriterRunning):
            write("writer.not_started", {"error": error, "next": error.hint})
        _tell(pipe, {"code": error.code, "message": error.message, "hint": error.hint, "details": error.details})
    except BaseException as error:  # noqa: BLE001 - the edge of a process
        write("writer.failed", {"error": error})
    finally:
        logging.shutdown()
        os._exit(status)


def _leave(output: int) -> None:
    """Everything that would tie it to the terminal, folder and signals of whoever started it is let go."""
    os.setsid()
    os.chdir("/")
    nowhere = os.open(os.devnull, os.O_RDONLY)
    for descriptor, standard in ((nowhere, 0), (output, 1), (output, 2)):
        os.dup2(descriptor, standard)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _tell(pipe: int, said: dict[str, object]) -> None:
    try:
        os.write(pipe, json.dumps(said).encode())
        os.close(pipe)
    except OSError:  # the launcher was killed: no reason for a writer not to serve
        os.close(pipe)
