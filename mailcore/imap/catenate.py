"""CATENATE (RFC 4469): which octets of which messages a client wants put together, and getting them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from mailcore import db
from mailcore.errors import Code, MailError
from mailcore.imap import bodies, updates
from mailcore.imap.bodies import Piece
from mailcore.imap.errors import Refused, no
from mailcore.store import acl, fetch
from mailcore.store.acl import Right
from mailcore.wire.imap import response
from mailcore.wire.imap.url import MessageUrl, UrlError, parse_url

if TYPE_CHECKING:
    from mailcore.imap.session import Session

_COLUMNS = ("message_id", "size", "header_size", "parts")
_MAX_QUOTED_URL = 400


@dataclass(frozen=True, slots=True)
class Slice:
    """Octets of a message of the account; `url` as the client named it."""

    url: str
    account_id: int
    message_id: int
    piece: Piece

    @property
    def size(self) -> int:
        """Octets at most."""
        return self.piece.size


async def find(tx: db.Tx, session: Session, url: str) -> Slice:
    """What a URL names, without reading it. Raises Refused (BADURL) when that is not there or not the client's."""
    try:
        wanted = parse_url(url)
        account_id, mailbox_id = await _mailbox(tx, session, wanted)
    except (UrlError, MailError) as error:
        if isinstance(error, MailError) and error.code not in (Code.NOT_FOUND, Code.NO_PERMISSION):
            raise
        raise _bad_url(url, str(error)) from None
    rows = await fetch.rows(tx, account_id, mailbox_id, wanted.uid, wanted.uid, _COLUMNS)
    if not rows:
        raise _bad_url(url, "there is no such message")
    ((message_id, size, header_size, parts),) = rows
    piece = bodies.piece(wanted.item, size, header_size, parts)
    if piece is None:
        raise _bad_url(url, "the message has no such part")
    return Slice(url, account_id, message_id, piece)


async def read(tx: db.Tx, part: Slice) -> bytes:
    """The octets of a slice. Raises Refused (BADURL) when the message has just left."""
    piece = part.piece
    try:
        octets = await fetch.raw(tx, part.account_id, part.message_id, piece.start, piece.size)
    except MailError as error:
        if error.code is not Code.NOT_FOUND:
            raise
        raise _bad_url(part.url, "the message has been expunged") from None
    return octets if piece.finish is None else piece.finish(octets)


async def _mailbox(tx: db.Tx, session: Session, wanted: MessageUrl) -> tuple[int, int]:
    """The mailbox that a URL names, as (account, mailbox)."""
    if wanted.host is not None and wanted.host.lower() != session.server.hostname.lower():
        raise UrlError("the URL is of another server")
    if wanted.user is not None and wanted.user.lower() != session.who.lower():
        raise UrlError("the URL is of another login")
    if wanted.mailbox is None:
        view = session.selected
        if view is None:
            raise UrlError("the URL names no mailbox, and none is selected")
        if view.shared:
            await updates.renew_rights(session, tx)
        account_id, mailbox_id, uidvalidity = view.account_id, view.mailbox_id, view.uidvalidity
    else:
        place = (await acl.resolve(tx, session.account_id, wanted.mailbox)).require(Right.READ)
        account_id, mailbox_id, uidvalidity = place.account_id, place.mailbox.id, place.mailbox.uidvalidity
    if wanted.uidvalidity not in (None, uidvalidity):
        raise UrlError("UIDVALIDITY is another one now")
    return account_id, mailbox_id


def _bad_url(url: str, why: str) -> Refused:
    shown = quote(url, safe="/;=:@%&+,!$'()*.-_~ <>?#|")
    code = None
    if len(shown) <= _MAX_QUOTED_URL:
        code = response.code("BADURL", response.quoted(shown))
    return no(f"Nothing was stored: {why}", code or "BADURL")
