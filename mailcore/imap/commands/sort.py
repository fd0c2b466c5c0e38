"""SORT and UID SORT, by what is displayed as well, and with result options (RFC 5256, 5957, 5267 §3)."""

from __future__ import annotations

from mailcore.imap.commands.search import run
from mailcore.imap.registry import SELECTED, Done, command
from mailcore.imap.session import Session
from mailcore.wire.imap.commands import Command


@command("SORT", "UID SORT", state=SELECTED, uses_seqs=True, may_expunge=False)
async def sort(session: Session, command: Command) -> Done:
    """Find messages and name them in an order of the client's choice; equal ones in the order of the mailbox."""
    await run(session, command)
    return Done("SORT completed")
