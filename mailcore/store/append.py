"""Storing messages: one statement, and so one round trip, for however many arrive together (see append.sql)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Literal

from mailcore.arrays import Array, Bools, Byteas, Dates, Int4s, Int8s, Texts, Timestamps, columns
from mailcore.db import Tx, is_large, sql
from mailcore.errors import Code, MailError
from mailcore.mime import Derived
from mailcore.store import ordering, queue, threads, trace
from mailcore.store.flags import check_keywords
from mailcore.wake import Change

# store.accounts.create makes INBOX first, and nothing ever removes it.
INBOX_ID = 1


@dataclass(frozen=True, slots=True)
class Incoming:
    """One message for one mailbox. `mailbox_id` 0 = INBOX; `internal_date` None = now; `recipient` only for the
    trace; `digest` the SHA-256 of `raw` if it is known already."""

    account_id: int
    mailbox_id: int
    raw: bytes
    derived: Derived
    flags: int = 0
    keywords: tuple[str, ...] = ()
    internal_date: datetime | None = None
    trace_id: str | None = None
    recipient: str | None = None
    digest: bytes = b""


@dataclass(frozen=True, slots=True)
class Appended:
    """Where a message went; `message_id` is the email id."""

    account_id: int
    mailbox_id: int
    uid: int
    uidvalidity: int
    message_id: int
    modseq: int
    thread_id: int


@dataclass(frozen=True, slots=True)
class Job:
    """What belongs together: messages to store, mail to queue, steps to trace. `atomic`: all of `items` or nothing."""

    items: Sequence[Incoming] = ()
    outgoing: Sequence[queue.Outgoing] = ()
    events: Sequence[trace.Event] = ()
    atomic: bool = False


Results = list[Appended | MailError]

_MESSAGE = (
    *(Byteas, Byteas, Int8s, Int4s, Timestamps, Dates, Bools, Texts, Texts, Texts, Byteas, Byteas, Byteas, Byteas),
    *(Texts, Texts, Texts, Texts, Texts, Texts, Int4s, Texts, Texts, Byteas, Int4s, Int4s),
)
_ITEM = (Int4s, Bools, Int4s, Int8s, Int8s, Int4s, Texts, Timestamps, Texts, Texts)

# psycopg remembers how to send statements of up to 50 parameters. What is long is in no row that is sorted or kept
# aside: a long text to a thousand people would fill gigabytes of the disk.
APPEND = sql("""
    WITH given AS NOT MATERIALIZED (
        SELECT %b::bytea[] AS m_hash, %b::bytea[] AS m_data, %b::bigint[] AS m_size, %b::int[] AS m_header_size,
            %b::timestamptz[] AS m_sent_at, %b::date[] AS m_sent_on, %b::bool[] AS m_has_attachment,
            %b::text[] AS m_message_id, %b::text[] AS m_base_subject, %b::text[] AS m_preview,
            %b::bytea[] AS m_envelope, %b::bytea[] AS m_bodystructure, %b::bytea[] AS m_headers, %b::bytea[] AS m_parts,
            %b::text[] AS m_summary, %b::text[] AS m_from, %b::text[] AS m_to, %b::text[] AS m_cc, %b::text[] AS m_bcc,
            %b::text[] AS m_subject, %b::int[] AS m_body_at, %b::text[] AS m_text, %b::text[] AS m_sort_keys,
            %b::bytea[] AS m_ancestry, %b::int[] AS m_keys_from, %b::int[] AS m_keys_to, %b::bigint[] AS m_keys,
            %b::int[] AS i_job, %b::bool[] AS i_atomic, %b::int[] AS i_mail, %b::bigint[] AS i_account,
            %b::bigint[] AS i_mailbox, %b::int[] AS i_flags, %b::text[] AS i_keywords,
            %b::timestamptz[] AS i_internal_date, %b::text[] AS i_trace_id, %b::text[] AS i_recipient,
            %b::int[] AS e_job, %b::timestamptz[] AS e_at, %b::text[] AS e_trace_id, %b::text[] AS e_step,
            %b::bigint[] AS e_account, %b::bigint[] AS e_outbound, %b::text[] AS e_sender, %b::text[] AS e_recipient,
            %b::text[] AS e_message_id, %b::text[] AS e_detail
    ), numbered AS MATERIALIZED (
        SELECT i.* FROM given CROSS JOIN LATERAL ROWS FROM (
            number_messages(
                i_job, i_atomic, i_mail, i_account, i_mailbox, i_flags, m_size, m_keys_from, m_keys_to, m_keys),
            unnest(i_job, i_mail, i_account, i_mailbox, i_flags, i_keywords, i_internal_date, i_trace_id, i_recipient)
        ) WITH ORDINALITY AS i(refused, uid, uidvalidity, message, modseq, thread,
            job, mail, account, mailbox, flags, keywords, date, trace_id, recipient, n)
    ), stored AS NOT MATERIALIZED (
        SELECT * FROM numbered CROSS JOIN given WHERE refused = 0
    ), put_message AS (
        INSERT INTO message (account_id, id, blob, size, header_size, thread_id, created_modseq, received_at, sent_at,
            sent_on, has_attachment, base_subject, sort_keys, ancestry, preview, envelope, bodystructure, headers,
            parts, summary)
        SELECT account, message, m_hash[mail], m_size[mail], m_header_size[mail], thread, modseq,
            coalesce(date, now()), m_sent_at[mail], m_sent_on[mail], m_has_attachment[mail],
            m_base_subject[mail], m_sort_keys[mail], m_ancestry[mail], m_preview[mail], m_envelope[mail],
            m_bodystructure[mail], m_headers[mail], m_parts[mail], m_summary[mail]
        FROM stored
    ), put_text AS (
        INSERT INTO message_text (account_id, docno, from_text, to_text, cc_text, bcc_text, subject_text, body_at, text)
        SELECT account, message, m_from[mail], m_to[mail], m_cc[mail], m_bcc[mail], m_subject[mail],
            m_body_at[mail], m_text[mail]
        FROM stored
    ), put_entry AS (
        INSERT INTO entry (account_id, mailbox_id, uid, message_id, modseq, flags, keywords, internal_date, size)
        SELECT account, mailbox, uid, message, modseq, flags, string_to_array(keywords, ' '),
            coalesce(date, now()), m_size[mail]
        FROM stored
    ), put_trace AS ( -- what the protocol has to say of a job, then what became of its items
        INSERT INTO trace_event (at, trace_id, step, account_id, outbound_id, sender, recipient, message_id, detail)
        SELECT t.at, t.trace_id, t.step, t.account, t.outbound, t.sender, t.recipient, t.message_id, t.detail
        FROM (
            SELECT e.job, 0 AS part, e.n, coalesce(e.at, now()) AS at, e.trace_id, e.step, e.account, e.outbound,
                e.sender, e.recipient, e.message_id, e.detail::jsonb AS detail
            FROM given CROSS JOIN LATERAL unnest(e_job, e_at, e_trace_id, e_step, e_account, e_outbound, e_sender,
                e_recipient, e_message_id, e_detail) WITH ORDINALITY
                AS e(job, at, trace_id, step, account, outbound, sender, recipient, message_id, detail, n)
            WHERE e.job IN (SELECT job FROM stored)
            UNION ALL
            SELECT job, 1, n, now(), trace_id, 'stored', account, NULL, NULL, recipient,
                CASE WHEN job <> ALL(e_job) THEN m_message_id[mail] END, -- else the job's own step has it
                jsonb_build_object('mailbox', mailbox, 'uid', uid, 'email', message)
            FROM stored WHERE trace_id IS NOT NULL) AS t
        ORDER BY t.job, t.part, t.n
    ), put_blob AS (
        INSERT INTO blob (hash, size, data)
        SELECT b.hash, m_size[b.mail], m_data[b.mail]
        FROM (SELECT DISTINCT m_hash[mail] AS hash, mail FROM stored ORDER BY hash) AS b CROSS JOIN given
        ON CONFLICT (hash) DO UPDATE SET touched_at = now()
    )
    SELECT refused, uid, uidvalidity, message, modseq, thread FROM numbered ORDER BY n""")

_REFUSALS = {1: (Code.NOT_FOUND, "no such mailbox"), 2: (Code.OVER_QUOTA, "the mailbox is full")}


@dataclass(slots=True)
class _Rows:
    """The parameters of APPEND, gathered item by item. `mails`: position of a message by its hash."""

    mails: dict[bytes, int] = field(default_factory=dict)
    messages: list[tuple[object, ...]] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    items: list[tuple[object, ...]] = field(default_factory=list)
    events: list[trace.Event] = field(default_factory=list)
    event_jobs: list[int] = field(default_factory=list)

    def add(self, number: int, job: Job) -> None:
        """A job with items. Raises BAD_VALUE for keywords that cannot be stored."""
        keywords = [" ".join(check_keywords(item.keywords)) or None for item in job.items]
        digests: dict[int, bytes] = {}  # by object: a message to many is hashed once
        for item, words in zip(job.items, keywords, strict=True):
            digest = item.digest or digests.get(id(item.raw))
            if not digest:
                digest = digests[id(item.raw)] = hashlib.sha256(item.raw).digest()
            mail = self.mails.get(digest)
            if mail is None:
                mail = self._message(digest, item.raw, item.derived)
            self.items.append(
                (
                    *(number, job.atomic, mail, item.account_id, item.mailbox_id or INBOX_ID, item.flags, words),
                    *(item.internal_date, item.trace_id, trace.address(item.recipient)),
                )
            )
        self.events.extend(job.events)
        self.event_jobs.extend([number] * len(job.events))

    def _message(self, digest: bytes, raw: bytes, derived: Derived) -> int:
        summary, text = derived.summary, derived.text
        first_key = len(self.keys) + 1
        self.keys += threads.keys(summary)
        sent_on = summary.sent_at and summary.sent_at.date()
        self.messages.append(
            (
                *(digest, raw, len(raw), derived.header_size, summary.sent_at, sent_on, derived.has_attachment),
                *(trace.message_id(summary.message_id[0] if summary.message_id else None), ordering.subject(summary)),
                *(derived.preview, derived.envelope, derived.bodystructure, derived.field_index + derived.headers),
                *(derived.parts, summary.to_json(), text.from_, text.to, text.cc, text.bcc, text.subject),
                *(len(text.header) + 2, f"{text.header}\x01{text.body}", ordering.sort_keys(summary)),
                *(ordering.ancestry(summary), first_key, len(self.keys)),
            )
        )
        mail = self.mails[digest] = len(self.messages)
        return mail

    def parameters(self) -> list[Array]:
        return [
            *columns(self.messages, _MESSAGE),
            Int8s(self.keys),
            *columns(self.items, _ITEM),
            Int4s(self.event_jobs),
            *trace.arrays(self.events),
        ]


def is_one_statement(jobs: Sequence[Job]) -> bool:
    """Whether `append_jobs` takes these in one statement, so that it may run without a transaction around it."""
    kinds = {kind(job) for job in jobs}
    return len(kinds) == 1 and "both" not in kinds


def kind(job: Job) -> Literal["stored", "queued", "both"]:
    """What is written for a job; jobs that are only stored take one statement together, those that are only queued
    another."""
    if job.items:
        return "both" if job.outgoing else "stored"
    return "queued" if queue.needs_one_statement(job.outgoing) else "both"


async def append(tx: Tx, items: Sequence[Incoming]) -> Results:
    """Store messages; an item that cannot be stored yields its MailError (OVER_QUOTA, NOT_FOUND, BAD_VALUE), the
    others go in."""
    jobs = [Job((item,)) for item in items]
    return [result for (result,) in await append_jobs(tx, jobs)]


async def append_jobs(tx: Tx, jobs: Sequence[Job]) -> list[Results]:
    """Store, queue and trace several jobs in this transaction; per job the result of each item, in order.

    A job that is refused as a whole is neither queued nor traced.
    """
    rows = _Rows()
    refused: dict[int, MailError] = {}
    for number, job in enumerate(jobs):
        if job.items:
            try:
                if is_large(item.raw for item in job.items if not item.digest):
                    await tx.aside(partial(rows.add, number, job))
                else:
                    rows.add(number, job)
            except MailError as refusal:
                refused[number] = refusal
    if is_large(item.raw for job in jobs for item in job.items):
        parameters = await tx.aside(rows.parameters)
    else:
        parameters = rows.parameters()
    stored = iter(await tx.call(APPEND, parameters) if rows.items else ())
    results: list[Results] = []
    outgoing: list[queue.Outgoing] = []
    events: list[trace.Event] = []
    for number, job in enumerate(jobs):
        if number in refused:
            results.append([refused[number]] * len(job.items))
            continue
        outcome: Results = []
        for item in job.items:
            code, *numbers = next(stored)
            if code:
                outcome.append(MailError(*_REFUSALS[code]))
                continue
            mailbox_id = item.mailbox_id or INBOX_ID
            appended = Appended(item.account_id, mailbox_id, *numbers)
            outcome.append(appended)
            tx.changed(Change(item.account_id, mailbox_id, appended.modseq, "mail"))
        results.append(outcome)
        if not job.items:
            events.extend(job.events)
        if not outcome or any(isinstance(one, Appended) for one in outcome):
            outgoing.extend(job.outgoing)
    if outgoing or events:
        await queue.enqueue_many(tx, outgoing, events)
    return results
