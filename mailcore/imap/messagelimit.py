"""MESSAGELIMIT (RFC 9738): how many messages one command may name, so that no transaction and no answer is endless."""

from __future__ import annotations

from collections.abc import Sequence

from mailcore.imap.errors import no
from mailcore.imap.session import Session
from mailcore.wire.imap import response


def within(session: Session, slices: Sequence[slice]) -> tuple[list[slice], bytes | None]:
    """The newest messages of slices, as many as one command may handle; with the response code if there were more.

    The code tells the oldest UID that was handled: the client goes on below it.
    """
    left = session.server.limits.messages
    if sum(part.stop - part.start for part in slices) <= left:
        return list(slices), None
    kept: list[slice] = []
    for part in reversed(slices):
        start = max(part.start, part.stop - left)
        left -= part.stop - start
        if start < part.stop:
            kept.insert(0, slice(start, part.stop))
    lowest = session.view.uids[kept[0].start]
    return kept, response.code("MESSAGELIMIT", b"%d %d" % (session.server.limits.messages, lowest))


def check(session: Session, slices: Sequence[slice]) -> None:
    """For commands that do all or nothing. Raises Refused (MESSAGELIMIT)."""
    most = session.server.limits.messages
    if sum(part.stop - part.start for part in slices) > most:
        raise no(f"One command copies or moves at most {most} messages", response.code("MESSAGELIMIT", b"%d" % most))
