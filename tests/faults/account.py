"""Where is everything? After the storm, each accepted message and recipient is looked for in every place it may be."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

import psycopg

from tests.faults.far import Far
from tests.faults.senders import HOME, Ledger

_MESSAGE_ID = re.compile(rb"^Message-ID: *<([^>\s]+)>", re.M | re.I)
_FINAL = re.compile(rb"^Final-Recipient: *rfc822; *(\S+)", re.M | re.I)

Pair = tuple[str, str]

STORED = """
    SELECT a.address, m.headers FROM entry e JOIN message m ON m.account_id = e.account_id AND m.id = e.message_id
    JOIN accounts_account a ON a.id = e.account_id"""
REPORTS = """
    SELECT b.data FROM entry e JOIN message m ON m.account_id = e.account_id AND m.id = e.message_id
    JOIN blob b ON b.hash = m.blob WHERE position('\\x6d756c7469706172742f7265706f7274'::bytea IN b.data) > 0"""
QUEUE = """
    SELECT DISTINCT t.message_id, r.address, r.state FROM outbound_recipient r
    JOIN outbound o ON o.id = r.outbound_id JOIN trace_event t ON t.trace_id = o.trace_id AND t.step = 'accepted'"""


@dataclass(slots=True)
class Balance:
    """What became of every (Message-ID, recipient) that was promised; `lost` and `twofold` must be empty."""

    promised: int = 0
    places: Counter[str] = field(default_factory=Counter)
    lost: list[Pair] = field(default_factory=list)
    twofold: list[Pair] = field(default_factory=list)
    duplicates: Counter[str] = field(default_factory=Counter)


def balance(ledger: Ledger, far: Far, database: psycopg.Connection[tuple[object, ...]]) -> Balance:
    """Settle the accounts, from the store, the queue, the reports and the far servers."""
    stored: Counter[Pair] = Counter()
    for address, headers in database.execute(STORED):
        if match := _MESSAGE_ID.search(bytes(headers)):  # type: ignore[arg-type]  # a row
            stored[match[1].decode(), str(address)] += 1
    bounced: set[Pair] = set()
    for (data,) in database.execute(REPORTS):
        report = bytes(data)  # type: ignore[arg-type]  # a row
        names = _MESSAGE_ID.findall(report)
        bounced |= {(name.decode(), to.decode()) for name in names for to in _FINAL.findall(report)}
    queued: dict[Pair, set[str]] = {}
    for name, address, state in database.execute(QUEUE):
        queued.setdefault((str(name), str(address)), set()).add(str(state))
    taken = far.taken()
    result = Balance()
    for name, (_, recipients) in ledger.accepted.items():
        for recipient in recipients:
            pair = (name, recipient)
            result.promised += 1
            states = queued.get(pair, set())
            places = []
            if stored[pair]:
                places.append("mailbox")
            if taken[pair]:
                places.append("far server")
            if states & {"queued", "held"}:
                places.append("queue")
            if pair in bounced:
                places.append("returned")
            result.places.update(places)
            if not places:
                result.lost.append(pair)
            # The far server may have taken it and the connection broken before it said so; then it may not be returned.
            if len(states & {"delivered", "failed"}) > 1 and name not in ledger.repeated:
                result.twofold.append(pair)
            copies = stored[pair] + taken[pair]
            if copies > 1:
                why = "offered again by its sender" if name in ledger.repeated else "sent again by us"
                result.duplicates[f"{'mailbox' if recipient.endswith(HOME) else 'far server'}, {why}"] += copies - 1
    return result
