"""Unique keys: a rule across jobs, which the writer keeps, since one actor knows nothing of the others.

Who holds a key is in the store's index. What a batch claims counts at once, before it is committed, so that
of two jobs in one batch only the first gets the key; a key that a batch gives free is free once that is
committed.
"""

from actorstate.errors import Busy, Conflict
from actorstate.store.contract import JobQuery, Store

AGAIN_AFTER_S = 0.05
"""Whoever comes second in a batch asks again when it is known whether that was committed."""


class Keys:
    """Used by the loop alone. `claimed` is emptied with each batch: by then it is committed, or never was."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.claimed: dict[str, str] = {}

    def claim(self, key: str, job: str) -> None:
        """Takes the key for `job`. Raises Conflict while another job holds it, Busy where that is being decided."""
        claimant = self.claimed.get(key, job)
        if claimant != job:
            raise Busy(f"job {claimant!r} takes the unique key {key!r} just now", retry_after_s=AGAIN_AFTER_S)
        for holder in self._store.list_jobs(JobQuery(unique_key=key, limit=1)):
            if holder != job:
                raise Conflict(
                    f"job {holder!r} holds the unique key {key!r} until it has ended", job=holder, unique_key=key
                )
        self.claimed[key] = job
