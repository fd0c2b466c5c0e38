"""IDLE: the client waits and is told of everything new (RFC 9051 §6.3.13)."""

from __future__ import annotations

import asyncio

from mailcore.imap import updates
from mailcore.imap.errors import Gone, bad
from mailcore.imap.registry import LOGGED_IN, Done, command
from mailcore.imap.session import Session
from mailcore.wire.imap import response
from mailcore.wire.imap.frames import Line


@command("IDLE", state=LOGGED_IN)
async def idle(session: Session, command: object) -> Done:
    """Report changes of the selected mailbox as they are committed, until the client says DONE."""
    connection = session.connection
    session.send(response.continuation_line("idling"))
    connection.framer.expect_line(100)
    view = session.selected
    if view is not None:
        view.dirty = True
    session.idling = True
    try:
        while True:
            if session.notifier is not None and session.notifier.pending:
                await session.notifier.flush()
                await connection.drain()
            if view is not None and (view.dirty or not (view.quiet or session.muted)):
                await updates.refresh(session, expunge=True)
                await connection.drain()
                if view.dirty:
                    asyncio.get_running_loop().call_later(updates.RETRY_SECONDS, connection.wake)
            event = connection.framer.next_event()
            if event is not None:
                break
            if not await connection.wait():
                raise Gone(connection.goodbye)
    finally:
        session.idling = False
    if not isinstance(event, Line) or event.data.upper() != b"DONE":
        raise bad("Expected DONE")
    return Done("IDLE completed")
