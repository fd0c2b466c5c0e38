"""Storing messages: one transaction for however many arrive together, a few multi-row statements for all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from mailcore.arrays import Bools, Byteas, Dates, Int4s, Int8s, Texts, Timestamps, columns
from mailcore.db import Tx, sql
from mailcore.errors import Code, MailError
from mailcore.mime import Derived
from mailcore.store import queue, trace
from mailcore.store.flags import DELETED, SEEN, check_keywords
from mailcore.store.threads import Threads
from mailcore.wake import Change

# store.accounts.create makes INBOX first, and nothing ever removes it.
INBOX_ID = 1


@dataclass(frozen=True, slots=True)
class Incoming:
    """One message for one mailbox. `mailbox_id` 0 = INBOX; `internal_date` None = now; `recipient` only for the
    trace."""

    account_id: int
    mailbox_id: int
    raw: bytes
    derived: Derived
    flags: int = 0
    keywords: tuple[str, ...] = ()
    internal_date: datetime | None = None
    trace_id: str | None = None
    recipient: str | None = None


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

LOCK_ACCOUNTS = sql("""
    SELECT account_id, modseq, next_message, bytes, quota_bytes FROM account_state
    WHERE account_id = ANY(%s::bigint[]) ORDER BY account_id FOR UPDATE""")

LOCK_MAILBOXES = sql("""
    SELECT m.account_id, m.id, m.uidvalidity, m.uidnext
    FROM mailbox m JOIN unnest(%s::bigint[], %s::bigint[]) AS k(account_id, id) USING (account_id, id)
    ORDER BY m.account_id, m.id FOR UPDATE OF m""")

# A batch is written by two statements in one round trip: psycopg remembers how to send those of up to 50 parameters.
_BLOB = (Byteas, Int8s, Byteas)
_MESSAGE = (
    *(
        Int8s,
        Int8s,
        Byteas,
        Int8s,
        Int4s,
        Int8s,
        Int8s,
        Timestamps,
        Timestamps,
        Dates,
        Bools,
        Texts,
        Texts,
        Byteas,
        Byteas,
    ),
    *(Byteas, Byteas, Texts),
)
_TEXT = (Int8s, Int8s, Texts, Texts, Texts, Texts, Texts, Int4s, Texts)
_ENTRY = (Int8s, Int8s, Int8s, Int8s, Int8s, Int4s, Texts, Timestamps, Int8s)
_KEY = (Int8s, Int8s, Int8s)
_ACCOUNT = (Int8s, Int8s, Int8s)
_MAILBOX = (Int8s, Int8s, Int8s, Int8s, Int8s, Int8s, Int8s)

WRITE_MESSAGES = sql("""
    WITH blobs AS (
        INSERT INTO blob (hash, size, data) SELECT * FROM unnest(%b::bytea[], %b::bigint[], %b::bytea[])
        ON CONFLICT (hash) DO UPDATE SET touched_at = now()),
    messages AS (
        INSERT INTO message (account_id, id, blob, size, header_size, thread_id, created_modseq, received_at, sent_at,
            sent_on, has_attachment, base_subject, preview, envelope, bodystructure, headers, parts, summary)
        SELECT * FROM unnest(%b::bigint[], %b::bigint[], %b::bytea[], %b::bigint[], %b::int[], %b::bigint[],
            %b::bigint[],
            %b::timestamptz[], %b::timestamptz[], %b::date[], %b::bool[], %b::text[], %b::text[], %b::bytea[],
            %b::bytea[], %b::bytea[], %b::bytea[], %b::text[]))
    INSERT INTO message_text (account_id, docno, from_text, to_text, cc_text, bcc_text, subject_text, body_at, text)
    SELECT * FROM unnest(%b::bigint[], %b::bigint[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[],
        %b::int[],
        %b::text[])""")

WRITE_ENTRIES = sql("""
    WITH entries AS (
        INSERT INTO entry (account_id, mailbox_id, uid, message_id, modseq, flags, keywords, internal_date, size)
        SELECT n.account_id, n.mailbox_id, n.uid, n.message_id, n.modseq, n.flags, string_to_array(n.keywords, ' '),
            n.internal_date, n.size
        FROM unnest(%b::bigint[], %b::bigint[], %b::bigint[], %b::bigint[], %b::bigint[], %b::int[], %b::text[],
            %b::timestamptz[], %b::bigint[])
            AS n(account_id, mailbox_id, uid, message_id, modseq, flags, keywords, internal_date, size)),
    keys AS (
        INSERT INTO thread_key (account_id, key, thread_id)
        SELECT * FROM unnest(%b::bigint[], %b::bigint[], %b::bigint[]) ON CONFLICT DO NOTHING),
    accounts AS (
        UPDATE account_state a SET modseq = a.modseq + n.messages, next_message = a.next_message + n.messages,
            messages = a.messages + n.messages, bytes = a.bytes + n.bytes
        FROM unnest(%b::bigint[], %b::bigint[], %b::bigint[]) AS n(account_id, messages, bytes)
        WHERE a.account_id = n.account_id)
    UPDATE mailbox m SET messages = m.messages + n.messages, uidnext = m.uidnext + n.messages,
        unseen = m.unseen + n.unseen, deleted = m.deleted + n.deleted, bytes = m.bytes + n.bytes, highest_modseq =
        n.modseq
    FROM unnest(%b::bigint[], %b::bigint[], %b::bigint[], %b::bigint[], %b::bigint[], %b::bigint[], %b::bigint[])
        AS n(account_id, id, messages, unseen, deleted, bytes, modseq)
    WHERE m.account_id = n.account_id AND m.id = n.id""")


@dataclass(slots=True)
class _Account:
    modseq: int
    next_message: int
    bytes: int
    quota: int | None
    new_messages: int = 0
    new_bytes: int = 0


@dataclass(slots=True)
class _Box:
    uidvalidity: int
    uidnext: int
    messages: int = 0
    unseen: int = 0
    deleted: int = 0
    bytes: int = 0
    modseq: int = 0


@dataclass(slots=True)
class _Plan:
    """The rows to write, gathered job by job."""

    accounts: dict[int, _Account]
    boxes: dict[tuple[int, int], _Box]
    threads: Threads
    now: datetime
    blobs: dict[bytes, bytes] = field(default_factory=dict)
    messages: list[tuple[object, ...]] = field(default_factory=list)
    texts: list[tuple[object, ...]] = field(default_factory=list)
    entries: list[tuple[object, ...]] = field(default_factory=list)
    events: list[trace.Event] = field(default_factory=list)


async def append(tx: Tx, items: Sequence[Incoming]) -> Results:
    """Store messages; an item that cannot be stored yields its MailError (OVER_QUOTA, NOT_FOUND, BAD_VALUE), the
    others go in."""
    return (await append_jobs(tx, [Job(items)]))[0]


async def append_jobs(tx: Tx, jobs: Sequence[Job]) -> list[Results]:
    """Store, queue and trace several jobs in this transaction; per job the result of each item, in order."""
    items = [item for job in jobs for item in job.items]
    plan = await _lock(tx, items)
    results: list[Results] = []
    outgoing: list[queue.Outgoing] = []
    for job in jobs:
        outcome, refused = _refusals(plan, job.items), False
        if any(outcome):
            refused = job.atomic or all(outcome)
        if refused:
            whole = next(error for error in outcome if error)
            results.append([error or whole for error in outcome])
            continue
        # In this order they are traced: what the protocol has to say, then what became of it.
        plan.events.extend(job.events)
        results.append([error or _place(plan, item) for item, error in zip(job.items, outcome, strict=True)])
        outgoing.extend(job.outgoing)
    if plan.entries:
        await _write(tx, plan)
    else:
        await trace.add(tx, plan.events)
    if outgoing:
        await queue.enqueue_many(tx, outgoing)
    return results


async def _lock(tx: Tx, items: Sequence[Incoming]) -> _Plan:
    accounts, boxes = {}, {}
    threads = Threads()
    if items:
        ids = sorted({item.account_id for item in items})
        keys = sorted({(item.account_id, item.mailbox_id or INBOX_ID) for item in items})
        account_rows, mailbox_rows, thread_rows = await tx.batch(
            (LOCK_ACCOUNTS, (Int8s(ids),)),
            (LOCK_MAILBOXES, columns(keys, (Int8s, Int8s))),
            threads.question((item.account_id, item.derived.summary) for item in items),
        )
        for account_id, *numbers in account_rows:
            accounts[account_id] = _Account(*numbers)
        for account_id, mailbox_id, uidvalidity, uidnext in mailbox_rows:
            boxes[(account_id, mailbox_id)] = _Box(uidvalidity, uidnext)
        threads.learn(thread_rows)
    return _Plan(accounts, boxes, threads, datetime.now(UTC))


def _refusals(plan: _Plan, items: Sequence[Incoming]) -> list[MailError | None]:
    """Why items of one job cannot be stored, with the quota used up in their order."""
    more: dict[int, int] = {}
    errors: list[MailError | None] = []
    for item in items:
        account = plan.accounts.get(item.account_id)
        error = None
        if account is None or (item.account_id, item.mailbox_id or INBOX_ID) not in plan.boxes:
            error = MailError(Code.NOT_FOUND, "no such mailbox")
        else:
            size = len(item.raw)
            used = account.bytes + account.new_bytes + more.get(item.account_id, 0)
            if account.quota is not None and used + size > account.quota:
                error = MailError(Code.OVER_QUOTA, "the mailbox is full")
            else:
                try:
                    check_keywords(item.keywords)
                except MailError as refused:
                    error = refused
                else:
                    more[item.account_id] = more.get(item.account_id, 0) + size
        errors.append(error)
    return errors


def _place(plan: _Plan, item: Incoming) -> Appended:
    account_id, derived = item.account_id, item.derived
    mailbox_id = item.mailbox_id or INBOX_ID
    account, box = plan.accounts[account_id], plan.boxes[(account_id, mailbox_id)]
    size = len(item.raw)
    message_id = account.next_message + account.new_messages
    account.new_messages += 1
    account.new_bytes += size
    modseq = account.modseq + account.new_messages
    uid = box.uidnext + box.messages
    box.messages += 1
    box.bytes += size
    box.modseq = modseq
    box.unseen += not item.flags & SEEN
    box.deleted += bool(item.flags & DELETED)
    digest = hashlib.sha256(item.raw).digest()
    plan.blobs[digest] = item.raw
    summary, text = derived.summary, derived.text
    thread_id = plan.threads.place(account_id, summary, message_id)
    internal_date = item.internal_date or plan.now
    plan.messages.append(
        (
            *(account_id, message_id, digest, size, derived.header_size, thread_id, modseq),
            *(internal_date, summary.sent_at, summary.sent_at and summary.sent_at.date()),
            *(derived.has_attachment, summary.base_subject, derived.preview, derived.envelope, derived.bodystructure),
            *(derived.headers, derived.parts, summary.to_json()),
        )
    )
    plan.texts.append(
        (
            *(account_id, message_id, text.from_, text.to, text.cc, text.bcc, text.subject),
            *(len(text.header) + 2, f"{text.header}\x01{text.body}"),
        )
    )
    keywords = " ".join(check_keywords(item.keywords)) or None
    plan.entries.append((account_id, mailbox_id, uid, message_id, modseq, item.flags, keywords, internal_date, size))
    if item.trace_id is not None:
        detail = {"mailbox": mailbox_id, "uid": uid, "email": message_id}
        ids = summary.message_id[0] if summary.message_id else None
        plan.events.append(
            trace.Event(item.trace_id, "stored", account_id, recipient=item.recipient, message_id=ids, detail=detail)
        )
    return Appended(account_id, mailbox_id, uid, box.uidvalidity, message_id, modseq, thread_id)


async def _write(tx: Tx, plan: _Plan) -> None:
    digests = sorted(plan.blobs)  # one order for all transactions, or two of them could wait for each other
    accounts = [(key, a.new_messages, a.new_bytes) for key, a in plan.accounts.items() if a.new_messages]
    boxes = [(*key, b.messages, b.unseen, b.deleted, b.bytes, b.modseq) for key, b in plan.boxes.items() if b.messages]
    blobs = [(digest, len(plan.blobs[digest]), plan.blobs[digest]) for digest in digests]
    messages = [*columns(blobs, _BLOB), *columns(plan.messages, _MESSAGE), *columns(plan.texts, _TEXT)]
    entries = [
        *columns(plan.entries, _ENTRY),
        *columns(plan.threads.new_keys(), _KEY),
        *columns(accounts, _ACCOUNT),
        *columns(boxes, _MAILBOX),
    ]
    events = [trace.adding(plan.events)] if plan.events else []
    await tx.batch((WRITE_MESSAGES, messages), (WRITE_ENTRIES, entries), *events)
    for account_id, mailbox_id, *_rest, modseq in boxes:
        tx.changed(Change(account_id, mailbox_id, modseq, "mail"))
