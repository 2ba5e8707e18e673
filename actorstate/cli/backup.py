"""`backup`: a verified copy of a whole store in a new directory. To restore it, start a writer there."""

import argparse
import contextlib

from actorstate.cli import exits
from actorstate.cli.asjson import line
from actorstate.cli.command import Command, add_directory
from actorstate.cli.stages import locked, table
from actorstate.cli.verify import verified
from actorstate.errors import BadRequest, CorruptJob
from actorstate.store.backup import copy_store, finish, partial
from actorstate.store.choice import view_at
from actorstate.store.location import Location, located, quoted


def _add_backup(parser: argparse.ArgumentParser) -> None:
    add_directory(parser)
    parser.add_argument("target", metavar="TO", help="a directory that does not exist yet")


def _backup(options: argparse.Namespace) -> int:
    location, copied = located(options.directory), located(options.target)
    target = copied.directory
    view_at(location)  # says what is wrong with the location before anything is made
    if copied.kind == "json" != location.kind:
        raise BadRequest(
            f"a backup is a store of the same kind; {options.target} names another",
            hint=f"actorstate backup {quoted(location)} {quoted(Location(location.kind, target))}",
        )
    growing = partial(target)
    with contextlib.ExitStack() as stack:
        if location.kind == "json":
            stack.enter_context(locked(location.directory, f"actorstate backup {location} {target}"))
        copy_store(location, growing)
    copy = Location(location.kind, growing)
    verdict = verified(copy, quiet=options.json)
    if not verdict.ok:
        named = ", ".join(found.job for found in verdict.damaged[:10]) or "; ".join(verdict.general)
        raise CorruptJob(
            f"the copy is damaged, and so is {location}, most likely: {named}; it was left in {growing}",
            hint=f"see what is damaged: actorstate verify {quoted(location)}",
        )
    manifest = finish(growing, target, location, verdict.jobs)
    place = Location(location.kind, target)
    if options.json:
        print(line({"to": str(place), "verified": True, **manifest}))
        return exits.FINE
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    rows = [("kept", f"{verdict.jobs:,} jobs, {size:,} bytes, in {target}"), ("verified", "every job was read back")]
    print(table([*rows, ("restore", f"copy it where it shall be, then: actorstate serve {quoted(place)}")]))
    return exits.FINE


COMMANDS = {"backup": Command(_add_backup, _backup)}
