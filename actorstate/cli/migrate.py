"""`migrate plan | run | status | verify | rollback | prune | audit profiles DATA`: moving users' data safely.

`migrate plan | run | status | verify items SOURCE TARGET` is in `migrateitems.py`.
"""

import argparse
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from actorstate.cli import exits, migrateitems
from actorstate.cli.asjson import line
from actorstate.cli.command import Command, can_draw, has_writer, seconds
from actorstate.cli.migrating import Following, checked_lines, pruned_line, span_of_time, standing_lines
from actorstate.cli.views import clean
from actorstate.client.sync import connect
from actorstate.core.plain import as_plain
from actorstate.errors import ActorStateError
from actorstate.migrate.audit import audit_all, words_of
from actorstate.migrate.jobview import JobView, job_of
from actorstate.migrate.layouts import Layout, layout_named
from actorstate.migrate.mend import mended
from actorstate.migrate.plan import Plan
from actorstate.migrate.preflight import examined
from actorstate.migrate.profiles import prune_in_background, wants_dry_run
from actorstate.migrate.prune import prune_all
from actorstate.migrate.rollback import roll_back_all
from actorstate.migrate.run import Report, Settings, Watcher, run_all
from actorstate.migrate.runlock import must_exist, runner_of
from actorstate.migrate.status import standings
from actorstate.migrate.survey import survey
from actorstate.migrate.verification import verify_all
from actorstate.migrate.words import report_lines, say_plan
from actorstate.migrate.work import Options

MAX_WORKERS = 64
"""More would only wait for the disk."""


@dataclass(frozen=True, slots=True)
class _Verb:
    summary: str
    add: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def workers(text: str) -> int:
    """1 to 64."""
    if not (text.isdecimal() and 1 <= int(text) <= MAX_WORKERS):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {MAX_WORKERS}")
    return int(text)


def _add_migrate(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, verb in VERBS.items():
        one = verbs.add_parser(name, help=verb.summary, description=f"{verb.summary}.", allow_abbrev=False)
        kinds = one.add_subparsers(dest="what", metavar="profiles | items", required=True)
        told = "each user's database and folders"
        profiles = kinds.add_parser("profiles", help=told, description=f"{verb.summary}: {told}.", allow_abbrev=False)
        profiles.add_argument("directory", metavar="DATA", help="the folder in which the users' folders are")
        profiles.add_argument("--user", metavar="U", help="only this user")
        told = "the jobs among which run and rollback show themselves and status looks; all else reads DATA alone"
        profiles.add_argument("--state", metavar="DIR-OR-URL", help=told)
        told = "items from a source into a target, one by one"
        items = kinds.add_parser("items", help=told, description=f"{verb.summary}: {told}.", allow_abbrev=False)
        for kind, add in ((profiles, verb.add), (items, ITEM_VERBS[name].add)):
            kind.set_defaults(parser=kind)
            # SUPPRESS: a default here would take the place of what stood before the verb
            told = "print JSON, errors included"
            kind.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=told)
            add(kind)


def _migrate(options: argparse.Namespace) -> int:
    if options.what == "items":
        return ITEM_VERBS[options.verb].run(options)
    try:
        with _told_to_end():
            return VERBS[options.verb].run(options)
    except KeyboardInterrupt as error:
        if options.verb in {"run", "rollback", "audit", "prune"}:
            again = shlex.join(("actorstate", *options.given))
            print(f"\ninterrupted; whose turn it was is whole, or is taken up by: {again}", file=sys.stderr)
        if isinstance(error, _Terminated):
            raise SystemExit(128 + signal.SIGTERM) from None
        raise


class _Terminated(KeyboardInterrupt):
    """SIGTERM: ends a run as Ctrl-C does."""


@contextmanager
def _told_to_end() -> Generator[None]:
    def end(_number: int, _frame: object) -> None:
        raise _Terminated

    if (
        signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        or threading.current_thread() is not threading.main_thread()
    ):
        yield  # somebody else's
        return
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _add_layout(parser: argparse.ArgumentParser) -> None:
    told = "server (default), desktop, mobile, or module:NAME of a layout of your own"
    parser.add_argument("--layout", default="server", metavar="NAME", help=told)
    parser.add_argument("--move", action="store_true", help="mobile: move the data too, not only write the rows")


