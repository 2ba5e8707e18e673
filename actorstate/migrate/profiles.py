"""The way in for apps: two lines at their start, safe when all workers of a server call them at once.

    from actorstate.migrate.profiles import run_profiles
    run_profiles("/var/lib/app/data", layout="server")

One process migrates, the others wait for it. Once nothing is left to do, a call costs a `stat` for each user.
"""

import os
import threading
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from actorstate.client.sync import connect
from actorstate.errors import ActorStateError
from actorstate.migrate.clocks import present_moment
from actorstate.migrate.jobview import JobView
from actorstate.migrate.journal import read_journal
from actorstate.migrate.layouts import Layout, layout_named
from actorstate.migrate.prune import GRACE_S, due, prune_all
from actorstate.migrate.run import Outcome, Report, Settings, Watcher, run_all
from actorstate.migrate.runlock import is_done
from actorstate.migrate.survey import registered, survey, users_in
from actorstate.migrate.words import say_plan
from actorstate.migrate.work import Options

WAIT_S = 3_600.0
"""How long a call waits for the process that migrates."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a call of `run_profiles` may ask for beside DATA and the layout."""

    wait_s: float = WAIT_S
    """How long to wait for another process that migrates; 0: raise MigrationRunning at once."""
    workers: int = 1
    state: str | None = None
    """Directory or URL of the jobs among which the run is shown; None: it is not."""
    backup_images: bool = False
    lock_wait_s: float = 5.0
    prune: bool = True
    grace_s: float = GRACE_S


def run_profiles(
    data: str | Path, layout: str | Layout = "server", *, dry_run: bool | None = None, wish: Wish | None = None
) -> Report:
    """Migrates the users in `data` who need it, and returns what was done for each.

    `dry_run` (None: whether MIGRATION_DRY_RUN is `true`) prints what would be done and changes nothing.
    Raises MigrationRunning when another process is at it for longer than `wish.wait_s`, UserRefused where there
    is no such folder. What goes wrong for one user is in the report: see `Report.good`.
    """
    chosen, place, asked = _layout(layout), Path(data).absolute(), wish or Wish()
    if wants_dry_run() if dry_run is None else dry_run:
        return _rehearsed(place, chosen, asked)
    if nothing_to_do(place, chosen):
        return Report(str(place), chosen.name, ())
    options = Options(lock_wait_s=asked.lock_wait_s, backup_images=asked.backup_images)
    settings = Settings(workers=asked.workers, wait_s=asked.wait_s, options=options)
    with ExitStack() as stack:
        watcher = Watcher()
        if asked.state is not None:
            client = stack.enter_context(connect(asked.state))
            watcher = stack.enter_context(JobView(client, place))
        report = run_all(place, chosen, settings, watcher)
    if asked.prune:
        prune_in_background(place, asked.grace_s)
    return report


def wants_dry_run() -> bool:
    """Whether the environment asks for a dry run."""
    return os.environ.get("MIGRATION_DRY_RUN", "").strip().lower() in {"true", "1", "yes"}


def nothing_to_do(data: Path, layout: Layout) -> bool:
    """Whether the last run left nothing to do, and no user has come since: a `stat` for each, or one query."""
    if not is_done(data, layout.key):
        return False
    users = users_in(data)
    if layout.moves:
        return not any(_may_be_there(data / user / layout.database.old) for user in users)
    return registered(data, layout) >= set(users) - set(layout.ignored)


def _may_be_there(path: Path) -> bool:
    """A folder that may not be entered is something to do: the run names it."""
    try:
        return path.exists()
    except PermissionError:
        return True


def prune_in_background(data: Path, grace_s: float) -> threading.Thread | None:
    """Removes the backups whose grace is over, in a thread; None when there are none."""
    if not any(_is_due(data / user, grace_s) for user in users_in(data)):
        return None

    def prune() -> None:
        with suppress(ActorStateError, OSError):  # the daily timer comes by again
            for _ in prune_all(data, grace_s):
                pass

    thread = threading.Thread(target=prune, name="actorstate-prune", daemon=True)
    thread.start()
    return thread


def _is_due(folder: Path, grace_s: float) -> bool:
    try:
        kept = read_journal(folder)
    except ActorStateError:  # told when he is looked at
        return False
    return kept is not None and due(kept, grace_s, present_moment())


def _rehearsed(data: Path, layout: Layout, wish: Wish) -> Report:
    plan = survey(data, layout)
    say_plan(plan, lambda told: print(told, flush=True), images=wish.backup_images, dry_run=True)  # noqa: T201 - asked for
    users = tuple(Outcome(one.user, "planned", one.reason or one.action, bytes=one.bytes) for one in plan.users)
    return Report(str(data), layout.name, users)


def _layout(layout: str | Layout) -> Layout:
    return layout if isinstance(layout, Layout) else layout_named(layout)
