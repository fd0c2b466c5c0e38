"""What a client is told unasked: what is new in its selected mailbox, at the moments when that may be said."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from mailcore import db
from mailcore.errors import Code, MailError
from mailcore.imap import contexts, render
from mailcore.imap.capabilities import Enabled
from mailcore.imap.errors import Gone
from mailcore.imap.registry import COMMANDS, Spec
from mailcore.imap.selected import Known
from mailcore.store import acl, mailboxes
from mailcore.store import changes as store_changes
from mailcore.store.acl import Right
from mailcore.wire.imap import parse, response
from mailcore.wire.imap.frames import Frame
from mailcore.wire.imap.numset import NumSet

if TYPE_CHECKING:
    from mailcore.imap.session import Session

log = logging.getLogger(__name__)

# After a failed look into the store, look again.
RETRY_SECONDS = 5.0


async def after(session: Session, spec: Spec) -> None:
    """At the end of a command, before its tagged answer."""
    view = session.selected
    if view is None:
        return
    if spec.refresh or (view.own and (session.enabled & Enabled.CONDSTORE or view.contexts)):
        # A client that is told a modseq believes that it knows everything before it (RFC 7162 §3.2.7).
        view.dirty = True
    await refresh(session, expunge=spec.may_expunge and not _next_uses_seqs(session))


def _next_uses_seqs(session: Session) -> bool:
    """The client sent another command with sequence numbers already: none may shift before it has run."""
    event = session.connection.peek()
    if isinstance(event, Frame):
        spec = COMMANDS.get(parse.command_name(event))
        return spec is not None and spec.uses_seqs
    return False


async def refresh(session: Session, *, expunge: bool) -> None:
    """Ask the store what is new in the selected mailbox, if anything may be, and tell the client."""
    view = session.view
    changed: list[int] = []
    if view.dirty:
        view.dirty = False
        try:
            async with db.read() as tx:
                if view.shared:
                    await renew_rights(session, tx)
                if session.muted:
                    # Messages that the client is not told of, no command may speak of: it goes on with what it has.
                    await mailboxes.by_id(tx, view.account_id, view.mailbox_id)
                    return
                found = await store_changes.mailbox(tx, view.account_id, view.mailbox_id, view.modseq)
        except MailError as error:
            if error.code is Code.NOT_FOUND:
                raise Gone("The selected mailbox has been deleted") from None
            view.dirty = True
            log.warning("no update for %s: %s", session.who, error.private or error.text)
        else:
            view.absorb(found)
            changed = [row[0] for row in found.changed]
    if session.muted:
        view.own.clear()
        return
    if not view.quiet:
        tell(session, expunge=expunge)
    if view.quiet and session.hears_flags:
        view.told = view.modseq
    await _describe(session)
    if view.contexts:
        await contexts.update(session, changed)


async def _describe(session: Session) -> None:
    """Say of new messages what NOTIFY asked for; what cannot be read now, the next time."""
    view, first = session.view, session.described
    if session.notifier is None or not session.notifier.items or view.uidnext <= first:
        return
    session.described = view.uidnext
    try:
        await session.notifier.describe(first)
    except MailError as error:
        session.described = first
        view.dirty = True
        log.warning("new messages are not described to %s: %s", session.who, error.private or error.text)


async def removed(session: Session, modseq: int) -> bytes | None:
    """Tell what the client's own command removed: now, even if more commands wait, for it asked numbers to shift.

    Returns HIGHESTMODSEQ for the tagged OK, unless there is something up to there that the client does not know.
    """
    view = session.view
    tell(session, expunge=True)
    if not modseq:
        return None
    view.dirty = True
    try:
        await refresh(session, expunge=True)
    except Gone:
        view.dirty = True  # to be found again by `after`: what was done has to be answered
        return None
    return response.code("HIGHESTMODSEQ", b"%d" % modseq) if view.told >= modseq else None


async def renew_rights(session: Session, tx: db.Tx) -> None:
    """Look again what the client may do in somebody else's mailbox. Raises Gone when it may not even read."""
    view = session.view
    view.rights = await acl.rights(tx, session.account_id, view.account_id, view.mailbox_id)
    if Right.LOOKUP | Right.READ not in view.rights:
        raise Gone("The selected mailbox is not shared with you any more")


def tell(session: Session, *, expunge: bool) -> None:
    """Tell the client what the view has gathered."""
    view = session.view
    if view.contexts and view.gone:
        contexts.gone(session)
    report = view.report(expunge=expunge)
    if report.vanished:
        if session.enabled & (Enabled.QRESYNC | Enabled.UIDONLY):
            session.send(response.vanished_line(NumSet.of(report.vanished)))
        else:
            session.send(b"".join(map(response.expunge_line, report.expunged)))
    if report.exists is not None:
        session.send(response.exists_line(report.exists))
        _claim_recent(session)
    if report.flags and session.hears_flags:
        session.send(render.flag_lines(report.flags, view, uid=True, modseq=bool(session.enabled & Enabled.CONDSTORE)))
    if not view.gone:
        known = Known(view.modseq, view.uids)
        view.uids = session.server.uid_lists.share(view.account_id, view.mailbox_id, known)


def _claim_recent(session: Session) -> None:
    view = session.view
    if session.rev2:
        return
    view.add_recent(
        *session.server.recent.claim(view.account_id, view.mailbox_id, view.uidnext, view.uidnext, keep=view.read_only)
    )
    session.send(response.recent_line(view.count_recent()))
