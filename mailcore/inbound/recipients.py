"""RCPT: whom an address leads to, and whether mail for it is taken now.

Everything that can be refused is refused here, before the message is sent, so that no bounce has to be written to a sender
who may be forged. A full mailbox is refused for now (452), because its owner can make room while the sender's server waits;
the person who submits mail is told at once and for good (552). That choice is the protocol's: here it is OVER_QUOTA.
"""

from __future__ import annotations

from accounts.addresses import Parsed, fold_local, normalise
from accounts.errors import AddressError
from mailcore.db import Tx, sql
from mailcore.errors import Code, MailError
from mailcore.inbound.envelope import Recipient
from mailcore.store import accounts
from mailcore.store.accounts import Local, Resolution

# RFC 5321 §4.5.1 and RFC 2142: these reach a human being in every domain, defined or not.
ALWAYS_REACHABLE = frozenset({"postmaster", "abuse"})

ADMINISTRATOR = sql("""
    SELECT u.id, u.address FROM accounts_account u JOIN account_state s ON s.account_id = u.id
    WHERE u.is_superuser AND u.is_active ORDER BY u.id LIMIT 1""")

ROOM = sql("""
    SELECT count(*) FROM account_state
    WHERE account_id = ANY(%s::bigint[]) AND quota_bytes IS NOT NULL AND bytes + %s::bigint > quota_bytes""")


async def resolve(
    tx: Tx, parsed: Parsed, *, relay: bool, size: int = 0, notify: str | None = None, orcpt: str | None = None
) -> Recipient:
    """Where mail of `size` octets (0 = not known yet) to the address goes.

    Raises NO_PERMISSION for an address of somebody else's domain unless `relay`, NO_SUCH_USER, DISABLED, LOOP, and
    OVER_QUOTA when none of the mailboxes it leads to has room.
    """
    address = str(parsed)
    try:
        ours = normalise(address)
    except AddressError as error:
        if not parsed.is_literal:
            raise MailError(Code.NO_SUCH_USER, error.text) from None
        found = Resolution((), (address,))
    else:
        try:
            found = await accounts.resolve(tx, ours)
        except MailError as error:
            if error.code is not Code.NO_SUCH_USER or fold_local(parsed.local) not in ALWAYS_REACHABLE:
                raise
            return Recipient(address, (await _administrator(tx),), (), notify, orcpt)
        if found.remote == (ours,):
            # Not one of our domains: the local part is the other server's business, its case included.
            found = Resolution((), (address,))
    if found.remote == (address,) and not relay:
        raise MailError(Code.NO_PERMISSION, "Relay access denied")
    await _require_room(tx, found, size)
    return Recipient(address, found.accounts, found.remote, notify, orcpt)


async def postmaster(tx: Tx, *, notify: str | None = None, orcpt: str | None = None) -> Recipient:
    """`<postmaster>` without a domain: the administrator. Raises NO_SUCH_USER when there is none."""
    return Recipient("postmaster", (await _administrator(tx),), (), notify, orcpt)


async def _administrator(tx: Tx) -> Local:
    row = await tx.one(ADMINISTRATOR)
    if row is None:
        raise MailError(Code.NO_SUCH_USER, "No administrator yet")
    return Local(row[0], row[1])


async def _require_room(tx: Tx, found: Resolution, size: int) -> None:
    if not found.accounts or found.remote:
        return
    ids = [local.account_id for local in found.accounts]
    row = await tx.one(ROOM, (ids, max(size, 1)))
    if row is not None and row[0] == len(ids):
        raise MailError(Code.OVER_QUOTA, "Mailbox full")
