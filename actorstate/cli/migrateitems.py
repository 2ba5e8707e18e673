"""`migrate plan | run | status | verify items SOURCE TARGET`: items of files and tables, one by one."""

import argparse
import hashlib
import os
import shlex
import sys
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

from actorstate.cli import exits
from actorstate.cli.asjson import line
from actorstate.cli.command import add_timeout, can_draw, has_writer, opened, positive
from actorstate.cli.migrating import FRAME_S, LINE_S, drawn_over, span_of_time
from actorstate.cli.views import clean, counts, job_lines, watch_line
from actorstate.client.sync import Client, connect
from actorstate.core.messages.document import JobState
from actorstate.core.plain import as_plain
from actorstate.errors import ActorStateError, BadRequest
from actorstate.migrate.items.comparison import Comparison, Example, Preview, compared, previewed
from actorstate.migrate.items.deletion import deleted_in, frozen
from actorstate.migrate.items.files import parsed_json
from actorstate.migrate.items.mapping import FieldMapping
from actorstate.migrate.items.named import SOURCES, TARGETS, opened_source, opened_target
from actorstate.migrate.items.rules import Duplicates, Migration, Mode, Rules
from actorstate.migrate.items.run import KIND, migrate_items
from actorstate.migrate.profiles import wants_dry_run

KEYS_SHOWN = 20


def add_ends(parser: argparse.ArgumentParser) -> None:
    """SOURCE and TARGET."""
    parser.add_argument("source", metavar="SOURCE", help=SOURCES)
    parser.add_argument("target", metavar="TARGET", help=TARGETS)


def add_rules(parser: argparse.ArgumentParser) -> None:
    """What `plan`, `run` and `verify` have to know."""
    add_ends(parser)
    parser.add_argument("--key", required=True, metavar="FIELD", help="the source's field by which an item is known")
    parser.add_argument("--mode", choices=get_args(Mode), default="create", help="default create")
    told = "with --mode create, what is there already: skip it (default), count it as an error, or update it"
    parser.add_argument("--duplicates", choices=get_args(Duplicates), default="skip", help=told)
    for name, known, told in (
        ("rename", "OLD=NEW", "a field has another name in the target"),
        ("set", "NEW=VALUE", "give each item this field; the value is JSON, or else text"),
        ("drop", "OLD", "leave a field out"),
    ):
        parser.add_argument(f"--{name}", action="append", default=[], metavar=known, help=f"{told} (may be repeated)")
    told = "1 to 1000, default 500, for an HTTP target 50: so many items are counted together"
    parser.add_argument("--batch-size", type=positive, metavar="N", help=told)
    parser.add_argument("--workers", type=positive, default=1, metavar="N", help="requests at once to an HTTP target")
    parser.add_argument("--max-items", type=positive, metavar="N", help="only the first N items of the source")
    told = "after an approval, delete in the target what the source does not have"
    parser.add_argument("--delete-missing", action="store_true", help=told)
    told = "a file with a header a line for an HTTP target, such as `Authorization: Bearer ...`"
    parser.add_argument("--headers", type=Path, metavar="FILE", help=told)


def add_run(parser: argparse.ArgumentParser) -> None:
    """`run`."""
    add_rules(parser)
    told = "where the job is kept: the same line typed again goes on with it (needed, but for a dry run)"
    parser.add_argument("--state", dest="directory", metavar="DIR-OR-URL", help=told)
    _add_job(parser)
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done (MIGRATION_DRY_RUN=true)")
    parser.add_argument("--stop-on-error", action="store_true", help="end at the first item that fails")
    parser.add_argument(
        "--retry", metavar="CATEGORY", help="once more the failed items of this category, in the same job"
    )
    parser.add_argument("--again", action="store_true", help="all items anew, once the job has ended")
    parser.add_argument(
        "--expire-after", type=span_of_time, metavar="TIME", help="delete the job 30d, 12h, ... after its end"
    )


def add_status(parser: argparse.ArgumentParser) -> None:
    """`status`."""
    add_ends(parser)
    parser.add_argument("--state", dest="directory", required=True, metavar="DIR-OR-URL", help="where the job is kept")
    _add_job(parser)
    add_timeout(parser)


def add_nothing(parser: argparse.ArgumentParser) -> None:
    """A verb that means nothing for items takes whatever it is given, to say so."""
    parser.add_argument("anything", nargs="*", help=argparse.SUPPRESS)


