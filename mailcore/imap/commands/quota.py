"""GETQUOTA, GETQUOTAROOT and SETQUOTA: how much an account uses and may use (RFC 9208).

An account has one quota root for all of its mailboxes, or none when nothing limits it: "" is one's own, and where
somebody lets you put messages, his counts, called like the level that his mailboxes are below. STORAGE is what the
store counts: octets of messages, told in units of 1,024; MESSAGE is their number.
"""

from __future__ import annotations

from typing import cast

from mailcore import db
from mailcore.imap.errors import no
from mailcore.imap.registry import LOGGED_IN, Done, command
from mailcore.imap.session import Session
from mailcore.store import acl, quota
from mailcore.store.acl import Place, Right
from mailcore.store.mailboxes import OTHER_USERS, SEPARATOR
from mailcore.wire.imap.commands import Command, MailboxArgs
from mailcore.wire.imap.quota import QuotaArgs, quota_line, quotaroot_line

_ROOT = ""
_UNIT = 1024


@command("GETQUOTA", state=LOGGED_IN)
async def getquota(session: Session, command: Command) -> Done:
    """Say usage and limit of a quota root."""
    args = cast(QuotaArgs, command.args)
    async with db.read() as tx:
        account_id = session.account_id if args.root == _ROOT else None
        for place in await acl.shared(tx, session.account_id) if account_id is None else ():
            if _root(place) == args.root:
                account_id = place.account_id
        line = await _usage(tx, account_id, args.root) if account_id is not None else None
    if line is None:
        raise no("There is no such quota root", "NONEXISTENT")
    session.send(line)
    return Done("GETQUOTA completed")


@command("GETQUOTAROOT", state=LOGGED_IN)
async def getquotaroot(session: Session, command: Command) -> Done:
    """Say which quota root counts for a mailbox, which need not exist yet, and what it uses."""
    args = cast(MailboxArgs, command.args)
    account_id = session.account_id
    root: str | None = _ROOT
    line = None
    async with db.read() as tx:
        if acl.is_elsewhere(args.mailbox):
            place = await acl.resolve(tx, session.account_id, args.mailbox)
            account_id, root = place.account_id, _root(place)
        if root is not None:
            line = await _usage(tx, account_id, root)
    roots = [root] if line is not None and root is not None else []
    session.send(quotaroot_line(args.mailbox, roots, utf8=session.utf8) + (line or b""))
    return Done("GETQUOTAROOT completed")


@command("SETQUOTA", state=LOGGED_IN)
async def setquota(session: Session, command: Command) -> Done:
    """Refused: limits are the administrator's to set, not the mail program's."""
    raise no("Limits are set by the administrator", "NOPERM")


def _root(place: Place) -> str | None:
    """The quota root of somebody else's mailbox; how much he keeps concerns those who may add to it."""
    return f"{OTHER_USERS}{SEPARATOR}{place.owner}" if place.rights & Right.INSERT else None


async def _usage(tx: db.Tx, account_id: int, root: str) -> bytes | None:
    """The QUOTA line of an account, None without a limit."""
    found = await quota.get(tx, account_id)
    resources = []
    if found.limit is not None:
        resources.append(("STORAGE", -(-found.bytes // _UNIT), found.limit // _UNIT))
    if found.message_limit is not None:
        resources.append(("MESSAGE", found.messages, found.message_limit))
    return quota_line(root, resources) if resources else None
