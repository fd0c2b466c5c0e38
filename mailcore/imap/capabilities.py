"""What the server announces, by state (RFC 9051 §6.1.1), and what ENABLE can switch on."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntFlag
from ipaddress import ip_address

from mailcore.conf import Conf


class Enabled(IntFlag):
    """Extensions that change what we send, as the client asked for them (RFC 5161; CONDSTORE also by using it)."""

    CONDSTORE = 1
    QRESYNC = 2
    IMAP4REV2 = 4
    UTF8 = 8
    UIDONLY = 16


ENABLE = {
    "CONDSTORE": Enabled.CONDSTORE,
    "QRESYNC": Enabled.QRESYNC | Enabled.CONDSTORE,
    "IMAP4REV2": Enabled.IMAP4REV2,
    "UTF8=ACCEPT": Enabled.UTF8,
    "UIDONLY": Enabled.UIDONLY,
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
    "ACL",
    "RIGHTS=kxte",
    "LIST-MYRIGHTS",
    "METADATA",
    "NOTIFY",
    "LIST-METADATA",
    "QUOTA",
    "QUOTA=RES-STORAGE",
    "QUOTA=RES-MESSAGE",
    "UNSELECT",
    "CHILDREN",
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
    "SORT",
    "SORT=DISPLAY",
    "ESORT",
    "I18NLEVEL=1",
    "THREAD=ORDEREDSUBJECT",
    "THREAD=REFERENCES",
    "THREAD=REFS",
    "PARTIAL",
    "CONTEXT=SEARCH",
    "CONTEXT=SORT",
    "MULTISEARCH",
    "SEARCH=FUZZY",
    "BINARY",
    "STATUS=SIZE",
    "CONDSTORE",
    "QRESYNC",
    "OBJECTID",
    "SAVEDATE",
    "PREVIEW",
    "COMPRESS=DEFLATE",
    "UTF8=ACCEPT",
    "CATENATE",
    "REPLACE",
    "UIDONLY",
    "UIDBATCHES",
    "INPROGRESS",
)


def before_login(*, can_start_tls: bool, mechanisms: Sequence[str]) -> list[str]:
    """For a client that has not logged in, and may do so by these SASL mechanisms."""
    names = list(_ALWAYS)
    if can_start_tls:
        names.append("STARTTLS")
    if mechanisms:
        names += [f"AUTH={name}" for name in mechanisms]
    else:
        names.append("LOGINDISABLED")
    return names


def after_login(message_size: int, messages: int, *, jmap: bool) -> list[str]:
    """For a client that has logged in: the size of a message and the number of messages that one command may handle.

    `jmap`: there is an address of JMAP to tell.
    """
    names = [*_LOGGED_IN, f"APPENDLIMIT={message_size}", f"MESSAGELIMIT={messages}"]
    if jmap:
        names.append("JMAPACCESS")
    return names


def jmap_url(conf: Conf) -> str | None:
    """Where JMAP's session is to be found, None when only the operator knows how the web is reached from outside."""
    path = ".well-known/jmap"
    if conf.proxies:
        return f"https://{conf.hostname}/{path}"
    try:
        loopback = ip_address(conf.bind).is_loopback
    except ValueError:
        loopback = conf.bind == "localhost"
    host = f"[{conf.bind}]" if ":" in conf.bind else conf.bind
    return f"http://{host}:{conf.http_port}/{path}" if loopback else None
