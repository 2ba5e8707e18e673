"""`move`: all jobs of one store into another one, of the same kind or not. The source stays as it is.

Copying is itself a tracked job, kept in TO/.actorstate/moving where a writer may be started: it can be
watched, and goes on after whatever ended it. Every job is compared on both sides before it counts as moved.
"""

import argparse
import contextlib
import sys
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field

from actorstate.cli import exits
from actorstate.cli.asjson import line
from actorstate.cli.command import Command
from actorstate.cli.stages import locked, stages, table
from actorstate.client.run import Run
from actorstate.client.start import is_switched_off
from actorstate.client.sync import connect
from actorstate.endpoint import highest_epoch, private_folder, write_epoch
from actorstate.errors import BadRequest, CorruptJob, JobFinished, OtherStore
from actorstate.store.choice import kind_of, mark_move, move_under_way, opened_store, view_at
from actorstate.store.contract import Store
from actorstate.store.location import Location, located, quoted
from actorstate.store.move import move_job
from actorstate.store.view import View

MOVING = "moving"
JOB = "move"
TRACK_EVERY = 50


@dataclass(slots=True)
class _Verdict:
    moved: int = 0
    present: int = 0
    failed: dict[str, str] = field(default_factory=dict[str, str])
    mended: dict[str, str] = field(default_factory=dict[str, str])


def _add_move(parser: argparse.ArgumentParser) -> None:
    told = "a directory, or json:///dir"
    parser.add_argument("directory", metavar="FROM", help=f"where the jobs are: {told}")
    parser.add_argument("target", metavar="TO", help=f"where they shall be, empty or new: {told}")


def _move(options: argparse.Namespace) -> int:
    source, target = located(options.directory), located(options.target)
    command = f"actorstate move {quoted(source)} {quoted(target)}"
    if source.directory.resolve() == target.directory.resolve():
        raise BadRequest("both are the same directory", hint="move into an empty one beside it")
    view = view_at(source)
    with contextlib.ExitStack() as stack:
        stack.enter_context(locked(source.directory, command))
        view.open()
        stack.callback(view.close)
        _check_target(source, target)
        stack.enter_context(locked(target.directory, command))
        mark_move(target.directory, str(source), done=False)
        verdict = _moved(view, source, target, quiet=options.json)
        if not verdict.failed:
            mark_move(target.directory, str(source), done=True)
    _tell(options, source, target, verdict)
    return exits.NO if verdict.failed else exits.FINE


def _check_target(source: Location, target: Location) -> None:
    """Empty, or begun by a move of the same source. Raises OtherStore."""
    begun = move_under_way(target.directory)
    found = kind_of(target.directory)
    if begun == str(source) and found in {None, target.kind}:
        return
    if found is not None or begun:
        raise OtherStore(
            f"{target.directory} holds {'a part of ' + begun if begun else 'jobs already'}; it was not touched",
            hint=f"choose an empty directory: actorstate move {quoted(source)} {quoted(target)}.new",
            location=str(target),
        )


def _moved(view: View, source: Location, target: Location, *, quiet: bool) -> _Verdict:
    """Copies and compares every job; one that cannot be read is told, and the others go on."""
    jobs, verdict = view.known_jobs(), _Verdict()
    with _begun(source, target) as (store, epoch), stages("moving", len(jobs), quiet=quiet) as step:
        with _tracked(jobs, source, target) as (tracked, run):
            for job in tracked:
                _one(view, store, job, epoch=epoch, verdict=verdict, run=run)
                step(job)
        _check_rest(view, store, jobs, epoch=epoch, verdict=verdict)
    return verdict


def _one(view: View, store: Store, job: str, *, epoch: int, verdict: _Verdict, run: Run | None) -> None:
    try:
        if move_job(view, store, epoch, job):
            verdict.moved += 1
        else:
            verdict.present += 1
        if faults := "; ".join(view.faults(job)):
            verdict.mended[job] = faults
    except CorruptJob as error:
        verdict.failed[job] = error.message
        if run is not None:
            run.failed(job, error, category=error.code)


def _check_rest(view: View, store: Store, jobs: list[str], *, epoch: int, verdict: _Verdict) -> None:
    """What an earlier attempt has counted was durable then; it is compared again all the same."""
    told = verdict.moved + verdict.present + len(verdict.failed)
    for job in jobs[: len(jobs) - told]:
        _one(view, store, job, epoch=epoch, verdict=verdict, run=None)


@contextlib.contextmanager
def _begun(source: Location, target: Location) -> Generator[tuple[Store, int]]:
    """The target opened as a writer of a new epoch; above the source's too, so that no reader sees time go back."""
    store = opened_store(target)
    store.open()
    try:
        known = (store.epoch(), highest_epoch(target.directory), highest_epoch(source.directory))
        epoch = max(known) + 1
        store.set_epoch(epoch)
        write_epoch(target.directory, epoch)
        yield store, epoch
    finally:
        store.close()


@contextlib.contextmanager
def _tracked(jobs: list[str], source: Location, target: Location) -> Generator[tuple[Iterable[str], Run | None]]:
    """The jobs in a tracked loop, and its run; untracked where no writer may be started."""
    if is_switched_off():
        yield jobs, None
        return
    folder = private_folder(target.directory) / MOVING
    meta: dict[str, object] = {"from": str(source), "to": str(target)}
    with connect(folder) as client, contextlib.ExitStack() as stack:
        run = client.run(JOB, kind="move", total=len(jobs), unit="jobs", meta=meta, take_over=True)
        try:
            job = stack.enter_context(run)
        except JobFinished:
            client.retry(JOB, from_start=True)
            job = stack.enter_context(client.run(JOB, kind="move", total=len(jobs), unit="jobs", take_over=True))
        print(f"follow it elsewhere: actorstate watch {folder} {JOB}", file=sys.stderr, flush=True)
        yield job.track(jobs, every=TRACK_EVERY), job


def _tell(options: argparse.Namespace, source: Location, target: Location, verdict: _Verdict) -> None:
    whole = verdict.moved + verdict.present
    if options.json:
        told = {
            "moved": verdict.moved,
            "present": verdict.present,
            "equal": whole,
            "failed": verdict.failed,
            "recovered": verdict.mended,
        }
        print(line({"from": str(source), "to": str(target), "ok": not verdict.failed, **told}))
        return
    rows = [
        ("moved", f"{verdict.moved:,} jobs now, {verdict.present:,} were there from an earlier attempt"),
        ("compared", f"{whole:,} are equal on both sides: state, exactly-once records, history, items"),
        ("failed", f"{len(verdict.failed):,}"),
        *((f"  {job}", error) for job, error in verdict.failed.items()),
        *((f"recovered {job}", faults) for job, faults in verdict.mended.items()),
        ("source", f"{source} is as it was"),
    ]
    print(table(rows))
    if verdict.failed:
        again = f"actorstate move {quoted(source)} {quoted(target)}"
        print(f"to mend what failed: actorstate repair {quoted(source)}; then again: {again}")
    else:
        print(f"to work on there: actorstate serve {quoted(target)}")


COMMANDS = {"move": Command(_add_move, _move)}
