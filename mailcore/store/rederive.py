"""Making anew what is derived from messages: when the reader of mail has learned something, or a row is wrong.

What a message was given when it came stays: its number, thread and dates of arrival.
"""

from __future__ import annotations

from mailcore.arrays import Bools, Byteas, Dates, Int4s, Int8s, Texts, Timestamps, columns
from mailcore.db import Tx, sql
from mailcore.mime import FOLD_VERSION, parse
from mailcore.store import locks, ordering

# Messages read and written in one transaction, and their octets; a single message may have more.
PAGE = 100
PAGE_OCTETS = 16 << 20

SIZES = sql("""
    SELECT id, size FROM message WHERE account_id = %s::bigint AND id > %s::bigint ORDER BY id LIMIT %s::int""")

RAWS = sql("""
    SELECT m.id, b.data FROM message m JOIN blob b ON b.hash = m.blob
    WHERE m.account_id = %s::bigint AND m.id = ANY(%s::bigint[])""")

_MESSAGE = (
    *(Int8s, Int4s, Timestamps, Dates, Bools, Texts, Texts, Byteas, Texts, Byteas, Byteas, Byteas, Byteas, Texts),
)
SET_MESSAGES = sql("""
    UPDATE message m SET header_size = d.header_size, sent_at = d.sent_at, sent_on = d.sent_on,
        has_attachment = d.has_attachment, base_subject = d.base_subject, sort_keys = d.sort_keys,
        ancestry = d.ancestry, preview = d.preview, envelope = d.envelope, bodystructure = d.bodystructure,
        headers = d.headers, parts = d.parts, summary = d.summary
    FROM unnest(%b::bigint[], %b::int[], %b::timestamptz[], %b::date[], %b::bool[], %b::text[], %b::text[], %b::bytea[],
        %b::text[], %b::bytea[], %b::bytea[], %b::bytea[], %b::bytea[], %b::text[])
        AS d(id, header_size, sent_at, sent_on, has_attachment, base_subject, sort_keys, ancestry, preview, envelope,
            bodystructure, headers, parts, summary)
    WHERE m.account_id = %b::bigint AND m.id = d.id""")

_TEXT = (Int8s, Texts, Texts, Texts, Texts, Texts, Int4s, Texts)
SET_TEXTS = sql("""
    INSERT INTO message_text
        (account_id, fold_version, docno, from_text, to_text, cc_text, bcc_text, subject_text, body_at, text)
    SELECT %b::bigint, %b::smallint, d.* FROM unnest(%b::bigint[], %b::text[], %b::text[], %b::text[], %b::text[],
        %b::text[], %b::int[], %b::text[]) AS d
    ON CONFLICT (account_id, docno) DO UPDATE SET from_text = excluded.from_text, to_text = excluded.to_text,
        cc_text = excluded.cc_text, bcc_text = excluded.bcc_text, subject_text = excluded.subject_text,
        body_at = excluded.body_at, text = excluded.text, fold_version = excluded.fold_version""")


async def page(tx: Tx, account_id: int, after: int) -> tuple[int, int]:
    """Derive some messages with numbers above `after` anew; returns the last one's number and how many.

    Forget the account's index first (index_build.restart), as it tells of the old texts. (after, 0): there are no more.
    Raises NOT_FOUND when there is no such account.
    """
    await locks.lock_account(tx, account_id)
    ids: list[int] = []
    octets = 0
    for number, size in await tx.fetch(SIZES, (account_id, after, PAGE)):
        octets += size
        if ids and octets > PAGE_OCTETS:
            break
        ids.append(number)
    if not ids:
        return after, 0
    messages: list[tuple[object, ...]] = []
    texts: list[tuple[object, ...]] = []
    for number, raw in await tx.fetch(RAWS, (account_id, ids)):
        derived = parse(bytes(raw))
        summary, text = derived.summary, derived.text
        messages.append(
            (
                *(number, derived.header_size, summary.sent_at, summary.sent_at and summary.sent_at.date()),
                *(derived.has_attachment, ordering.subject(summary), ordering.sort_keys(summary)),
                *(ordering.ancestry(summary), derived.preview, derived.envelope, derived.bodystructure),
                *(derived.field_index + derived.headers, derived.parts, summary.to_json()),
            )
        )
        texts.append(
            (
                *(number, text.from_, text.to, text.cc, text.bcc, text.subject, len(text.header) + 2),
                f"{text.header}\x01{text.body}",
            )
        )
    await tx.execute(SET_MESSAGES, [*columns(messages, _MESSAGE), account_id])
    await tx.execute(SET_TEXTS, [account_id, FOLD_VERSION, *columns(texts, _TEXT)])
    return ids[-1], len(ids)
