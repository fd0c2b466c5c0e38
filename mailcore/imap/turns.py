"""Which commands take turns (mailcore.turns): those that may keep the database busy.

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


async def take(session: Session, name: str, work: Awaitable[T]) -> T:
    """Run a command's work, when its turn has come if it takes one. Raises MailError(TOO_MANY), CancelledError."""
    turns = session.server.turns
    if name in SEARCHES:
        return await turns.search(session.account_id, session.connection, work)
    if name in CHANGES:
        return await turns.change(session.account_id, work)
    return await work
