"""The index row of a document: the only place that says what jobs are listed by."""

from actorstate.core.messages.document import Document
from actorstate.store.contract import IndexRow


def index_of(document: Document) -> IndexRow:
    """What the writer, a recovery and an examination agree on."""
    return IndexRow(
        document.kind,
        document.status,
        document.health or "",
        document.created_at.timestamp(),
        None if document.finished else document.unique_key,
        document.expires_at.timestamp() if document.expires_at else None,
    )
