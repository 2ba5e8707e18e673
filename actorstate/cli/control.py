"""`pause`, `resume`, `cancel`, `delete`: what people tell jobs to do.

A control is durable when the command returns; the job's workers carry it out at their next row. `--wait`
stays until they have.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable

from actorstate.cli import exits
from actorstate.cli.asjson import job_json, line
from actorstate.cli.command import Command, add_job, add_timeout, deadline_s, opened
from actorstate.cli.views import watch_line
from actorstate.client.sync import Client
from actorstate.core.messages.document import Intent, JobState


def _add_control(parser: argparse.ArgumentParser) -> None:
    add_job(parser)
    parser.add_argument("--by", default=os.environ.get("USER", ""), metavar="NAME", help="who asks (default: $USER)")
    parser.add_argument("--wait", action="store_true", help="until it is done; exit status 1 if not within --timeout")
    add_timeout(parser)


def _control(intent: Intent) -> Callable[[argparse.Namespace], int]:
    def run(options: argparse.Namespace) -> int:
        until = time.monotonic() + deadline_s(options)
        with opened(options) as client:
            getattr(client, intent)(options.job, by=options.by)
            state = client.get(options.job)
            if options.wait:
                state = _until_done(client, state, until)
        _tell(options, state)
        return exits.FINE if not options.wait or _is_done(state) else exits.NO

    return run


def _until_done(client: Client, state: JobState, until: float) -> JobState:
    while not _is_done(state) and (left_s := until - time.monotonic()) > 0:
        state = client.wait(state.id, after=state.revision, timeout_s=left_s)
    return state


def _is_done(state: JobState) -> bool:
    return state.finished or state.control is None or state.control.state == "done"


def _tell(options: argparse.Namespace, state: JobState) -> None:
    if options.json:
        print(job_json(state))
        return
    print(watch_line(state))
    if state.control is not None and not _is_done(state):
        print(f"  {state.control.intent} {state.control.state}; workers follow at their next row: {_names(state)}")


def _names(state: JobState) -> str:
    return ", ".join(f"{name} ({worker.health})" for name, worker in state.workers.items()) or "none is attached"


def _add_delete(parser: argparse.ArgumentParser) -> None:
    add_job(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask (nobody is asked in a pipe or with --json)")
    add_timeout(parser)


def _delete(options: argparse.Namespace) -> int:
    with opened(options) as client:
        if sys.stdin.isatty() and not options.yes and not options.json:
            print(watch_line(client.get(options.job)))
            if not _agrees("delete this job and its history? [y/N] "):
                print("kept")
                return exits.NO
        client.delete(options.job)
    print(line({"job": options.job, "deleted": True}) if options.json else f"{options.job} is deleted")
    return exits.FINE


def _agrees(question: str) -> bool:
    print(question, end="", flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


COMMANDS = {
    "pause": Command(_add_control, _control("pause")),
    "resume": Command(_add_control, _control("resume")),
    "cancel": Command(_add_control, _control("cancel")),
    "delete": Command(_add_delete, _delete),
}
