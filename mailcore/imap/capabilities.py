"""What the server announces, by state (RFC 9051 §6.1.1), and what ENABLE can switch on."""

from __future__ import annotations

from enum import IntFlag

from mailcore.wire.sasl import MECHANISMS


class Enabled(IntFlag):
    """Extensions that change what we send, as the client asked for them (RFC 5161; CONDSTORE also by using it)."""

    CONDSTORE = 1
    QRESYNC = 2
    IMAP4REV2 = 4


ENABLE = {
    "CONDSTORE": Enabled.CONDSTORE,
    "QRESYNC": Enabled.QRESYNC | Enabled.CONDSTORE,
    "IMAP4REV2": Enabled.IMAP4REV2,
}

_ALWAYS = ("IMAP4rev1", "IMAP4rev2", "SASL-IR", "LITERAL+", "ENABLE", "ID", "IDLE")
_LOGGED_IN = (
    "IMAP4rev1",
    "IMAP4rev2",
    "LITERAL+",
    "ENABLE",
    "ID",
    "IDLE",
    "NAMESPACE",
    "QUOTA",
    "QUOTA=RES-STORAGE",
    "UNSELECT",
    "CHILDREN",
    "METADATA",
    "LIST-METADATA",
    "LIST-EXTENDED",
    "LIST-STATUS",
    "SPECIAL-USE",
    "CREATE-SPECIAL-USE",
    "UIDPLUS",
    "MOVE",
    "MULTIAPPEND",
    "ESEARCH",
    "SEARCHRES",
    "WITHIN",
    "BINARY",
    "STATUS=SIZE",
    "CONDSTORE",
    "QRESYNC",
    "OBJECTID",
    "SAVEDATE",
    "PREVIEW",
    "COMPRESS=DEFLATE",
)


def before_login(*, can_start_tls: bool, may_log_in: bool) -> list[str]:
    """For a client that has not logged in."""
    names = list(_ALWAYS)
    if can_start_tls:
        names.append("STARTTLS")
    if may_log_in:
        names += [f"AUTH={name}" for name in MECHANISMS]
    else:
        names.append("LOGINDISABLED")
    return names


def after_login(message_size: int) -> list[str]:
    """For a client that has logged in."""
    return [*_LOGGED_IN, f"APPENDLIMIT={message_size}"]
