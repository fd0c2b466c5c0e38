"""Metadata of mailboxes: small named values that clients keep beside the mail (RFC 5464).

An entry is /private (of one account) or /shared (of everybody who may use the mailbox). `mailbox_id` SERVER holds what
an account keeps that belongs to no mailbox.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from mailcore.db import Tx, sql
from mailcore.errors import Code, MailError
from mailcore.store import locks
from mailcore.wake import Change

SERVER = 0
SHARED = 0
MAX_VALUE = 64 * 1024  # octets
# Of one account, its private entries and the shared ones of its mailboxes counted apart.
MAX_ENTRIES = 1_000
MAX_OCTETS = 4 * 1024 * 1024

GET = sql("""
    SELECT mailbox_id, name, value FROM annotation
    WHERE account_id = %(account)s::bigint AND mailbox_id = ANY(%(mailboxes)s::bigint[])
        AND reader_id = ANY(%(readers)s::bigint[])
        AND (%(names)s::text[] IS NULL OR name = ANY(%(names)s::text[]))
    ORDER BY mailbox_id, name""")

# Which transaction wrote a row is as good as a version of it.
VERSIONS = sql("""
    SELECT account_id, mailbox_id, name, xmin::text FROM annotation
    WHERE account_id = ANY(%s::bigint[]) AND reader_id = ANY(%s::bigint[])""")

PUT = sql("""
    INSERT INTO annotation (account_id, mailbox_id, reader_id, name, value)
    SELECT %(account)s::bigint, %(mailbox)s::bigint, n.reader_id, n.name, n.value
    FROM unnest(%(readers)s::bigint[], %(names)s::text[], %(values)s::bytea[]) AS n(reader_id, name, value)
    ON CONFLICT (account_id, mailbox_id, reader_id, name) DO UPDATE SET value = excluded.value""")

DROP = sql("""
    DELETE FROM annotation WHERE account_id = %s::bigint AND mailbox_id = %s::bigint AND reader_id = ANY(%s::bigint[])
        AND name = ANY(%s::text[])""")

USED = sql("""
    SELECT count(*), coalesce(sum(octet_length(value)), 0)::bigint FROM annotation
    WHERE CASE WHEN %(reader)s::bigint = 0 THEN account_id = %(account)s::bigint AND reader_id = 0
        ELSE reader_id = %(reader)s::bigint END""")


async def get(
    tx: Tx, account_id: int, mailbox_ids: Sequence[int], reader_id: int, names: Collection[str] | None = None
) -> dict[int, dict[str, bytes]]:
    """What a reader sees of mailboxes' entries: the shared ones and his own; all, or those of `names`; by mailbox."""
    found: dict[int, dict[str, bytes]] = {}
    arguments = {
        "account": account_id,
        "mailboxes": list(mailbox_ids),
        "readers": [SHARED, reader_id],
        "names": None if names is None else list(names),
    }
    for mailbox_id, name, value in await tx.fetch(GET, arguments):
        found.setdefault(mailbox_id, {})[name] = value
    return found


async def versions(tx: Tx, account_ids: Collection[int], reader_id: int) -> list[tuple[int, int, str, str]]:
    """(account, mailbox, entry, version) of what a reader sees beside mailboxes; a new value is a new version."""
    rows = await tx.fetch(VERSIONS, (list(account_ids), [SHARED, reader_id]))
    return [(row[0], row[1], row[2], row[3]) for row in rows]


async def put(tx: Tx, account_id: int, mailbox_id: int, reader_id: int, entries: Mapping[str, bytes | None]) -> None:
    """Set entries, None = remove, all or nothing. Raises NOT_FOUND (mailbox), TOO_BIG (a value), TOO_MANY."""
    if any(value is not None and len(value) > MAX_VALUE for value in entries.values()):
        raise MailError(Code.TOO_BIG, f"a value has {MAX_VALUE} octets at most")
    # Private entries of one account are counted over all mailboxes that it may use: it must not set some at once.
    accounts = sorted({account_id, reader_id})
    modseq = {one: await locks.lock_account(tx, one) for one in accounts}[account_id]
    if mailbox_id != SERVER:
        await locks.lock_mailboxes(tx, account_id, [mailbox_id])
    gone = [name for name, value in entries.items() if value is None]
    if gone:
        await tx.execute(DROP, (account_id, mailbox_id, list({_reader(name, reader_id) for name in gone}), gone))
    kept = [(_reader(name, reader_id), name, value) for name, value in entries.items() if value is not None]
    if kept:
        readers, names, values = (list(column) for column in zip(*kept, strict=True))
        arguments = {"readers": readers, "names": names, "values": values}
        await tx.execute(PUT, {"account": account_id, "mailbox": mailbox_id, **arguments})
        for reader in {reader for reader, _, _ in kept}:
            row = await tx.one(USED, {"account": account_id, "reader": reader})
            if row is not None and (row[0] > MAX_ENTRIES or row[1] > MAX_OCTETS):
                raise MailError(Code.TOO_MANY, f"{MAX_ENTRIES} entries and {MAX_OCTETS} octets may be kept in all")
    tx.changed(Change(account_id, mailbox_id, modseq, "metadata"))


def _reader(name: str, reader_id: int) -> int:
    return SHARED if name.startswith("/shared/") else reader_id
