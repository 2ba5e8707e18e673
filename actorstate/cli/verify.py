"""`verify` and `repair`: whether all that is stored is whole, and mending what is not."""

import argparse
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from actorstate.cli import exits
from actorstate.cli.asjson import line
from actorstate.cli.command import Command, add_directory
from actorstate.cli.stages import locked, stages, table
from actorstate.core.plain import as_plain
from actorstate.endpoint import lock_holder
from actorstate.errors import ForeignEdit, StoreError
from actorstate.store.choice import mender_at, view_at
from actorstate.store.location import Location, located, quoted
from actorstate.store.verify import Examined, examined
from actorstate.store.view import View

NAMED = 50
"""More damaged jobs are counted only; --json has them all."""


@dataclass(slots=True)
class _Verdict:
    jobs: int = 0
    deleted: int = 0
    changes: int = 0
    items: int = 0
    general: list[str] = field(default_factory=list[str])
    damaged: list[Examined] = field(default_factory=list[Examined])

    @property
    def ok(self) -> bool:
        return not self.general and not self.damaged


def _verify(options: argparse.Namespace) -> int:
    location = located(options.directory)
    verdict = verified(location, quiet=options.json)
    if options.json:
        print(line({"location": str(location), "ok": verdict.ok, **_facts(verdict)}))
    else:
        _tell(verdict)
        if not verdict.ok:
            print(f"to see what can be mended: actorstate repair {quoted(location)} --dry-run")
    return exits.FINE if verdict.ok else exits.NO


def verified(location: Location, *, quiet: bool) -> _Verdict:
    """Every job examined. Beside a running writer one that was just changed is looked at again."""
    verdict, view = _Verdict(), view_at(location)
    try:
        view.open()
    except StoreError as error:
        verdict.general.append(f"{error.message} ({error.hint})")
        return verdict
    with contextlib.closing(view):
        verdict.general += view.general_faults()
        busy = lock_holder(location.directory) is not None
        for found in _examined(view, quiet=quiet, again=2 if busy else 0):
            verdict.jobs += not found.deleted
            verdict.deleted += found.deleted
            verdict.changes += found.changes
            verdict.items += found.items
            if found.faults:
                verdict.damaged.append(found)
    return verdict


def _examined(view: View, *, quiet: bool, again: int) -> Iterator[Examined]:
    jobs = view.known_jobs()
    with stages("verifying", len(jobs), quiet=quiet) as step:
        for job in jobs:
            found = examined(view, job)
            for _ in range(again if found.faults else 0):
                view.forget()
                found = examined(view, job)
            step(job)
            yield found


def _facts(verdict: _Verdict) -> dict[str, object]:
    counted = {"jobs": verdict.jobs, "deleted": verdict.deleted, "changes": verdict.changes, "items": verdict.items}
    return {**counted, "general": verdict.general, "damaged": as_plain(verdict.damaged)}


def _tell(verdict: _Verdict) -> None:
    counted = f"{verdict.jobs:,} jobs, {verdict.changes:,} changes of their history, {verdict.items:,} items"
    rows = [("read", f"{counted}; {verdict.deleted:,} deleted jobs")]
    rows += [("WRONG", fault) for fault in verdict.general]
    for found in verdict.damaged[:NAMED]:
        rows += [("WRONG", f"{found.job}: {fault}") for fault in found.faults]
    if len(verdict.damaged) > NAMED:
        rows.append(("WRONG", f"and {len(verdict.damaged) - NAMED:,} jobs more (--json names them)"))
    print(table(rows))
    print("all is whole" if verdict.ok else f"{len(verdict.damaged):,} jobs are damaged")


def _add_repair(parser: argparse.ArgumentParser) -> None:
    add_directory(parser)
    parser.add_argument("--adopt", action="store_true", help="take files that somebody else has edited as they are")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")


def _repair(options: argparse.Namespace) -> int:
    location = located(options.directory)
    command = f"actorstate repair {quoted(location)}" + (" --adopt" if options.adopt else "")
    before = verified(location, quiet=True)
    done: list[dict[str, str]] = []
    if not before.ok and not options.dry_run:
        with locked(location.directory, command):
            before = verified(location, quiet=True)
            done = _mended(location, before, adopt=options.adopt, quiet=options.json)
        after = verified(location, quiet=True)
    else:
        done = [_planned(found, adopt=options.adopt) for found in before.damaged]
        after = before
    _report(options, location, done, after)
    return exits.FINE if after.ok else exits.NO


def _mended(location: Location, before: _Verdict, *, adopt: bool, quiet: bool) -> list[dict[str, str]]:
    done: list[dict[str, str]] = []
    mender = mender_at(location)
    with stages("repairing", len(before.damaged), quiet=quiet) as step:
        for found in before.damaged:
            try:
                told = mender.mend(found.job, adopt=adopt)
            except ForeignEdit as error:
                told = f"left as it is: {error.message}; to take it: actorstate repair {quoted(location)} --adopt"
            done.append({"job": found.job, "done": told})
            step(found.job)
    return done


def _planned(found: Examined, *, adopt: bool) -> dict[str, str]:
    what = "; ".join(found.faults)
    return {"job": found.job, "done": f"would mend{' or adopt' if adopt else ''}: {what}"}


def _report(options: argparse.Namespace, location: Location, done: list[dict[str, str]], after: _Verdict) -> None:
    if options.json:
        told = {"location": str(location), "dry_run": options.dry_run, "ok": after.ok, "done": done}
        print(line({**told, "general": after.general, "damaged": as_plain(after.damaged)}))
        return
    print(table([(each["job"], each["done"]) for each in done] + [("WRONG", fault) for fault in after.general]))
    if after.ok:
        print("all is whole" if done else "nothing was damaged")
    elif not options.dry_run:
        print(f"{len(after.damaged):,} jobs are still damaged: actorstate verify {quoted(location)}")


COMMANDS = {"verify": Command(add_directory, _verify), "repair": Command(_add_repair, _repair)}
