"""INPROGRESS (RFC 9585): a client that waits for a long command hears that it still runs, and does not give up.

FETCH is not among them: its answers show how far it is, and nothing may come between the pieces of a literal.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mailcore.wire.imap import response

if TYPE_CHECKING:
    from mailcore.imap.session import Session

_BOTH = ("SEARCH", "SORT", "THREAD", "STORE", "COPY", "MOVE", "EXPUNGE", "REPLACE")
SLOW = frozenset(
    (*_BOTH, *(f"UID {name}" for name in _BOTH), "APPEND", "SELECT", "EXAMINE", "ESEARCH", "CLOSE", "DELETE", "RENAME")
)


class Progress:
    """The sessions whose command may take long; the server's sweep has them told."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._running: dict[Session, float] = {}

    def begin(self, session: Session) -> None:
        """A command starts that writes whole lines only."""
        self._running[session] = asyncio.get_running_loop().time()

    def end(self, session: Session) -> None:
        """The command is over."""
        self._running.pop(session, None)

    def tell(self, now: float) -> None:
        """Tell the clients that have waited for an interval."""
        for session, since in self._running.items():
            if now - since >= self._interval:
                self._running[session] = now
                code = response.code("INPROGRESS", b"(%b NIL NIL)" % response.quoted(session.tag))
                session.send(response.status_line(None, "OK", "Still working", code))