def _add_job(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--job", metavar="ID", help="the job's id (default: one that is made of SOURCE and TARGET)")


def plan(options: argparse.Namespace) -> int:
    """What a run would do; nothing is written and no job is made."""
    with _migration(options, read_only=True) as migration:
        preview = previewed(migration)
    if options.json:
        print(line({"dry_run": True, "preview": as_plain(preview)}))
    else:
        print("[DRY RUN] nothing is written, and no job is made")
        _say(_preview_lines(preview))
    return exits.NO if preview.counts["fail"] else exits.FINE


def run(options: argparse.Namespace) -> int:
    """Migrates, or goes on."""
    if options.dry_run or wants_dry_run():
        return plan(options)
    if options.directory is None:
        options.parser.error("--state DIR says where the job is kept; the same line typed again goes on with it")
    directory = str(options.directory)
    if options.retry is not None:
        has_writer(directory)  # a job that is not there has no failed items: nothing is begun for it
    with (
        _migration(options, read_only=False) as migration,
        connect(directory) as client,
        _followed(client, migration, directory, quiet=options.json),
    ):
        expire_after_s = options.expire_after
        state = migrate_items(
            client, migration, retry=options.retry, again=options.again, expire_after_s=expire_after_s
        )
    if options.json:
        print(line({"job": as_plain(state)}))
    else:
        _say(_report_lines(state, directory))
    return exits.FINE if state.status == "completed" and not state.progress.failed else exits.NO


def status(options: argparse.Namespace) -> int:
    """The job, and what waits for an approval."""
    with opened(options) as client:
        state = client.get(_job(options))
    found = frozen(state)
    keys = found.keys if found else []
    if options.json:
        print(line({"job": as_plain(state), "to_delete": keys}))
        return exits.FINE
    _say(job_lines(state, datetime.now(UTC)))
    if keys and deleted_in(state) is None:
        print(f"to delete, once approved: {len(keys):,} items (--json has them all)")
        _say(f"  {clean(key)}" for key in keys[:KEYS_SHOWN])
    _say(_next_lines(state, options.directory))
    return exits.FINE


def verify(options: argparse.Namespace) -> int:
    """Compares all items on both sides."""
    with _migration(options, read_only=True) as migration:
        found = compared(migration)
    if options.json:
        print(line({"comparison": as_plain(found), "good": found.good}))
    else:
        _say(_comparison_lines(found))
    return exits.FINE if found.good else exits.NO


def nothing(options: argparse.Namespace) -> int:
    """Says why the verb means nothing for items."""
    options.parser.error(
        f"{options.verb} means nothing for items: what was written stays in the target; compare both sides with: "
        "actorstate migrate verify items SOURCE TARGET --key FIELD"
    )
    return exits.USAGE


@contextmanager
def _migration(options: argparse.Namespace, *, read_only: bool) -> Generator[Migration]:
    rules = Rules(
        options.key,
        options.mode,
        options.duplicates,
        _mapping(options),
        batch_size=options.batch_size or (50 if options.target.startswith("http") else 500),
        workers=options.workers,
        max_items=options.max_items,
        stop_on_error=getattr(options, "stop_on_error", False),
        delete_missing=options.delete_missing,
    )
    key, headers = rules.mapping.name(rules.key), _headers(options.headers)
    if options.workers > 1 and not options.target.startswith("http"):
        options.parser.error("--workers is for HTTP targets: an SQLite database is written by one at a time")
    with opened_source(options.source) as source, ExitStack() as stack:
        rules.mapping.check(source.fields(), None, rules.key)  # before a target says that it has no such key
        target = stack.enter_context(opened_target(options.target, key, headers, read_only=read_only))
        yield Migration(_job(options), source, target, rules, options.source, options.target)


def _job(options: argparse.Namespace) -> str:
    if given := getattr(options, "job", None):
        return str(given)
    ends = [end if end.startswith("http") else str(Path(end).resolve()) for end in (options.source, options.target)]
    return f"{KIND}-{hashlib.sha256(chr(10).join(ends).encode(errors='surrogateescape')).hexdigest()[:12]}"


def _mapping(options: argparse.Namespace) -> FieldMapping:
    renamed = dict(_pair(options, "rename", text) for text in options.rename)
    constants = {name: _value(text) for name, text in (_pair(options, "set", text) for text in options.set)}
    return FieldMapping(renamed, constants, frozenset(options.drop))


def _pair(options: argparse.Namespace, name: str, text: str) -> tuple[str, str]:
    left, separator, right = text.partition("=")
    if not separator or not left:
        options.parser.error(f"--{name} {text}: two names with = between them are needed")
    return left, right


def _value(text: str) -> object:
    try:
        return parsed_json(text)
    except ValueError:
        return text


def _headers(path: Path | None) -> dict[str, str]:
    """Raises BadRequest; OSError where the file cannot be read."""
    headers: dict[str, str] = {}
    for text in [] if path is None else path.read_text().splitlines():
        name, separator, value = text.partition(":")
        if text.strip() and not separator:
            raise BadRequest(f"a line of {str(path)!r} is no header", hint="each line is NAME: VALUE")
        if text.strip():
            headers[name.strip()] = value.strip()
    return headers


@contextmanager
def _followed(client: Client, migration: Migration, directory: str, *, quiet: bool) -> Generator[None]:
    """Shows the job while the block lasts: one line drawn anew on a terminal, a line now and then in a pipe."""
    over = threading.Event()
    beside = threading.Thread(target=_follow, args=(client, migration.job, directory, over), daemon=True)
    if not quiet:
        beside.start()
    try:
        yield
    finally:
        over.set()
        if not quiet:
            beside.join(2 * LINE_S)


def _follow(client: Client, job: str, directory: str, over: threading.Event) -> None:
    drawing, revision, told, shown = can_draw(), 0, "", time.monotonic()
    width = os.get_terminal_size(sys.stdout.fileno()).columns - 1 if drawing else None
    while not over.wait(FRAME_S):
        with suppress(ActorStateError):  # there is no job yet, or its writer is away; the migration itself tells
            state = client.get_if_newer(job, revision)
            if state is None:
                continue
            if (waits_for := _waits_for(state, directory)) not in {told, ""}:
                drawn_over("", drawing=drawing)
                print(waits_for, file=sys.stderr, flush=True)
            told = waits_for
            if drawing or time.monotonic() >= shown + LINE_S:
                revision, shown = state.revision, time.monotonic()
                drawn_over(watch_line(state)[:width], drawing=drawing)
    drawn_over("", drawing=drawing)


def _waits_for(state: JobState, directory: str) -> str:
    """What somebody must type before it goes on."""
    if state.finished:
        return ""
    if state.awaits_approval and state.approval is not None:
        told = f"it asks: {clean(state.approval.question)}"
        return f"{told}\n  to say yes: actorstate approve {shlex.quote(directory)} {state.id}"
    if state.status == "paused":
        return f"it is paused\n  to let it go on: actorstate resume {shlex.quote(directory)} {state.id}"
    return ""


def _report_lines(state: JobState, directory: str) -> Iterator[str]:
    yield f"{state.id}: {state.status}: {counts(state.progress)}"
    if told := deleted_in(state):
        yield f"  deleted: {told['deleted']:,} of {told['approved']:,} that were approved"
        if told["left"]:
            yield f"  {told['left']:,} more are not in the source: the same line with --again asks for those"
    yield from _next_lines(state, directory)


def _next_lines(state: JobState, directory: str) -> Iterator[str]:
    """What there is to type next."""
    if state.reason and state.status != "completed":
        yield f"  {clean(state.reason)}"
    if state.progress.failed:
        categories = ", ".join(
            f"{number:,} {clean(name)}" for name, number in state.progress.by_category.items() if number
        )
        yield f"  failed: {categories}; which: actorstate items {shlex.quote(directory)} {state.id} --outcome failed"
        yield "  once more: the same line with --retry CATEGORY"
    if waits_for := _waits_for(state, directory):
        yield waits_for
    if state.status in {"failed", "cancelled"}:
        yield "  to go on: the same line again"
    if state.status == "completed":
        yield "  nothing is left to do; all items anew: the same line with --again"


def _preview_lines(preview: Preview) -> Iterator[str]:
    told = ", ".join(f"{number:,} would {_WORDS[would]}" for would, number in preview.counts.items())
    yield f"{preview.items:,} items: {told or 'nothing to do'}"
    if preview.categories:
        yield "  failing: " + ", ".join(f"{number:,} {name}" for name, number in preview.categories.items())
    for example in preview.examples:
        yield from _example_lines(example, f"would {_WORDS[example.would]}")
    if preview.surplus is not None:
        yield f"{preview.surplus:,} items of the target are not in the source: it would be asked whether to delete them"


def _comparison_lines(found: Comparison) -> Iterator[str]:
    others = ", ".join(f"{number:,} {kind}" for kind, number in found.counts.items() if kind not in {"items", "same"})
    yield f"{found.counts['items']:,} items, {found.counts['same']:,} the same on both sides" + (
        f", {others}" if others else ""
    )
    yield f"  digest of the source {found.source[:16]}, of the target {found.target[:16]}"
    for example in found.examples:
        yield from _example_lines(example, _FOUND[example.would])
    if found.surplus is None and found.counts["unreadable"]:
        yield "  whether the target has items that are not in the source can be told when all of them can be read"
    if found.surplus:
        yield f"  {found.surplus:,} items of the target are not in the source"


_WORDS = {
    "create": "be created",
    "update": "be updated",
    "skip": "be skipped",
    "duplicate": "count as duplicates",
    "fail": "fail",
}
_FOUND = {"create": "missing in the target", "update": "different", "fail": "unreadable"}


def _example_lines(example: Example, what: str) -> Iterator[str]:
    yield clean(f"  {example.key}: {what}" + (f": {example.reason}" if example.reason else ""))
    for change in example.changes:
        yield clean(f"    {change.field}: {change.old} -> {change.new}")


def _say(texts: Iterable[str]) -> None:
    for text in texts:
        print(text, flush=True)
