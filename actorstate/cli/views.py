"""Jobs as plain lines: for pipes, for terminals without rich, and as the words that the drawings use.

What users have written (phases, reasons, row keys) is shown with control characters replaced: a job's text
must not move the cursor of the person who looks at it.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

from actorstate.core.messages.document import Attempt, JobState, Progress, Rate, Recovered, Step, Worker

ERRORS_SHOWN = 5
APPROVALS_SHOWN = 3
ATTEMPTS_SHOWN = 5
WORKERS_SHOWN = 20
"""More are counted, not listed; `--json` has them all."""

JOB_COLUMNS = ("JOB", "KIND", "STATUS", "HEALTH", "DONE", "ROWS", "RATE", "ENDS", "UPDATED", "NOTE")


def job_columns(state: JobState) -> tuple[str, ...]:
    """One job's values under JOB_COLUMNS, without spaces; what there is not is a dash."""
    return (
        state.id,
        clean(state.kind).replace(" ", "_"),
        state.status,
        state.health or "-",
        percent(state.progress),
        f"{state.progress.processed}/{'-' if state.progress.total is None else state.progress.total}",
        "-" if state.rate.per_s is None else f"{state.rate.per_s:.1f}/s",
        moment(state.rate.eta),
        moment(state.updated_at),
        ",".join(_notes(state, "_")) or "-",
    )


def job_glance(state: JobState, now: datetime) -> dict[str, str]:
    """One job's values under JOB_COLUMNS, short, with times as distances from `now`."""
    total, rate = state.progress.total, state.rate
    return {
        "JOB": state.id,
        "KIND": clean(state.kind),
        "STATUS": state.status,
        "HEALTH": state.health or "-",
        "DONE": percent(state.progress),
        "ROWS": short(state.progress.processed) + ("" if total is None else f" of {short(total)}"),
        "RATE": "-" if rate.per_s is None else f"{short(rate.per_s)}/s",
        "ENDS": "-" if rate.eta is None else f"in {span((rate.eta - now).total_seconds())}",
        "UPDATED": ago(state.updated_at, now),
        "NOTE": ", ".join(_notes(state, " ")),
    }


def _notes(state: JobState, space: str) -> Iterator[str]:
    """What else one must know of a job, in a word or two each."""
    if state.awaits_approval and not state.finished:
        yield f"asks{space}for{space}approval"
    if state.throttle is not None and not state.finished:
        yield f"at{space}most{space}{state.throttle.rows_per_s:g}/s"
    if state.attempt > 1:
        yield f"attempt{space}{state.attempt}"
    if state.expires_at is not None:
        yield f"until{space}{moment(state.expires_at)}"


def short(number: float) -> str:
    """`950`, `12.3k`, `8.0M`: three figures, for looking and not for reckoning."""
    for unit in ("", "k", "M", "G"):
        if number < 1000:  # noqa: PLR2004 - what the units are made of
            return f"{number:.0f}" if not unit else f"{number:.1f}{unit}"
        number /= 1000
    return f"{number:.1f}T"


def watch_line(state: JobState) -> str:
    """All that matters of one state, in one line that begins with its time."""
    parts = [
        moment(state.updated_at),
        state.id,
        state.status,
        percent(state.progress),
        counts(state.progress),
        speed(state.rate, state.progress.unit),
        f"ends {moment(state.rate.eta)}" if state.rate.eta else "",
        state.health or "",
        clean(state.phase or ""),
        f"asks: {clean(state.approvals[-1].question)}" if state.awaits_approval and not state.finished else "",
        f"at most {state.throttle.rows_per_s:g}/s" if state.throttle and not state.finished else "",
        clean(state.reason or ""),
    ]
    return "  ".join(part for part in parts if part and part != "-")


