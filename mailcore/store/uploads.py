"""What clients have uploaded and no message holds yet: how much of it an account may keep (RFC 8620 §6).

An upload's octets are a blob like any other and are swept a day after they came when nothing uses them; this remembers
whose they are. Room is made by letting the oldest go, but none that is younger than an hour: its draft may still be
written. So the disk that an account can fill without a quota counting it is bounded, and what turned into a message
(an import) is the quota's business and not counted here.
"""

from __future__ import annotations

from dataclasses import dataclass

from mailcore.db import Tx, sql
from mailcore.errors import Code, MailError
from mailcore.store import locks

FORGET = sql("DELETE FROM upload WHERE account_id = %s::bigint AND uploaded_at < now() - interval '1 day'")

HELD = sql("""
    SELECT count(*), coalesce(sum(size), 0)::bigint FROM upload WHERE account_id = %s::bigint AND hash <> %s::bytea""")

BECAME_MAIL = sql("""
    DELETE FROM upload u WHERE u.account_id = %s::bigint
        AND EXISTS (SELECT FROM message m WHERE m.blob = u.hash AND m.account_id = u.account_id)""")

OLDEST = sql("""
    SELECT hash, size FROM upload
    WHERE account_id = %s::bigint AND hash <> %s::bytea AND uploaded_at < now() - interval '1 hour'
    ORDER BY uploaded_at""")

REMOVE = sql("DELETE FROM upload WHERE account_id = %s::bigint AND hash = ANY(%s::bytea[])")

# Whoever stores the same octets right now holds the row and makes it fresh: then it stays.
REMOVE_BLOBS = sql("""
    WITH unused AS (
        SELECT hash FROM blob WHERE hash = ANY(%s::bytea[]) AND touched_at < now() - interval '1 hour'
            AND NOT EXISTS (SELECT FROM message m WHERE m.blob = blob.hash)
            AND NOT EXISTS (SELECT FROM outbound o WHERE o.blob = blob.hash)
            AND NOT EXISTS (SELECT FROM upload u WHERE u.hash = blob.hash)
        ORDER BY hash FOR UPDATE)
    DELETE FROM blob USING unused WHERE blob.hash = unused.hash""")

KEEP = sql("""
    INSERT INTO upload (account_id, hash, size) VALUES (%s::bigint, %b::bytea, %s::bigint)
    ON CONFLICT (account_id, hash) DO UPDATE SET uploaded_at = now()""")


@dataclass(frozen=True, slots=True)
class Allowance:
    """How many uploads that no message holds an account may have, and how many octets in all."""

    count: int
    octets: int


async def reserve(tx: Tx, account_id: int, digest: bytes, size: int, allowance: Allowance) -> None:
    """Note an upload that is about to be stored, making room for it. Raises OVER_QUOTA, NOT_FOUND."""
    await locks.lock_account(tx, account_id)
    await tx.execute(FORGET, (account_id,))
    count, octets = await _held(tx, account_id, digest)
    if _over(count, octets + size, allowance):
        await tx.execute(BECAME_MAIL, (account_id,))
        count, octets = await _held(tx, account_id, digest)
    leaving: list[bytes] = []
    if _over(count, octets + size, allowance):
        for oldest, its_size in await tx.fetch(OLDEST, (account_id, digest)):
            leaving.append(bytes(oldest))
            count, octets = count - 1, octets - its_size
            if not _over(count, octets + size, allowance):
                break
        else:
            raise MailError(Code.OVER_QUOTA, "too much has been uploaded within an hour and is in no message")
        await tx.execute(REMOVE, (account_id, leaving))
        await tx.execute(REMOVE_BLOBS, (sorted(leaving),))
    await tx.execute(KEEP, (account_id, digest, size))


async def _held(tx: Tx, account_id: int, digest: bytes) -> tuple[int, int]:
    row = await tx.one(HELD, (account_id, digest))
    assert row is not None
    return row[0], row[1]


def _over(count: int, octets: int, allowance: Allowance) -> bool:
    return count >= allowance.count or octets > allowance.octets
