"""NOTIFY: the client says which events it wants to hear of, of which mailboxes, without asking again (RFC 5465)."""

from __future__ import annotations

from typing import cast

from mailcore.imap import updates
from mailcore.imap.notifier import Notifier, Overflow
from mailcore.imap.registry import LOGGED_IN, Done, command
from mailcore.imap.session import Session
from mailcore.wire.imap.commands import Command
from mailcore.wire.imap.notify import NotifyArgs


@command("NOTIFY", state=LOGGED_IN)
async def notify(session: Session, command: Command) -> Done:
    """Replace what was asked for before; with STATUS, say first how the mailboxes are."""
    args = cast(NotifyArgs, command.args)
    if session.selected is not None:
        # What waits to be told belongs to the time before.
        await updates.refresh(session, expunge=True)
    notifier = Notifier(session, args.groups)
    try:
        status = await notifier.start()
    except Overflow:
        notifier.overflow()
        status = b""
    except BaseException:
        notifier.close()
        raise
    session.watch(notifier)
    if args.status:
        session.send(status)
    return Done("NOTIFY completed")
