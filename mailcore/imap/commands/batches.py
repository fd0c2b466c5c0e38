"""UIDBATCHES: ranges of UIDs that hold about equally many messages (RFC 10022)."""

from __future__ import annotations

from typing import cast

from mailcore.imap.errors import bad, no
from mailcore.imap.registry import SELECTED, Done, command
from mailcore.imap.session import Session
from mailcore.wire.imap import response
from mailcore.wire.imap.commands import BatchesArgs, Command

SMALLEST = 500


@command("UIDBATCHES", state=SELECTED)
async def uidbatches(session: Session, command: Command) -> Done:
    """Split the mailbox, newest messages first; the ranges follow each other without a gap, the last one ends at 1."""
    args = cast(BatchesArgs, command.args)
    if args.size < SMALLEST:
        raise no(f"A batch has at least {SMALLEST} messages", "TOOFEW")
    if args.wanted is not None and args.wanted[0] > args.wanted[1]:
        raise bad("The first batch comes before the last", "CLIENTBUG")
    uids = session.view.uids
    count = -(-len(uids) // args.size)
    first, last = args.wanted or (1, count)
    ranges = []
    for number in range(first, min(last, count) + 1):
        # A range begins with its oldest message, the last one with UID 1, and ends where the next newer one begins.
        end, start = len(uids) - (number - 1) * args.size, len(uids) - number * args.size
        high = uids[-1] if number == 1 else uids[end] - 1
        ranges.append(b"%d:%d" % (high, uids[start] if start > 0 else 1))
    correlator = b"(TAG %b)" % response.quoted(command.tag)
    parts = (correlator, b",".join(ranges)) if ranges else (correlator,)
    session.send(response.untagged_line(b"UIDBATCHES", *parts))
    return Done("UIDBATCHES completed")