def _add_run(parser: argparse.ArgumentParser) -> None:
    _add_layout(parser)
    _add_lock_wait(parser)
    parser.add_argument("--workers", type=workers, default=1, metavar="N", help="users at once (default 1)")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done (MIGRATION_DRY_RUN=true)")
    parser.add_argument("--backup-images", action="store_true", help="copy the folders as well, not only the database")
    parser.add_argument("--no-prune", action="store_true", help="do not remove backups whose grace is over afterwards")
    _add_grace(parser)


def _add_lock_wait(parser: argparse.ArgumentParser) -> None:
    told = "refuse a user whose database is in use for so long (default 5)"
    parser.add_argument("--lock-wait", type=seconds, default=5.0, metavar="S", help=told)


def _add_grace(parser: argparse.ArgumentParser) -> None:
    told = "how long backups are kept, from the end of the migration: 30d (default), 12h, ..."
    parser.add_argument("--grace", type=span_of_time, default=span_of_time("30d"), metavar="TIME", help=told)


def _layout(options: argparse.Namespace) -> Layout:
    return layout_named(options.layout, move=options.move)


def _data(options: argparse.Namespace) -> Path:
    return Path(os.path.abspath(options.directory))  # noqa: PTH100 - resolve() would follow links


def _plan(options: argparse.Namespace) -> int:
    return _tell_plan(options, survey(_data(options), _layout(options), options.user))


def _tell_plan(options: argparse.Namespace, plan: Plan, *, images: bool = False, dry_run: bool = False) -> int:
    if not options.json:
        good = say_plan(plan, lambda text: _say([text]), images=images, dry_run=dry_run)
        return exits.FINE if good else exits.NO
    found = {one.user: list(problems) for one, problems in examined(plan, images=images)}
    told = {"plan": as_plain(plan), "problems": found, "bytes": plan.bytes, "estimate_s": plan.estimate_s}
    print(line({"dry_run": True, **told} if dry_run else told))
    return exits.NO if any(found.values()) else exits.FINE


def _run(options: argparse.Namespace) -> int:
    data, layout = _data(options), _layout(options)
    if options.dry_run or wants_dry_run():
        plan = survey(data, layout, options.user)
        return _tell_plan(options, plan, images=options.backup_images, dry_run=True)
    must_exist(data, layout)
    with ExitStack() as stack:
        watcher = _watcher(options, stack)
        follow = watcher if isinstance(watcher, Following) else None
        tell = Options().tell if follow is None else follow.tell
        work = Options(options.lock_wait, options.backup_images, tell)
        report = run_all(data, layout, Settings(options.workers, options.user, options=work), watcher)
    _tell_report(options, report, watcher)
    pruning = None if options.no_prune else prune_in_background(data, options.grace)
    if pruning is not None:
        pruning.join()
    return exits.FINE if report.good else exits.NO


def _watcher(options: argparse.Namespace, stack: ExitStack) -> Watcher:
    must_exist(_data(options))  # before a state directory is begun for it
    inner = Watcher()
    if options.state is not None:
        client = stack.enter_context(connect(options.state))
        inner = stack.enter_context(JobView(client, _data(options)))
    return inner if options.json else Following(inner, drawing=can_draw() and sys.stderr.isatty())


def _tell_report(options: argparse.Namespace, report: Report, watcher: Watcher) -> None:
    if options.json:
        print(line(as_plain({"report": report, "good": report.good, "counts": report.counts})))
        return
    _say(report_lines(report))
    inner = watcher.inner if isinstance(watcher, Following) else watcher
    if isinstance(inner, JobView):
        print(f"as a job: actorstate get {shlex.quote(options.state)} {inner.job}")
        if inner.notice:
            print(f"  the job does not show all of it: {inner.notice}")


def _status(options: argparse.Namespace) -> int:
    found = list(standings(_data(options), options.user))
    pid, job = runner_of(_data(options)), _job(options)
    if options.json:
        print(line({"users": as_plain(found), "running": pid, "job": job}))
    else:
        _say(text for one in found for text in standing_lines(one))
        print(f"{len(found)} users with a journal" if found else "nobody has been migrated here")
        if pid is not None:
            print(f"process {pid} is at work on them now")
        if job is not None:
            print(f"as a job: {job['told']} (the journals above are the truth)")
    good = {"done", "rolled_back", "undone"}
    return exits.FINE if all(one.state in good for one in found) else exits.NO


