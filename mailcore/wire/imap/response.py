"""Encoders for everything that an IMAP server sends; no value can smuggle CR, LF or NUL into a line.

Functions take values and return bytes. Those named *_line return a whole line with CRLF.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from mailcore.wire.imap.numset import NumSet

CRLF = b"\r\n"
NIL = b"NIL"


def quoted(text: str, *, utf8: bool = False) -> bytes:
    """A quoted string. Raises ValueError for CR, LF, NUL, or non-ASCII without `utf8`."""
    raise NotImplementedError


def literal(data: bytes, *, binary: bool = False) -> bytes:
    """{n} CRLF data; binary: ~{n} (literal8, needed when data holds NUL)."""
    raise NotImplementedError


def string(value: str | bytes, *, utf8: bool = False) -> bytes:
    """Quoted when the grammar allows it and the value is short, else a literal. NUL is dropped."""
    raise NotImplementedError


def nstring(value: str | bytes | None, *, utf8: bool = False) -> bytes:
    """string, or NIL for None."""
    raise NotImplementedError


def astring(value: str | bytes, *, utf8: bool = False) -> bytes:
    """Atom when possible, else string."""
    raise NotImplementedError


def mailbox(name: str, *, utf8: bool = False) -> bytes:
    """A mailbox name as astring: modified UTF-7, or UTF-8 quoted when `utf8`."""
    raise NotImplementedError


def flag_list(flags: Iterable[str]) -> bytes:
    """(\\Seen $Junk). Raises ValueError for a flag that is not an atom."""
    raise NotImplementedError


def internaldate(when: datetime) -> bytes:
    """'"17-Jul-1996 02:44:25 -0700"' with quotes; an aware datetime keeps its zone (sub-minute offsets are cut)."""
    raise NotImplementedError


def paren(items: Iterable[bytes]) -> bytes:
    """(a b c)."""
    raise NotImplementedError


def text(words: str) -> bytes:
    """Human-readable text: control characters become spaces, non-ASCII is kept as UTF-8, "[" at the start is escaped by a space, empty becomes "OK"."""
    raise NotImplementedError


def code(name: str, *args: bytes) -> bytes:
    """A resp-text-code without its brackets: code("UIDNEXT", b"17") -> b"UIDNEXT 17"."""
    raise NotImplementedError


def status_line(tag: str | None, status: str, words: str, code: bytes | str | None = None) -> bytes:
    """`tag OK [code] words` CRLF; tag None is `*`; status is OK, NO, BAD, PREAUTH or BYE."""
    raise NotImplementedError


def untagged_line(*parts: bytes) -> bytes:
    """`* part part` CRLF."""
    raise NotImplementedError


def continuation_line(words: str | bytes = "OK") -> bytes:
    """`+ words` CRLF; bytes are sent as they are (base64)."""
    raise NotImplementedError


def capability_line(names: Sequence[str]) -> bytes:
    raise NotImplementedError


def capability_code(names: Sequence[str]) -> bytes:
    """CAPABILITY IMAP4rev1 ... as resp-text-code."""
    raise NotImplementedError


def list_line(
    name: str,
    attributes: Sequence[str],
    *,
    command: str = "LIST",
    utf8: bool = False,
    childinfo: Sequence[str] = (),
    oldname: str | None = None,
    separator: str | None = "/",
) -> bytes:
    """* LIST (\\HasNoChildren \\Sent) "/" Sent, with the extended items CHILDINFO (RFC 5258) and OLDNAME (RFC 9051)."""
    raise NotImplementedError


def status_data_line(name: str, values: Mapping[str, int | str | None], *, utf8: bool = False) -> bytes:
    """* STATUS name (MESSAGES 2 ...); a str value is an object id, written (id); None is NIL."""
    raise NotImplementedError


def search_line(numbers: Iterable[int], *, modseq: int | None = None) -> bytes:
    """* SEARCH 2 3 6 (MODSEQ 917162500)."""
    raise NotImplementedError


def esearch_line(
    tag: str,
    *,
    uid: bool,
    minimum: int | None = None,
    maximum: int | None = None,
    count: int | None = None,
    all: NumSet | None = None,
    modseq: int | None = None,
) -> bytes:
    """* ESEARCH (TAG "A1") UID MIN 2 ALL 2,10:15; None and an empty `all` are left out (RFC 4731 §3.1)."""
    raise NotImplementedError


def expunge_line(seq: int) -> bytes:
    raise NotImplementedError


def exists_line(count: int) -> bytes:
    raise NotImplementedError


def recent_line(count: int) -> bytes:
    raise NotImplementedError


def vanished_line(uids: NumSet, *, earlier: bool = False) -> bytes:
    """* VANISHED (EARLIER) 41,43:116 (RFC 7162 §3.2.10)."""
    raise NotImplementedError


def flags_line(flags: Iterable[str]) -> bytes:
    """* FLAGS (...)."""
    raise NotImplementedError


def enabled_line(names: Sequence[str]) -> bytes:
    """* ENABLED ..."""
    raise NotImplementedError


def id_line(fields: Mapping[str, str | None] | None) -> bytes:
    """* ID ("name" "Mailstead") or * ID NIL."""
    raise NotImplementedError


def namespace_line(
    personal: Sequence[tuple[str, str]],
    other: Sequence[tuple[str, str]] = (),
    shared: Sequence[tuple[str, str]] = (),
    *,
    utf8: bool = False,
) -> bytes:
    """* NAMESPACE (("" "/")) NIL NIL from (prefix, separator) pairs."""
    raise NotImplementedError


def fetch_line(seq: int, items: Iterable[bytes]) -> bytes:
    """* 12 FETCH (a b c); items are label and value already joined."""
    raise NotImplementedError


def appenduid_code(uidvalidity: int, uids: NumSet) -> bytes:
    """APPENDUID 38505 3955 (RFC 4315)."""
    raise NotImplementedError


def copyuid_code(uidvalidity: int, source: Sequence[int], target: Sequence[int]) -> bytes:
    """COPYUID 38505 304,319:320 3956:3958; both sequences in the same order, ranges kept pairwise equal in count."""
    raise NotImplementedError
