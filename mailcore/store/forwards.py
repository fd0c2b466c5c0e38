"""Senders of forwarded mail that are too long to be written into an SRS address (see mailcore.inbound.srs)."""

from __future__ import annotations

from mailcore.db import Tx, sql
from mailcore.errors import Code, MailError

KEEP_DAYS = 40  # longer than an SRS address holds

REMEMBER = sql("""
    INSERT INTO forwarded_sender (token, sender) VALUES (%s::text, %s::text)
    ON CONFLICT (token) DO UPDATE SET used_at = now() WHERE forwarded_sender.used_at < now() - interval '1 day'""")
RECALL = sql("SELECT sender FROM forwarded_sender WHERE token = %s::text")
FORGET = sql("""
    DELETE FROM forwarded_sender WHERE token = ANY(ARRAY(
        SELECT token FROM forwarded_sender WHERE used_at < now() - make_interval(days => %(days)s::int)
        LIMIT %(limit)s::int))""")


async def remember(tx: Tx, token: str, sender: str) -> None:
    """Keep a sender under its token."""
    await tx.execute(REMEMBER, (token, sender))


async def recall(tx: Tx, token: str) -> str:
    """The sender of a token. Raises NO_SUCH_USER."""
    row = await tx.one(RECALL, (token,))
    if row is None:
        raise MailError(Code.NO_SUCH_USER, "This address for bounces is no longer valid")
    return str(row[0])


async def forget(tx: Tx, limit: int = 1000) -> int:
    """Remove what has not been used for long; returns how many."""
    return await tx.execute(FORGET, {"days": KEEP_DAYS, "limit": limit})
