"""What became of submitted mail: read from its trace and, while it waits, from the outbound queue.

An EmailSubmission is named after its trace id, so that what a person sees in the webmail, what `manage.py trace`
shows and what stands in Received are one and the same thing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from mailcore.db import Tx, sql
from mailcore.errors import Code, MailError
from mailcore.jmap import ids, values
from mailcore.store import housekeeping, trace

Json = dict[str, Any]

_ID = re.compile(r"S([0-9a-z]{15})")

EVENTS = sql("""
    SELECT trace_id, step, at, sender, detail::text FROM trace_event
    WHERE trace_id = ANY(%s::text[]) AND account_id = %s::bigint AND step IN ('accepted', 'canceled')""")

WAITING = sql("""
    SELECT o.trace_id, o.send_after, r.address, r.state, r.attempts, r.last_code, r.last_reply
    FROM outbound o JOIN outbound_recipient r ON r.outbound_id = o.id
    WHERE o.account_id = %s::bigint AND o.trace_id = ANY(%s::text[]) ORDER BY r.id""")

LOCK = sql("""
    SELECT o.id, r.id, r.address, o.sender, r.state IN ('queued', 'held') AND r.attempts = 0 AND r.lease_until IS NULL
    FROM outbound o JOIN outbound_recipient r ON r.outbound_id = o.id
    WHERE o.account_id = %s::bigint AND o.trace_id = %s::text ORDER BY r.id FOR UPDATE OF r""")
DROP_RECIPIENTS = sql("DELETE FROM outbound_recipient WHERE id = ANY(%s::bigint[])")
DROP_MESSAGES = sql("DELETE FROM outbound WHERE id = ANY(%s::bigint[]) RETURNING blob")

NEWEST = sql("""
    SELECT trace_id FROM outbound WHERE account_id = %s::bigint ORDER BY id DESC LIMIT %s::int""")

STATE = sql("""
    SELECT coalesce(max(o.id), 0), count(*), coalesce(sum(r.fence), 0)::bigint,
        count(*) FILTER (WHERE r.state IN ('delivered', 'failed'))
    FROM outbound o JOIN outbound_recipient r ON r.outbound_id = o.id WHERE o.account_id = %s::bigint""")


@dataclass(slots=True)
class Submission:
    """A message that was submitted by JMAP."""

    trace_id: str
    sender: str
    sent_at: datetime
    canceled: bool
    detail: Json
    waiting: list[tuple[str, str, int, int | None, str | None]] = field(default_factory=list)

    @property
    def undo_status(self) -> str:
        if self.canceled:
            return "canceled"
        fresh = bool(self.waiting) and all(
            state in ("queued", "held") and not attempts for _, state, attempts, _, _ in self.waiting
        )
        return "pending" if fresh and self.detail.get("held") else "final"

    def shown(self) -> Json:
        """The EmailSubmission object."""
        return {
            "id": submission_id(self.trace_id),
            "identityId": str(self.detail.get("identity", "")),
            "emailId": ids.email(int(self.detail.get("email", 0))),
            "threadId": ids.thread(int(self.detail.get("thread", 0))),
            "envelope": {
                "mailFrom": {"email": self.sender, "parameters": None},
                "rcptTo": [{"email": address, "parameters": None} for address in self.detail.get("to", ())],
            },
            "sendAt": values.utc(self.sent_at),
            "undoStatus": self.undo_status,
            "deliveryStatus": self._deliveries(),
            "dsnBlobIds": [],
            "mdnBlobIds": [],
        }

    def _deliveries(self) -> Json:
        known = {address: (state, code, reply) for address, state, _, code, reply in self.waiting}
        found = {}
        for address in self.detail.get("to", ()):
            state, code, reply = known.get(address, ("", None, None))
            if self.canceled:
                state = "failed"
            found[address] = {
                "smtpReply": f"{code} {reply}" if code else "250 2.0.0 accepted",
                "delivered": {"queued": "queued", "held": "queued", "failed": "no"}.get(state, "unknown"),
                "displayed": "unknown",
            }
        return found


def submission_id(trace_id: str) -> str:
    return f"S{trace_id}"


def trace_id_of(text: str) -> str | None:
    """The trace id in the id of a submission; None for what is no such id."""
    match = _ID.fullmatch(text)
    return match.group(1) if match else None


async def state(tx: Tx, account_id: int) -> str:
    """Changes whenever something was submitted, tried, settled or canceled."""
    row = await tx.one(STATE, (account_id,))
    return "-".join(map(str, row)) if row else "0"


async def load(tx: Tx, account_id: int, trace_ids: Sequence[str]) -> dict[str, Submission]:
    """Submissions of the account by trace id."""
    found: dict[str, Submission] = {}
    canceled: set[str] = set()
    for trace_id, step, at, sender, detail in await tx.fetch(EVENTS, (list(trace_ids), account_id)):
        if step == "canceled":
            canceled.add(trace_id)
            continue
        more = json.loads(detail)
        if "email" in more:
            held = more.get("held")
            found[trace_id] = Submission(
                trace_id, sender or "", datetime.fromisoformat(held) if held else at, False, more
            )
    for trace_id in canceled & found.keys():
        found[trace_id].canceled = True
    for trace_id, _send_after, *row in await tx.fetch(WAITING, (account_id, list(found))) if found else ():
        found[trace_id].waiting.append(tuple(row))
    return found


async def newest(tx: Tx, account_id: int, limit: int) -> list[str]:
    """Trace ids of what the queue knows of, the newest first."""
    return [row[0] for row in await tx.fetch(NEWEST, (account_id, limit))]


async def cancel(tx: Tx, account_id: int, trace_id: str) -> None:
    """Take a message back that nobody has begun to deliver. Raises NO_PERMISSION when it is too late."""
    rows = await tx.fetch(LOCK, (account_id, trace_id))
    if not rows or not all(row[4] for row in rows):
        raise MailError(Code.NO_PERMISSION, "it is too late: the message is on its way")
    await tx.execute(DROP_RECIPIENTS, ([row[1] for row in rows],))
    gone = await tx.fetch(DROP_MESSAGES, (sorted({row[0] for row in rows}),))
    await housekeeping.remove_blobs(tx, [bytes(row[0]) for row in gone])
    await trace.add(
        tx,
        [
            trace.Event(trace_id, "canceled", account_id, number, sender, address)
            for number, _, address, sender, _ in rows
        ],
    )
