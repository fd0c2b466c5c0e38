"""CAPABILITY, NOOP, CHECK, LOGOUT, ID, NAMESPACE, GETJMAPACCESS: what needs no mailbox."""

from __future__ import annotations

from mailcore.imap import offers
from mailcore.imap.errors import bad
from mailcore.imap.registry import ANY, LOGGED_IN, SELECTED, Done, State, command
from mailcore.imap.session import Session
from mailcore.store.mailboxes import OTHER_USERS, SEPARATOR
from mailcore.wire.imap import response
from mailcore.wire.imap.commands import Command


@command("CAPABILITY", state=ANY)
async def capability(session: Session, command: Command) -> Done:
    """Say what the client may use now (RFC 9051 §6.1.1)."""
    session.send(response.capability_line(offers.capabilities(session)))
    return Done("CAPABILITY completed")


@command("NOOP", state=ANY, refresh=True)
async def noop(session: Session, command: Command) -> Done:
    """Do nothing but tell the client what is new (RFC 9051 §6.1.2)."""
    return Done("NOOP completed")


@command("CHECK", state=SELECTED, refresh=True)
async def check(session: Session, command: Command) -> Done:
    """A checkpoint (RFC 3501 §6.4.1): everything is durable already, so the same as NOOP."""
    return Done("CHECK completed")


@command("LOGOUT", state=ANY)
async def logout(session: Session, command: Command) -> Done:
    """Say goodbye; the connection closes after the tagged answer (RFC 9051 §6.1.3)."""
    session.deselect()
    session.send(response.status_line(None, "BYE", "Logging out"))
    session.state = State.LOGOUT
    return Done("LOGOUT completed")


@command("ID", state=ANY)
async def identify(session: Session, command: Command) -> Done:
    """Tell each other which program this is (RFC 2971); what the client says is kept for nobody."""
    session.send(response.id_line({"name": "Mailstead"}))
    return Done("ID completed")


@command("NAMESPACE", state=LOGGED_IN)
async def namespace(session: Session, command: Command) -> Done:
    """There is the person's own namespace, and one for what others share (RFC 9051 §6.3.10)."""
    others = OTHER_USERS + SEPARATOR
    session.send(response.namespace_line([("", SEPARATOR)], [(others, SEPARATOR)], utf8=session.utf8))
    return Done("NAMESPACE completed")


@command("GETJMAPACCESS", state=LOGGED_IN)
async def getjmapaccess(session: Session, command: Command) -> Done:
    """Say where JMAP serves the same mail, under the same ids (RFC 9698)."""
    url = session.server.jmap_url
    if url is None:
        raise bad("There is no JMAP address to tell")
    session.send(response.untagged_line(b"JMAPACCESS", response.quoted(url)))
    return Done("GETJMAPACCESS completed")
