"""STORE and UID STORE: change flags, conditionally if asked (RFC 9051 §6.4.6, RFC 7162 §3.1.3)."""

from __future__ import annotations

from typing import cast

from mailcore import db
from mailcore.imap import contexts, messagelimit, render
from mailcore.imap.capabilities import Enabled
from mailcore.imap.commands.append import split_flags
from mailcore.imap.errors import no
from mailcore.imap.registry import SELECTED, Done, command
from mailcore.imap.selected import Selected
from mailcore.imap.session import Session
from mailcore.store import acl, changes, flags, locks
from mailcore.store.acl import Right
from mailcore.store.flags import Op
from mailcore.wire.imap import response
from mailcore.wire.imap.commands import Command, StoreArgs
from mailcore.wire.imap.numset import NumSet

_OPS: dict[str, Op] = {"replace": "=", "add": "+", "remove": "-"}


@command("STORE", "UID STORE", state=SELECTED, uses_seqs=True, may_expunge=False)
async def store(session: Session, command: Command) -> Done:
    """Change flags of messages in one transaction; say the new ones unless the client wants silence."""
    args = cast(StoreArgs, command.args)
    view = session.view
    if view.read_only:
        raise no("The mailbox is open for reading only", "READ-ONLY")
    bits, keywords = _permitted(view, args)
    if args.unchangedsince is not None:
        session.enabled |= Enabled.CONDSTORE
    slices, cut = messagelimit.within(session, view.slices(args.numbers, uid=command.uid))
    uids = view.pick(slices)
    if not uids:
        return Done("STORE completed")
    hears = args.silent and not session.muted
    async with db.transaction() as tx:
        if hears:
            await _hear_before(session, tx)
        stored = await flags.store(
            *(tx, view.account_id, view.mailbox_id, uids, _OPS[args.action], bits, keywords, args.unchangedsince),
            within=acl.flags(view.rights),
            rows=not args.silent or bool(session.enabled & Enabled.CONDSTORE) or not view.quiet,
        )
        view.note_own(stored.modseq)
    view.overtaken(stored.changed)
    if hears and stored.modseq:
        # Nobody else wrote in between, so that this need not be looked for again.
        view.modseq = stored.modseq
        contexts.touch(session, uids)
    _answer(session, command, args, stored)
    if stored.modified:
        failed = stored.modified if command.uid else [view.seq(uid) for uid in stored.modified]
        return Done("Conditional STORE failed for some", response.code("MODIFIED", NumSet.of(failed).format()))
    missing = len(uids) - stored.found
    if missing and not command.uid:
        raise no(f"{missing} of the messages have been expunged meanwhile", "EXPUNGEISSUED")
    return Done("STORE completed", cut)


async def _hear_before(session: Session, tx: db.Tx) -> None:
    """Take in what others changed before: nobody would tell what a change that is not answered lies upon."""
    view = session.view
    await locks.lock(tx, view.account_id, [view.mailbox_id])
    found = await changes.mailbox(tx, view.account_id, view.mailbox_id, view.modseq)
    view.absorb(found)
    contexts.touch(session, (row[0] for row in found.changed))


def _permitted(view: Selected, args: StoreArgs) -> tuple[int, tuple[str, ...]]:
    """The flags that the client may change; refused only when it may change none of them (RFC 4314 §4)."""
    bits, keywords = split_flags(args.flags)
    allowed = acl.flags(view.rights)
    if view.rights & Right.WRITE:
        permitted = bits & allowed, keywords
    else:
        permitted = bits & allowed, ()
    if not any(permitted) and (any((bits, keywords)) or not allowed):
        raise no("You have no right to change these flags", "NOPERM")
    return permitted


def _answer(session: Session, command: Command, args: StoreArgs, stored: flags.Stored) -> None:
    condstore = bool(session.enabled & Enabled.CONDSTORE)
    uid = command.uid or bool(session.enabled & Enabled.QRESYNC)
    view = session.view
    rows = [(seq, row) for row in stored.changed if (seq := view.seq(row[0]))]
    if not args.silent:
        session.send(render.flag_lines(rows, view, uid=uid, modseq=condstore))
    elif condstore:
        # The client must learn the new modseqs even when it wants no flags (RFC 7162 §3.1.3).
        if view.uid_only:
            session.send(b"".join(b"* %d UIDFETCH (MODSEQ (%d))\r\n" % row[:2] for _, row in rows))
            return
        template = b"* %d FETCH (UID %d MODSEQ (%d))\r\n" if uid else b"* %d FETCH (MODSEQ (%d))\r\n"
        session.send(b"".join(template % ((seq, row[0], row[1]) if uid else (seq, row[1])) for seq, row in rows))
