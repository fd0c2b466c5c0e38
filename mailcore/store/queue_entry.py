"""The statement that puts messages into the outbound queue, with their recipients, blobs and trace, and its columns."""

from __future__ import annotations

from mailcore.arrays import Bools, Byteas, Int4s, Int8s, Texts, Timestamps
from mailcore.db import sql

# All of it at once, so that it can be its own transaction. A blob's row is written only when it is not fresh: storing
# a blob again right away costs no update. Steps come in the order in which they are read; their n = the message's.
ENQUEUE = sql("""
    WITH message AS (
        SELECT nextval('outbound_id_seq') AS id, m.*
        FROM unnest(%b::text[], %b::bigint[], %b::text[], %b::bytea[], %b::bigint[], %b::bytea[], %b::bool[],
            %b::text[], %b::bool[], %b::text[], %b::text[], %b::timestamptz[], %b::bigint[], %b::text[], %b::int[],
            %b::bool[])
            WITH ORDINALITY AS m(trace_id, account_id, sender, blob, size, prepend, smtputf8, body, requiretls, dsn_ret,
            dsn_envid, send_after, by_seconds, by_mode, priority, late_notified, n)
    ), stored AS (
        INSERT INTO blob (hash, size, data)
        SELECT b.hash, length(b.data), b.data FROM unnest(%b::bytea[], %b::bytea[]) AS b(hash, data)
        ON CONFLICT (hash) DO UPDATE SET touched_at = now() WHERE blob.touched_at < now() - interval '10 minutes'
    ), kept AS (
        INSERT INTO outbound (id, trace_id, account_id, sender, blob, size, prepend, smtputf8, body, requiretls,
            dsn_ret, dsn_envid, by_mode, send_after)
        SELECT id, trace_id, account_id, sender, blob, size, prepend, smtputf8, body, requiretls, dsn_ret, dsn_envid,
            by_mode, coalesce(send_after, now())
        FROM message
    ), recipients AS (
        INSERT INTO outbound_recipient (outbound_id, address, destination, sender_domain, notify, orcpt, written_to,
            priority, next_attempt_at, deliver_by, late_notified)
        SELECT message.id, r.address, r.destination, lower(split_part(message.sender, '@', -1)), r.notify, r.orcpt,
            r.written_to, message.priority,
            greatest(now(), message.send_after),
            greatest(now(), message.send_after) + make_interval(secs => message.by_seconds), message.late_notified
        FROM unnest(%b::int[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[])
            WITH ORDINALITY AS r(n, address, destination, notify, orcpt, written_to, position)
        JOIN message ON message.n = r.n ORDER BY r.position
    ), traced AS (
        INSERT INTO trace_event (at, trace_id, step, account_id, outbound_id, sender, recipient, message_id, detail)
        SELECT coalesce(e.at, now()), e.trace_id, e.step, e.account_id, coalesce(e.outbound_id, message.id), e.sender,
            e.recipient, e.message_id, e.detail::jsonb
        FROM unnest(%b::int[], %b::timestamptz[], %b::text[], %b::text[], %b::bigint[], %b::bigint[], %b::text[],
            %b::text[], %b::text[], %b::text[]) WITH ORDINALITY AS e(n, at, trace_id, step, account_id, outbound_id,
            sender, recipient, message_id, detail, position)
        LEFT JOIN message ON message.n = e.n ORDER BY e.position
    )
    SELECT id FROM message ORDER BY n""")
MESSAGE = (
    *(Texts, Int8s, Texts, Byteas, Int8s, Byteas, Bools, Texts, Bools, Texts, Texts, Timestamps),
    *(Int8s, Texts, Int4s, Bools),
)
RECIPIENT = (Int4s, Texts, Texts, Texts, Texts, Texts)
