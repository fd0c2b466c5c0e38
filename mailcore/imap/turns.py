"""Which commands take turns (mailcore.turns): those that may keep the database busy; and which end with their client.

A client that waits for its turn is told so (INPROGRESS). FETCH takes none: it holds a connection for milliseconds.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from mailcore.imap.session import Session

T = TypeVar("T")

_SEARCHES = ("SEARCH", "SORT", "THREAD", "ESEARCH")
_CHANGES = ("STORE", "COPY", "MOVE", "EXPUNGE", "REPLACE", "CLOSE", "DELETE", "RENAME")
SEARCHES = frozenset((*_SEARCHES, *(f"UID {name}" for name in _SEARCHES)))
CHANGES = frozenset((*_CHANGES, *(f"UID {name}" for name in _CHANGES)))
# What only reads is of no use when its client has left. (That FETCH marks as seen what it sends: then or not at all.)
READS = frozenset(("FETCH", "UID FETCH", "SELECT", "EXAMINE", "STATUS", "LIST", "LSUB", "GETMETADATA"))


async def take(session: Session, name: str, work: Awaitable[T]) -> T:
    """Run a command's work, when its turn has come if it takes one. Raises MailError(TOO_MANY), CancelledError."""
    turns, connection = session.server.turns, session.connection
    if name in READS:
        connection.reading = True
        try:
            return await work
        finally:
            connection.reading = False
    if name in SEARCHES:
        return await turns.search(session.account_id, connection, work)
    if name in CHANGES:
        return await turns.change(session.account_id, work)
    return await work
