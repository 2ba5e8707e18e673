"""How jobs are listed: an index for every filter, so that a page costs the same among 100,000 jobs as among ten.

Tombstones are in none of the indexes. They change only when a job is listed anew (its kind, status or
health), never with its progress. Jobs with workers are few, since their actors stay in memory, so one
index without columns of its own serves all questions about health.
"""

import sqlite3
from collections import Counter

from actorstate.store.contract import IndexRow, JobQuery

INDEXES = """
CREATE INDEX jobs_by_id ON jobs (job) WHERE NOT deleted;
CREATE INDEX jobs_by_status ON jobs (status, job) WHERE NOT deleted;
CREATE INDEX jobs_by_kind ON jobs (kind, job) WHERE NOT deleted;
CREATE INDEX jobs_by_kind_status ON jobs (kind, status, job) WHERE NOT deleted;
CREATE INDEX jobs_newest_by_id ON jobs (created_at, job) WHERE NOT deleted;
CREATE INDEX jobs_newest_by_status ON jobs (status, created_at, job) WHERE NOT deleted;
CREATE INDEX jobs_newest_by_kind ON jobs (kind, created_at, job) WHERE NOT deleted;
CREATE INDEX jobs_newest_by_kind_status ON jobs (kind, status, created_at, job) WHERE NOT deleted;
CREATE INDEX jobs_attached ON jobs (job) WHERE NOT deleted AND health <> '';
CREATE INDEX jobs_by_unique_key ON jobs (unique_key) WHERE NOT deleted AND unique_key IS NOT NULL;
CREATE INDEX jobs_by_expiry ON jobs (expires_at) WHERE NOT deleted AND expires_at IS NOT NULL;
"""
_UPSERT = """
INSERT INTO jobs (job, kind, status, health, deleted, revision, created_at, unique_key, expires_at)
VALUES (?, ?, ?, ?, 0, 0, ?, ?, ?)
ON CONFLICT (job) DO UPDATE SET kind = excluded.kind, status = excluded.status, health = excluded.health, deleted = 0,
created_at = excluded.created_at, unique_key = excluded.unique_key, expires_at = excluded.expires_at
"""
_BURY = """
INSERT INTO jobs (job, kind, status, health, deleted, revision) VALUES (?, '', 'deleted', '', 1, 0)
ON CONFLICT (job) DO UPDATE SET kind = '', status = 'deleted', health = '', deleted = 1, unique_key = NULL,
expires_at = NULL
"""
_STATUSES = "SELECT status, count(*) FROM jobs INDEXED BY jobs_by_status WHERE NOT deleted GROUP BY status"
_HEALTH = """
SELECT health, count(*) FROM jobs INDEXED BY jobs_attached WHERE NOT deleted AND health <> '' GROUP BY health
"""
_NEWEST_AFTER = "(created_at, job) < (SELECT created_at, job FROM jobs WHERE job = :after)"


def list_row(writing: sqlite3.Connection, job: str, row: IndexRow) -> None:
    """Lists the job by `row` from now on."""
    values = (job, row.kind, row.status, row.health, row.created_at, row.unique_key, row.expires_at)
    writing.execute(_UPSERT, values)


def unlist_row(writing: sqlite3.Connection, job: str) -> None:
    """Leaves the tombstone; when the job was created stays known to a reader who pages past it."""
    writing.execute(_BURY, (job,))


def count_jobs(reading: sqlite3.Connection) -> tuple[Counter[str], Counter[str]]:
    """See Store. 100,000 jobs take 40 ms, those with workers next to nothing."""
    return Counter(dict(reading.execute(_STATUSES).fetchall())), Counter(dict(reading.execute(_HEALTH).fetchall()))


def listing(query: JobQuery) -> tuple[str, dict[str, object]]:
    """The statement for a page, and its values. It names its index: without that it fails, loudly."""
    names = [name for name in ("status", "kind", "health", "unique_key") if getattr(query, name) is not None]
    terms = ["NOT deleted", *(f"{name} = :{name}" for name in names)]
    if query.health or query.attached:
        terms.append("health <> ''")
    if query.unique_key is not None:
        terms.append("unique_key IS NOT NULL")
    if query.expired_at is not None:
        terms += ["expires_at IS NOT NULL", "expires_at <= :expired_at"]
    if query.after or not query.newest:
        terms.append(_NEWEST_AFTER if query.newest else "job > :after")
    order = "created_at DESC, job DESC" if query.newest else "job"
    sql = f"SELECT job FROM jobs INDEXED BY {_index(query)} WHERE {' AND '.join(terms)} ORDER BY {order} LIMIT :limit"  # noqa: S608 - constants of this module
    return sql, {name: getattr(query, name) for name in (*names, "after", "limit", "expired_at")}


def _index(query: JobQuery) -> str:
    if query.unique_key is not None:
        return "jobs_by_unique_key"
    if query.expired_at is not None:
        return "jobs_by_expiry"
    if query.health or query.attached:
        return "jobs_attached"
    by = "_".join(name for name in ("kind", "status") if getattr(query, name) is not None) or "id"
    return f"jobs_newest_by_{by}" if query.newest else f"jobs_by_{by}"