def _job(options: argparse.Namespace) -> dict[str, object] | None:
    """What the job says that shows the run; the journals are the truth, so that what hinders is only told."""
    if options.state is None:
        return None
    name = job_of(_data(options))
    try:
        has_writer(options.state)
        with connect(options.state) as client:
            state = client.get(name)
    except ActorStateError as error:
        return {"id": name, "status": None, "told": f"{name}: {error.message}"}
    done = f"{state.progress.processed} of {state.progress.total} users"
    return {"id": name, "status": state.status, "told": f"{name}: {state.status}, {done}"}


def _verify(options: argparse.Namespace) -> int:
    good, everyone = True, list[object]()
    for one in verify_all(_data(options), options.user):
        good = good and one.good
        everyone.append(as_plain(one))
        if not options.json:
            _say(checked_lines(one))
    if options.json:
        print(line({"users": everyone, "good": good}))
    elif not everyone:
        print("nobody has been migrated here")
    return exits.FINE if good else exits.NO


def _add_rollback(parser: argparse.ArgumentParser) -> None:
    _add_lock_wait(parser)
    told = "bring back the backup, not what the user has now (which is kept as a backup of its own)"
    parser.add_argument("--from-backup", action="store_true", help=told)


def _rollback(options: argparse.Namespace) -> int:
    with ExitStack() as stack:
        watcher = _watcher(options, stack)
        work = Options(options.lock_wait)
        report = roll_back_all(_data(options), watcher, work, user=options.user, from_backup=options.from_backup)
    _tell_report(options, report, watcher)
    return exits.FINE if report.good else exits.NO


def _add_prune(parser: argparse.ArgumentParser) -> None:
    _add_grace(parser)
    told = "the date is right, and was so when the migration ended: remove what is due by it, whatever the clocks say"
    parser.add_argument("--trust-clock", action="store_true", help=told)


def _prune(options: argparse.Namespace) -> int:
    wrong, everyone = False, list[object]()
    for one in prune_all(_data(options), options.grace, options.user, trust_clock=options.trust_clock):
        wrong = wrong or one.wrong
        everyone.append(as_plain(one))
        if not options.json:
            _say([pruned_line(one)])
    if options.json:
        print(line({"backups": everyone}))
    elif not everyone:
        print("there are no backups of ours")
    return exits.NO if wrong else exits.FINE


def _add_audit(parser: argparse.ArgumentParser) -> None:
    _add_layout(parser)
    parser.add_argument("--mend", action="store_true", help="mend what can be mended, journaled like a migration")
    told = "with --mend, where both databases are there and differ: which one stays (the other becomes a backup)"
    parser.add_argument("--keep", choices=["old", "new"], help=told)


def _audit(options: argparse.Namespace) -> int:
    if options.keep and not options.mend:
        options.parser.error("--keep is for --mend: without it nothing is changed")
    data, layout = _data(options), _layout(options)
    found = list(audit_all(data, layout, options.user))
    if options.mend and found:
        found = list(mended(data, layout, found, options.keep))
    if options.json:
        print(line({"findings": as_plain(found)}))
    else:
        _say(text for one in found for text in words_of(one))
        print(f"{len(found)} findings" if found else "nothing is wrong")
    return exits.FINE if all(one.mended for one in found) else exits.NO


def _say(texts: Iterable[str]) -> None:
    for text in texts:
        print(clean(text), flush=True)


VERBS = {
    "plan": _Verb("say what a run would do, and what stands in its way; nothing is changed", _add_layout, _plan),
    "run": _Verb("migrate; an interrupted run is taken up", _add_run, _run),
    "status": _Verb("tell how far it is", lambda _: None, _status),
    "verify": _Verb("compare what was migrated with where it came from", lambda _: None, _verify),
    "rollback": _Verb("bring users back to the old layout", _add_rollback, _rollback),
    "audit": _Verb("find what an earlier, unsafe migration has left behind", _add_audit, _audit),
    "prune": _Verb("remove backups of users whose grace is over", _add_prune, _prune),
}
_NOTHING = _Verb("means nothing for items", migrateitems.add_nothing, migrateitems.nothing)
ITEM_VERBS = dict.fromkeys(VERBS, _NOTHING) | {
    "plan": _Verb("say what a run would do with each item", migrateitems.add_rules, migrateitems.plan),
    "run": _Verb("migrate the items; an interrupted run is taken up", migrateitems.add_run, migrateitems.run),
    "status": _Verb("tell how far the job is", migrateitems.add_status, migrateitems.status),
    "verify": _Verb("compare all items on both sides", migrateitems.add_rules, migrateitems.verify),
}
COMMANDS = {"migrate": Command(_add_migrate, _migrate)}
