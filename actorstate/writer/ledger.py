"""The item ledger in the writer: rows that a request needs, rows to store, and pages for readers."""

from actorstate.core import codec
from actorstate.core.actor import Actor, Staged
from actorstate.core.ledger import Entry, entered, keys_in
from actorstate.core.messages.replies import ItemsListed, items_listed
from actorstate.core.messages.requests import ListItems, Report, RetryItems
from actorstate.core.rate import Now
from actorstate.store.contract import ItemQuery, Store, StoredItem

MAX_PAGE_BYTES = 1024 * 1024
"""A page of items ends early when it reaches this size."""


def entry_of(store: Store, actor: Actor, body: Report | RetryItems, now: Now) -> Entry:
    """What `body` makes of the ledger as it is committed and staged. Raises CorruptJob."""
    found = store.find_items(body.job, keys_in(body))
    rows = {key: codec.decode_item(packed) for key, packed in found.items()}
    return entered(body, rows | actor.staged.items if actor.staged else rows, now.wall)


def stored_items(staged: Staged) -> tuple[StoredItem, ...]:
    """The staged rows as a store keeps them."""
    rows = staged.items.values()
    return tuple(StoredItem(row.key, row.outcome, row.category, codec.encode(row)) for row in rows)


def items_page(store: Store, body: ListItems) -> ItemsListed:
    """A page of a job's ledger; a damaged item is named in it, and hides no other."""
    packed: list[bytes] = []
    damaged: list[str] = []
    size, after = 0, body.after
    page = store.list_items(body.job, ItemQuery(body.outcome, body.category, body.after, body.limit))
    for item in page:
        if size >= MAX_PAGE_BYTES:
            return items_listed(packed, damaged, after)
        size, after = size + len(item.body), max(after, item.key, key=str.encode)
        if item.body:
            packed.append(item.body)
        else:
            damaged.append(item.key)
    return items_listed(packed, damaged, after if len(page) == body.limit else "")
