"""`pause`, `resume`, `cancel`, `retry`, `approve`, `throttle`, `delete`: what people tell jobs to do.

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
from actorstate.cli.command import Command, add_job, add_timeout, agrees, deadline_s, opened
from actorstate.cli.views import clean, moment, watch_line
from actorstate.client.options import LEAST, MOST
from actorstate.client.sync import Client
from actorstate.core.messages.document import Intent, JobState


def _add_job_and_by(parser: argparse.ArgumentParser) -> None:
    add_job(parser)
    parser.add_argument("--by", default=os.environ.get("USER", ""), metavar="NAME", help="who asks (default: $USER)")


def _add_control(parser: argparse.ArgumentParser) -> None:
    _add_job_and_by(parser)
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


def _add_retry(parser: argparse.ArgumentParser) -> None:
    _add_job_and_by(parser)
    told = "drop checkpoints, tracks and counts (default: go on where it was)"
    parser.add_argument("--from-start", action="store_true", help=told)
    told = "only its failed items of this category, which a worker gets by job.retries(); the job may be open as well"
    parser.add_argument("--where", metavar="CATEGORY", help=told)
    add_timeout(parser)


def _retry(options: argparse.Namespace) -> int:
    if options.from_start and options.where is not None:
        options.parser.error("--from-start does all items again: give it or --where")
    with opened(options) as client:
        client.retry(options.job, where=options.where, from_start=options.from_start, by=options.by)
        state = client.get(options.job)
    _tell(options, state)
    if not options.json and options.where is not None:
        print(f"  {state.progress.retrying:,} items are to be done once more, by a worker's job.retries()")
    elif not options.json:
        print(f"  attempt {state.attempt} is open and waits for a worker; start yours again")
    return exits.FINE


def _add_approve(parser: argparse.ArgumentParser) -> None:
    _add_job_and_by(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask (nobody is asked in a pipe or with --json)")
    add_timeout(parser)


def _approve(options: argparse.Namespace) -> int:
    """Shows the question, and approves that one: another that is asked meanwhile is refused."""
    with opened(options) as client:
        state = client.get(options.job)
        asked = state.approval
        if asked is not None and not options.json:
            print(f"{options.job} asks: {clean(asked.question)}")
            if asked.approved_at is not None:
                print(f"  that was approved already, {moment(asked.approved_at)} {clean(asked.approved_by)}".rstrip())
            elif sys.stdin.isatty() and not options.yes and not agrees("approve? [y/N] "):
                print("not approved; it waits on")
                return exits.NO
        client.approve(options.job, question=asked.question if asked else None, by=options.by)
        _tell(options, client.get(options.job))
    return exits.FINE


def _add_throttle(parser: argparse.ArgumentParser) -> None:
    _add_job_and_by(parser)
    parser.add_argument("rate", type=_rate, metavar="RATE", help="rows a second for all workers together, or off")
    add_timeout(parser)


def _rate(text: str) -> float | None:
    """A speed, or None for `off`; argparse turns the ValueError into a usage error."""
    if text == "off":
        return None
    if not LEAST <= float(text) <= MOST:
        raise ValueError(text)
    return float(text)


_rate.__name__ = "rate (0.001 to 1e9, or off)"


def _throttle(options: argparse.Namespace) -> int:
    with opened(options) as client:
        client.throttle(options.job, options.rate, by=options.by)
        state = client.get(options.job)
    _tell(options, state)
    if not options.json and state.throttle is not None and state.workers:
        print(f"  workers follow with their next message: {_names(state)}")
    return exits.FINE


def _add_delete(parser: argparse.ArgumentParser) -> None:
    add_job(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask (nobody is asked in a pipe or with --json)")
    add_timeout(parser)


def _delete(options: argparse.Namespace) -> int:
    with opened(options) as client:
        if sys.stdin.isatty() and not options.yes and not options.json:
            print(watch_line(client.get(options.job)))
            if not agrees("delete this job and its history? [y/N] "):
                print("kept")
                return exits.NO
        client.delete(options.job)
    print(line({"job": options.job, "deleted": True}) if options.json else f"{options.job} is deleted")
    return exits.FINE


COMMANDS = {
    "pause": Command(_add_control, _control("pause")),
    "resume": Command(_add_control, _control("resume")),
    "cancel": Command(_add_control, _control("cancel")),
    "retry": Command(_add_retry, _retry),
    "approve": Command(_add_approve, _approve),
    "throttle": Command(_add_throttle, _throttle),
    "delete": Command(_add_delete, _delete),
}