def job_lines(state: JobState, now: datetime) -> Iterator[str]:
    """One job as a page: a line a subject, subjects that have nothing to say left out."""
    head = f"{state.id}  {state.status}" + (f"  {state.health}" if state.health else "")
    yield f"{head}  (kind {clean(state.kind)}, revision {state.revision}, epoch {state.epoch})"
    if state.reason:
        yield _row("reason", clean(state.reason))
    yield _row("progress", f"{percent(state.progress)}  {counts(state.progress)}")
    yield from _pace(state, now)
    if state.phase:
        yield _row("phase", clean(state.phase))
    if state.recovered:
        yield _row("recovered", _recovered(state.recovered))
    if state.control:
        by = f" by {clean(state.control.by)}" if state.control.by else ""
        yield _row("control", f"{state.control.intent} {state.control.state}{by}, {ago(state.control.at, now)}")
    yield from _wishes(state, now)
    yield from _rows("worker", _workers(state))
    yield from _rows("step", (_step(step) for step in state.steps))
    checkpoints = sorted(state.checkpoints.items())
    yield from _rows("saved", (f"{clean(name)}  {ago(saved.at, now)}" for name, saved in checkpoints))
    yield from _rows("label", (f"{clean(key)}={clean(value)}" for key, value in sorted(state.labels.items())))
    yield from _errors(state)
    yield from _rows("attempt", (_attempt(each, now) for each in state.attempts[-ATTEMPTS_SHOWN:]))
    yield from _rows("rules", _rules(state))
    times = (
        ("created", state.created_at),
        ("started", state.started_at),
        ("finished", state.finished_at),
        ("expires", state.expires_at),
    )
    yield _row("times", ", ".join(f"{name} {moment(at)}" for name, at in times if at))


def _wishes(state: JobState, now: datetime) -> Iterator[str]:
    """What people want of the job, and what it wants of them."""
    for asked in state.approvals[-APPROVALS_SHOWN:]:
        by = f" by {clean(asked.by)}" if asked.by else ""
        if asked.approved_at is None:
            yield _row("asks", f"{clean(asked.question)}  (asked{by} {ago(asked.asked_at, now)}; nobody has answered)")
        else:
            who = f" by {clean(asked.approved_by)}" if asked.approved_by else ""
            yield _row("approved", f"{clean(asked.question)}  ({ago(asked.approved_at, now)}{who})")
    if state.throttle is not None:
        by = f" by {clean(state.throttle.by)}" if state.throttle.by else ""
        limit = f"at most {state.throttle.rows_per_s:g} {clean(state.progress.unit)}/s for all workers together"
        yield _row("throttle", f"{limit}{by}, {ago(state.throttle.at, now)}")


def _attempt(attempt: Attempt, now: datetime) -> str:
    reason = f": {clean(attempt.reason)}" if attempt.reason else ""
    ended = f" {ago(attempt.ended_at, now)}" if attempt.ended_at else ""
    by = f", retried by {clean(attempt.retried_by)}" if attempt.retried_by else ""
    return f"{attempt.number} {attempt.outcome}{ended} at {counts(attempt.progress)}{reason}{by}"


def _rules(state: JobState) -> Iterator[str]:
    """What was said at the creation beyond the defaults."""
    rules = state.health_rules
    if state.unique_key is not None:
        yield f"unique key {clean(state.unique_key)}" + ("" if state.finished else " (held)")
    ages = (("late", rules.late_after_s), ("dead", rules.dead_after_s), ("stalled", rules.stalled_after_s))
    said = [f"{name} after {seconds:g} s" for name, seconds in ages if seconds is not None]
    if said:
        yield f"workers are {', '.join(said)}"
    if rules.on_dead != "nothing":
        yield {"fail": "fails when its last live worker is dead", "free": "frees the seats of dead workers"}[
            rules.on_dead
        ]
    if state.expire_after_s is not None:
        yield f"is deleted {span(state.expire_after_s)} after its end"


def percent(progress: Progress) -> str:
    """With one digit, rounded down: 100.0% is said of nothing less than all."""
    value = progress.percent
    return "-" if value is None else f"{int(value * 10) / 10:.1f}%"


