"""`web`: the page and its JSON, served alone to a few people; larger deployments mount `actorstate.web.wsgi`."""

import argparse
import logging
import signal
import socket
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import NoReturn, Protocol

from actorstate.cli import exits
from actorstate.cli.asjson import line
from actorstate.cli.command import Command, add_directory, add_timeout, has_writer
from actorstate.client.sync import connect
from actorstate.errors import BadRequest
from actorstate.web.settings import WebSettings
from actorstate.web.values import Request
from actorstate.web.wsgi import Application

HOST, PORT = "127.0.0.1", 8137
THREADS = 16
MAX_HELD = 8
"""Of the threads so many may be held by `?wait=`; the page polls by ETag, which holds none."""


def _add_web(parser: argparse.ArgumentParser) -> None:
    add_directory(parser)
    parser.add_argument("--host", default=HOST, metavar="ADDRESS", help=f"default {HOST}: this machine only")
    parser.add_argument("--port", type=int, default=PORT, metavar="N", help=f"default {PORT}; 0: any free one")
    parser.add_argument("--unix", type=Path, metavar="PATH", help="a Unix socket instead, for a proxy in front")
    told = "answer to this name too; by itself: to localhost, addresses, this machine's name and --host (repeatable)"
    parser.add_argument("--allow-host", action="append", default=[], metavar="NAME", help=told)
    told = "let everybody who reaches the page pause, resume, cancel, retry and approve (default: it only shows)"
    parser.add_argument("--control", action="store_true", help=told)
    add_timeout(parser, "how long a request waits for the writer (default 2)")


def _web(options: argparse.Namespace) -> int:
    has_writer(options.directory)
    if find_spec("waitress") is None:
        raise BadRequest("the web server is not installed", hint="pip install 'actorstate[web]'")
    if not 0 <= options.port < 2**16:
        raise BadRequest(f"there is no port {options.port}", hint="give --port a number from 0 to 65535")
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # it warns of one request that waits for its turn
    settings = WebSettings(
        control=_by if options.control else None,
        hosts=_hosts(options),
        timeout_s=options.timeout or WebSettings().timeout_s,
        max_waiting=MAX_HELD,
    )
    application = Application(connect(options.directory), settings)
    try:
        _serve(options, application)
    finally:
        application.close()
    return exits.FINE


def _serve(options: argparse.Namespace, application: Application) -> None:
    place = {"unix_socket": str(options.unix)} if options.unix else {"host": options.host, "port": options.port}
    # By name: the web server is an extra of its own, and ships no types.
    create_server: Callable[..., _Server] = import_module("waitress").create_server
    try:
        server = create_server(application, threads=THREADS, ident="actorstate", **place)
    except (OSError, ValueError) as error:  # the server's own words for a host that there is not
        raise _cannot_listen(options, error) from error
    signal.signal(signal.SIGTERM, _end)
    _tell(options, 0 if options.unix else server.effective_port)
    server.run()


def _cannot_listen(options: argparse.Namespace, error: OSError | ValueError) -> BadRequest:
    place = f"the socket {options.unix}" if options.unix else f"{_in_url(options.host)}, port {options.port}"
    why = (error.strerror if isinstance(error, OSError) else None) or str(error)
    step = (
        "--unix PATH in a directory that is there" if options.unix else "--port 0 for any free port, or another --host"
    )
    return BadRequest(f"cannot listen at {place}: {why}", hint=f"give {step}")


class _Server(Protocol):
    effective_port: int

    def run(self) -> None: ...


def _end(_signal: int, _frame: FrameType | None) -> NoReturn:
    """The server ends its threads at this, and the command ends as if by itself."""
    raise SystemExit(exits.FINE)


def _tell(options: argparse.Namespace, port: int) -> None:
    url = f"unix:{options.unix}" if options.unix else f"http://{_in_url(options.host)}:{port}/"
    if options.json:
        print(line({"directory": options.directory, "url": url, "control": options.control}), flush=True)
        return
    may = "anyone who reaches it may control jobs" if options.control else "read-only"
    print(f"actorstate: the jobs of {options.directory} are at {url} ({may}; Ctrl-C ends it)", flush=True)
    if not options.unix and options.host not in {HOST, "localhost", "::1"}:
        told = "it has no login and no encryption: put a proxy in front that has, see deploy/nginx.conf"
        print(f"  {told}", file=sys.stderr, flush=True)


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _by(request: Request) -> str:
    """Whoever reaches the page may control; other sites' pages and names do not (`control.py`, `WebSettings.hosts`)."""
    return f"web {request.context.get('REMOTE_ADDR', '')}".strip()


def _hosts(options: argparse.Namespace) -> tuple[str, ...] | None:
    """A proxy in front of a Unix socket knows its own names."""
    return None if options.unix else ("localhost", socket.gethostname(), options.host, *options.allow_host)


COMMANDS = {"web": Command(_add_web, _web)}
