"""ENABLE: extensions that change what the server sends (RFC 9051 §6.3.1, RFC 7162, 9586, 9755)."""

from __future__ import annotations

from typing import cast

from mailcore.imap import contexts
from mailcore.imap.capabilities import ENABLE, Enabled
from mailcore.imap.registry import LOGGED_IN, Done, command
from mailcore.imap.session import Session
from mailcore.wire.imap import response
from mailcore.wire.imap.commands import Command, EnableArgs

_SPELLING = {"IMAP4REV2": "IMAP4rev2"}


@command("ENABLE", state=LOGGED_IN)
async def enable(session: Session, command: Command) -> Done:
    """Switch on what is known and was off; unknown names are passed over."""
    args = cast(EnableArgs, command.args)
    fresh = []
    for name in args.capabilities:
        bits = ENABLE.get(name)
        if bits is not None and bits & ~session.enabled:
            session.enabled |= bits
            fresh.append(_SPELLING.get(name, name))
    if session.selected is not None:
        session.selected.uid_only = bool(session.enabled & Enabled.UIDONLY)
        if session.selected.uid_only:
            contexts.end_numbers(session)
        if session.rev2:
            session.selected.recent.clear()
    session.send(response.enabled_line(fresh))
    return Done("ENABLE completed")
