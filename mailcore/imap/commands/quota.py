"""GETQUOTA, GETQUOTAROOT and SETQUOTA: how much an account uses and may use (RFC 9208).

An account has one quota root, "", for all of its mailboxes, or none when nothing limits it. STORAGE is what the store
counts: octets of messages, told in units of 1,024.
"""

from __future__ import annotations

from typing import cast

from mailcore import db
from mailcore.imap.errors import no
from mailcore.imap.registry import LOGGED_IN, Done, command
from mailcore.imap.session import Session
from mailcore.store import quota
from mailcore.wire.imap.commands import Command, MailboxArgs
from mailcore.wire.imap.quota import QuotaArgs, quota_line, quotaroot_line

_ROOT = ""
_UNIT = 1024


@command("GETQUOTA", state=LOGGED_IN)
async def getquota(session: Session, command: Command) -> Done:
    """Say usage and limit of a quota root."""
    args = cast(QuotaArgs, command.args)
    line = await _usage(session) if args.root == _ROOT else None
    if line is None:
        raise no("There is no such quota root", "NONEXISTENT")
    session.send(line)
    return Done("GETQUOTA completed")


@command("GETQUOTAROOT", state=LOGGED_IN)
async def getquotaroot(session: Session, command: Command) -> Done:
    """Say which quota root counts for a mailbox, which need not exist yet, and what it uses."""
    args = cast(MailboxArgs, command.args)
    line = await _usage(session)
    roots = [_ROOT] if line is not None else []
    session.send(quotaroot_line(args.mailbox, roots, utf8=session.utf8) + (line or b""))
    return Done("GETQUOTAROOT completed")


@command("SETQUOTA", state=LOGGED_IN)
async def setquota(session: Session, command: Command) -> Done:
    """Refused: limits are the administrator's to set, not the mail program's."""
    raise no("Limits are set by the administrator", "NOPERM")


async def _usage(session: Session) -> bytes | None:
    """The QUOTA line of the account, None without a limit."""
    async with db.read() as tx:
        found = await quota.get(tx, session.account_id)
    if found.limit is None:
        return None
    return quota_line(_ROOT, [("STORAGE", -(-found.bytes // _UNIT), found.limit // _UNIT)])
