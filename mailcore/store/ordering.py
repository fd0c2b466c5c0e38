"""What messages are sorted and threaded by (RFC 5256, 5957): made once, when a message is stored."""

from __future__ import annotations

import hashlib
import struct
import unicodedata

from mailcore.mime import Addr, Summary, fold, is_reply

# The oldest ancestor and the nearest ones decide; a list of thousands is an attack.
MAX_REFERENCES = 100
_MAX_KEY = 200  # characters; who differs only after that may come in any order
SEPARATOR = "\x01"

PARTS = ("from", "to", "cc", "displayfrom", "displayto")
"""The parts of `sort_keys`, in this order."""


def subject(summary: Summary) -> str:
    """The base subject in the form that is compared."""
    return _form(summary.base_subject)


def _form(text: str) -> str:
    """For comparison octet by octet: an accent comes after its letter, in no case (RFC 5051 i;unicode-casemap)."""
    folded = fold(text).upper()
    return folded if folded.isascii() else unicodedata.normalize("NFD", folded)


def sort_keys(summary: Summary) -> str:
    """PARTS as they are compared, with SEPARATOR between them; empty where the message has no such address."""
    lists = (summary.from_, summary.to, summary.cc)
    names = [_local_part(people) for people in lists] + [_display(people) for people in lists[:2]]
    return SEPARATOR.join([_form(name).replace(SEPARATOR, " ") if name else "" for name in names])


def _local_part(people: tuple[Addr, ...]) -> str:
    """addr-mailbox of the first address."""
    return people[0].email.rpartition("@")[0][:_MAX_KEY] or people[0].email[:_MAX_KEY] if people else ""


def _display(people: tuple[Addr, ...]) -> str:
    """What a list of messages shows for the first address: its name, else the address itself (RFC 5957 §3)."""
    return (people[0].name or people[0].email)[:_MAX_KEY] if people else ""


def ancestry(summary: Summary) -> bytes:
    """Where a message stands in its thread: an octet, 1 if the subject says reply or forward; then 8 octets for each
    of its own Message-ID (zeros when it has none) and its references, oldest first (RFC 5256 §3)."""
    references = summary.references or summary.in_reply_to[:1]
    if len(references) > MAX_REFERENCES:
        references = references[:1] + references[1 - MAX_REFERENCES :]
    own = _hash(summary.message_id[0]) if summary.message_id else bytes(8)
    reply = summary.subject is not None and is_reply(summary.subject)
    return b"".join([b"\1" if reply else b"\0", own, *map(_hash, references)])


def _hash(message_id: str) -> bytes:
    if '"' in message_id:
        # <"a"@b> and <a@b> are the same identifier.
        message_id = message_id.replace('"', "").replace("\\", "")
    return hashlib.sha256(message_id.encode("utf-8", "replace")).digest()[:8]


def unpack(ancestors: bytes) -> tuple[bool, int, tuple[int, ...]]:
    """Whether it is a reply, its own number (0 = none) and its references' numbers, from `ancestry`."""
    own, *references = struct.unpack_from(f"!{len(ancestors) // 8}Q", ancestors, 1)
    return ancestors[0] == 1, own, tuple(references)
