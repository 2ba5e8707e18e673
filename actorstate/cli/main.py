"""Finds the command, and turns how it ended into an exit status and, when it failed, a message with a hint.

A status command in a shell loop should feel instant: the module of a command, and with it ZeroMQ and the
rest, is imported only when that command is on the line, and rich only when something is drawn.
"""

import argparse
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import NoReturn

from actorstate.cli import exits
from actorstate.config import VERSION
from actorstate.errors import ActorStateError, JobNotFound, WriterUnavailable

EPILOG = """\
exit status:
  0  fine                      3    no writer answered
  1  the answer is no          4    refused with a typed error
  2  wrong command line        130  interrupted
`actorstate COMMAND --help` tells more; every command has --json."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A command's place: its module in this package."""

    name: str
    module: str
    summary: str


LOOKING = frozenset({"get", "watch", "items", "log", "history", "diff"})
"""Commands to which "there is no such job" is an answer."""
COMMANDS = (
    Entry("serve", "serve", "run the one writer of a directory, in the foreground or detached"),
    Entry("demo", "demo", "a migration that is killed, goes on, and loses nothing"),
    Entry("migrate", "migrate", "move users' data, or items one by one, and never lose any"),
    Entry("jobs", "jobs", "list the jobs"),
    Entry("get", "jobs", "show one job"),
    Entry("watch", "jobs", "follow one job until it ends"),
    Entry("top", "top", "all jobs that are not finished, live"),
    Entry("items", "items", "list what became of a job's items"),
    Entry("log", "history", "what happened to one job, in words"),
    Entry("history", "history", "status and counts at each revision of one job"),
    Entry("diff", "history", "what differs between two moments of one job"),
    Entry("restore", "history", "bring a job's work back as it was"),
    Entry("pause", "control", "ask a job's workers to pause at their next row"),
    Entry("resume", "control", "let a paused job go on"),
    Entry("cancel", "control", "end a job; its workers save and stop"),
    Entry("retry", "control", "open a new attempt of a job that has ended"),
    Entry("approve", "control", "answer a job's open question with yes"),
    Entry("throttle", "control", "limit a job's workers to so many rows a second"),
    Entry("delete", "control", "remove a job that nobody works on"),
    Entry("verify", "verify", "read all that is stored, and say what is damaged"),
    Entry("repair", "verify", "mend what is damaged; what cannot be read is kept aside"),
    Entry("backup", "backup", "a verified copy of everything in a new directory"),
    Entry("move", "move", "copy all jobs into another store, and compare every one"),
    Entry("web", "web", "serve a page that shows the jobs"),
    Entry("doctor", "doctor", "examine a directory, with or without a running writer"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status of one command line (the process's own when None); raises SystemExit for usage errors."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if sys.__stdout__ is None:
        return _unprintable("it is closed; nothing was done")
    sys.__stdout__.reconfigure(errors="backslashreplace")
    try:
        options, unknown = build_parser(given).parse_known_args(given)
        if unknown:
            options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
        options.given = given
        status = _run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except BrokenPipeError:
        _drop_stdout()
        return exits.CLOSED
    except OSError as error:  # all others were told by _run
        _drop_stdout()
        return _unprintable(f"{error.strerror or error}; the command itself was carried out")
    except Exception:  # noqa: BLE001 - the edge of the process: told whole, and told apart from an answer
        from traceback import print_exc  # noqa: PLC0415 - only after a defect

        print_exc()
        print("actorstate: this is a defect of actorstate; please report it with the lines above", file=sys.stderr)
        return exits.DEFECT
    return status


def build_parser(given: Sequence[str]) -> argparse.ArgumentParser:
    """The parser, with the arguments of those commands that occur in `given`; the others are only named."""
    parser = _Parser(
        prog="actorstate",
        description="The state of long jobs: one writer keeps it, many processes report and read.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"actorstate {VERSION}", help="print it and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)
    for entry in COMMANDS:
        one = commands.add_parser(entry.name, help=entry.summary, description=f"{entry.summary}.", allow_abbrev=False)
        if entry.name in given:
            _fill(one, entry)
    return parser


def _fill(parser: argparse.ArgumentParser, entry: Entry) -> None:
    command = import_module(f"actorstate.cli.{entry.module}").COMMANDS[entry.name]
    command.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, errors included, to standard output")
    parser.set_defaults(run=command.run, parser=parser)


def _run(options: argparse.Namespace) -> int:
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except ActorStateError as error:
        _report(options, error)
        return _status(options, error)
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.filename is None:
            print(flush=True)  # where it is standard output that takes nothing, this is raised to `main` again
        reason = f"{error.filename or 'system call'}: {error.strerror or error}"
        _report(options, _SystemError(reason, errno=error.errno))
        return exits.REFUSED


def _status(options: argparse.Namespace, error: ActorStateError) -> int:
    if isinstance(error, WriterUnavailable):
        return exits.NO_WRITER
    return exits.NO if isinstance(error, JobNotFound) and options.command in LOOKING else exits.REFUSED


def _report(options: argparse.Namespace, error: ActorStateError) -> None:
    from actorstate.cli.asjson import error_json  # noqa: PLC0415 - only when something failed

    directory = str(getattr(options, "directory", "") or "DIR")
    hint = re.sub(r"\bDIR\b", lambda _: shlex.quote(directory), error.hint)
    if options.json:
        print(error_json(error, hint), flush=True)
        return
    sys.stdout.flush()
    print(f"actorstate: {error.message}", file=sys.stderr)
    if hint:
        print(f"  {hint}", file=sys.stderr)


def _unprintable(why: str) -> int:
    print(f"actorstate: standard output: {why}", file=sys.stderr)
    return exits.REFUSED


def _drop_stdout() -> None:
    """Standard output goes nowhere from here on: else the interpreter complains of the closed pipe at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong before the usage, and as JSON where JSON was asked for."""

    def error(self, message: str) -> NoReturn:
        hint = f"see: {self.prog} --help"
        if "--json" in sys.argv[1:]:
            from actorstate.cli.asjson import error_json  # noqa: PLC0415 - only when something failed

            print(error_json(_UsageError(message), hint), flush=True)
            self.exit(exits.USAGE)
        usage = "" if message.startswith("argument ") else self.format_usage()  # what it takes is said by the message
        self.exit(exits.USAGE, f"actorstate: {message}\n{usage}  {hint}\n")


class _SystemError(ActorStateError):
    code = "os_error"
    default_hint = "look closer: actorstate doctor DIR"


class _UsageError(ActorStateError):
    code = "usage"