def counts(progress: Progress) -> str:
    """`41,200 of 80,000 rows, 60 failed`: outcomes other than success only where there are any."""
    total = "" if progress.total is None else f" of {progress.total:,}"
    others = (
        ("failed", progress.failed),
        ("skipped", progress.skipped),
        ("duplicates", progress.duplicates),
        ("to retry", progress.retrying),
    )
    said = [f"{number:,} {name}" for name, number in others if number]
    return ", ".join([f"{progress.processed:,}{total} {clean(progress.unit)}", *said])


def speed(rate: Rate, unit: str) -> str:
    """`1,234 rows/s`, or nothing while it is not known."""
    if rate.per_s is None:
        return ""
    return f"{rate.per_s:,.0f} {clean(unit)}/s" if rate.per_s >= 10 else f"{rate.per_s:.2f} {clean(unit)}/s"  # noqa: PLR2004 - digits where they tell something


def moment(at: datetime | None) -> str:
    """ISO 8601 in UTC to the second, or a dash."""
    return "-" if at is None else at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def span(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 05 min`, `2 d 4 h`."""
    minutes, whole = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min" if minutes >= 10 else f"{minutes} min {whole:02} s" if minutes else f"{whole} s"  # noqa: PLR2004 - above ten minutes the seconds are noise


def ago(at: datetime, now: datetime) -> str:
    """How long before `now`."""
    return f"{span((now - at).total_seconds())} ago"


def ends(rate: Rate, now: datetime) -> str:
    """`in 12 min (14:05:11Z)`, or nothing while no honest estimate can be made."""
    if rate.eta is None:
        return ""
    left = (rate.eta - now).total_seconds()
    when = rate.eta.astimezone(UTC).strftime("%H:%M:%SZ")
    return f"in {span(left)} ({when})" if left > 0 else f"any moment (expected at {when})"


def clean(text: str) -> str:
    """On one line, and nothing in it that a terminal would obey."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _pace(state: JobState, now: datetime) -> Iterator[str]:
    said = [speed(state.rate, state.progress.unit), f"ends {ends(state.rate, now)}" if state.rate.eta else ""]
    if state.rate.paused_s:
        said.append(f"{span(state.rate.paused_s)} paused")
    if state.rate.throttled_s:
        said.append(f"{span(state.rate.throttled_s)} throttled")
    if any(said):
        yield _row("rate", ", ".join(part for part in said if part))


def _recovered(recovered: Recovered) -> str:
    told = f"to its state of revision {recovered.from_revision:,} at {moment(recovered.at)}"
    lost = recovered.lost_up_to - recovered.from_revision
    return told + (f"; {lost:,} revisions are not in it" if lost else "; what came later was never seen here")


def _workers(state: JobState) -> Iterator[str]:
    for name, worker in list(state.workers.items())[:WORKERS_SHOWN]:
        yield _worker(name, worker, state.last_beat_s.get(name))
    if len(state.workers) > WORKERS_SHOWN:
        yield f"and {len(state.workers) - WORKERS_SHOWN} more"


def _worker(name: str, worker: Worker, last_beat_s: float | None) -> str:
    beat = "" if last_beat_s is None else f", last heard {span(last_beat_s)} before this answer"
    return f"{clean(name)}  {worker.health}, process {worker.pid} on {clean(worker.host)}{beat}"


def _step(step: Step) -> str:
    until = f" {span((step.ended_at - step.started_at).total_seconds())}" if step.ended_at else ""
    return f"{clean(step.name)}  {step.status}{until}"


def _errors(state: JobState) -> Iterator[str]:
    if not state.error_count:
        return
    by_category = ", ".join(f"{number:,} {clean(name)}" for name, number in state.progress.by_category.items())
    yield _row("errors", f"{state.error_count:,}" + (f" ({by_category})" if by_category else ""))
    for error in state.errors[-ERRORS_SHOWN:]:
        yield _row("", f"{clean(error.key)}: {clean(error.message)}")


def _rows(name: str, values: Iterator[str]) -> Iterator[str]:
    for value in values:
        yield _row(name, value)


def _row(name: str, value: str) -> str:
    return f"  {name:<9} {value}"
