"""Encoders for everything that an IMAP server sends; no value can smuggle CR, LF or NUL into a line.

Functions take values and return bytes; those named *_line return a whole line with CRLF. `utf8` says that the client
enabled IMAP4rev2 or UTF8=ACCEPT and so takes UTF-8 in quoted strings. A value that cannot be written raises
ValueError: that is an error in the caller, not in the client.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from mailcore.wire.imap.mailbox_name import SEPARATOR, encode_utf7
from mailcore.wire.imap.numset import NumSet

CRLF = b"\r\n"
NIL = b"NIL"
MAX_QUOTED = 1_024
"""Octets; longer strings go as literals, which every client reads faster and no line limit bites."""

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_ATOM = re.compile(rb'[^\x00-\x20\x7f-\xff(){%*"\\\]]+')
_TAG = re.compile(rb'[^\x00-\x20\x7f-\xff(){%*"\\+]+')
_FLAG = re.compile(rb'\\?[^\x00-\x20\x7f-\xff(){%*"\\\]]+|\\\*')
_QUOTABLE = re.compile(rb"[^\x00\r\n\x80-\xff]*")
_ESCAPED = re.compile(rb'["\\]')
_UNSAFE = re.compile(rb"[\x00\r\n]")
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_OBJECT_ID = re.compile(rb"[A-Za-z0-9_-]{1,255}")
_STATUSES = frozenset(("OK", "NO", "BAD", "PREAUTH", "BYE"))


# -- strings


def _octets(value: str | bytes) -> bytes:
    # A lone surrogate can only come from broken data of ours; a "?" is better than a lost answer.
    return value.encode("utf-8", "replace") if isinstance(value, str) else value


def _quote(octets: bytes) -> bytes:
    return b'"%b"' % (_ESCAPED.sub(rb"\\\g<0>", octets) if b'"' in octets or b"\\" in octets else octets)


def _is_utf8(octets: bytes) -> bool:
    try:
        octets.decode()
    except UnicodeDecodeError:
        return False
    return _UNSAFE.search(octets) is None


def quoted(text: str, *, utf8: bool = False) -> bytes:
    """A quoted string. Raises ValueError for CR, LF, NUL, or non-ASCII without `utf8`."""
    octets = _octets(text)
    if _QUOTABLE.fullmatch(octets) or (utf8 and _is_utf8(octets)):
        return _quote(octets)
    raise ValueError("not a quoted string")


def literal_header(size: int, *, binary: bool = False) -> bytes:
    """What stands before the octets of a literal that are sent apart: {n} CRLF or ~{n} CRLF."""
    return b"~{%d}\r\n" % size if binary else b"{%d}\r\n" % size


def literal(data: bytes, *, binary: bool = False) -> bytes:
    """{n} CRLF data; binary: ~{n} (literal8, needed when data holds NUL)."""
    return literal_header(len(data), binary=binary) + data


def string(value: str | bytes, *, utf8: bool = False) -> bytes:
    """Quoted when the grammar allows it and the value is short, else a literal. NUL is dropped."""
    octets = _octets(value)
    if len(octets) <= MAX_QUOTED and (_QUOTABLE.fullmatch(octets) or (utf8 and _is_utf8(octets))):
        return _quote(octets)
    return literal(octets.replace(b"\0", b""))


def nstring(value: str | bytes | None, *, utf8: bool = False) -> bytes:
    """string, or NIL for None."""
    return NIL if value is None else string(value, utf8=utf8)


def astring(value: str | bytes, *, utf8: bool = False) -> bytes:
    """Atom when possible, else string."""
    octets = _octets(value)
    # NIL as an atom is the missing string to careless clients.
    if _ATOM.fullmatch(octets) and octets.upper() != NIL:
        return octets
    return string(octets, utf8=utf8)


def mailbox(name: str, *, utf8: bool = False) -> bytes:
    """A mailbox name as astring: modified UTF-7, or UTF-8 quoted when `utf8`."""
    return astring(name if utf8 else encode_utf7(_octets(name).decode()), utf8=utf8)


# -- lists and data


def paren(items: Iterable[bytes]) -> bytes:
    """(a b c)."""
    return b"(%b)" % b" ".join(items)


def atom(value: str) -> bytes:
    """An atom. Raises ValueError for what is none."""
    octets = _octets(value)
    if not _ATOM.fullmatch(octets):
        raise ValueError("not an atom")
    return octets


def _flag(flag: str) -> bytes:
    octets = _octets(flag)
    if not _FLAG.fullmatch(octets):
        raise ValueError("not a flag")
    return octets


def flag_list(flags: Iterable[str]) -> bytes:
    """(\\Seen $Junk); also for PERMANENTFLAGS, with its \\*, and LIST's attributes. ValueError for other values."""
    return paren(map(_flag, flags))


def internaldate(when: datetime) -> bytes:
    """'"17-Jul-1996 02:44:25 -0700"' with quotes; an aware datetime keeps its zone (sub-minute offsets are cut).

    Raises ValueError for a naive one.
    """
    offset = when.utcoffset()
    if offset is None:
        raise ValueError("a date without zone")
    minutes = int(offset.total_seconds() / 60)
    sign, minutes = ("-", -minutes) if minutes < 0 else ("+", minutes)
    month = _MONTHS[when.month - 1]
    day = f"{when.day:2d}-{month}-{when.year:04d} {when.hour:02d}:{when.minute:02d}:{when.second:02d}"
    return f'"{day} {sign}{minutes // 60:02d}{minutes % 60:02d}"'.encode()


# -- status responses


def text(words: str) -> bytes:
    """Human-readable text: control characters become spaces, "[" at the start (it would read as a code) gets a space
    before it, empty becomes "OK"."""
    clean = _CONTROLS.sub(" ", words).strip() or "OK"
    return _octets(f" {clean}" if clean.startswith("[") else clean)


def code(name: str, *args: bytes) -> bytes:
    """A resp-text-code without its brackets: code("UIDNEXT", b"17") -> b"UIDNEXT 17". Raises ValueError when unsafe."""
    return _checked_code(b" ".join((atom(name), *args)))


def _checked_code(octets: bytes) -> bytes:
    if not octets or b"]" in octets or _UNSAFE.search(octets):
        raise ValueError("not a response code")
    return octets


def status_line(tag: str | None, status: str, words: str, code: bytes | str | None = None) -> bytes:
    """`tag OK [code] words` CRLF; tag None is `*`; status is OK, NO, BAD, PREAUTH or BYE. ValueError when unsafe."""
    if status not in _STATUSES:
        raise ValueError("not a status")
    octets = b"*" if tag is None else _octets(tag)
    if tag is not None and not _TAG.fullmatch(octets):
        raise ValueError("not a tag")
    head = octets + b" " + status.encode() + b" "
    if code is not None:
        head += b"[%b] " % _checked_code(_octets(code))
    return head + text(words) + CRLF


def untagged_line(*parts: bytes) -> bytes:
    """`* part part` CRLF; the parts come from the encoders here."""
    return b"* " + b" ".join(parts) + CRLF


def continuation_line(words: str | bytes = "OK") -> bytes:
    """`+ words` CRLF; bytes (base64, perhaps empty) are sent as they are, ValueError if they hold CR, LF or NUL."""
    if isinstance(words, str):
        return b"+ " + text(words) + CRLF
    if _UNSAFE.search(words):
        raise ValueError("not a line")
    return b"+ " + words + CRLF


def capability_code(names: Sequence[str]) -> bytes:
    """CAPABILITY IMAP4rev1 ... as resp-text-code."""
    return b" ".join((b"CAPABILITY", *map(atom, names)))


def capability_line(names: Sequence[str]) -> bytes:
    """* CAPABILITY IMAP4rev1 ..."""
    return untagged_line(capability_code(names))


def enabled_line(names: Sequence[str]) -> bytes:
    """* ENABLED ..."""
    return untagged_line(b"ENABLED", *map(atom, names))


def id_line(fields: Mapping[str, str | None] | None) -> bytes:
    """* ID ("name" "Mailstead") or * ID NIL."""
    if not fields:
        return untagged_line(b"ID", NIL)
    return untagged_line(b"ID", paren(string(name) + b" " + nstring(value) for name, value in fields.items()))


def namespace_line(
    personal: Sequence[tuple[str, str]],
    other: Sequence[tuple[str, str]] = (),
    shared: Sequence[tuple[str, str]] = (),
    *,
    utf8: bool = False,
) -> bytes:
    """* NAMESPACE (("" "/")) NIL NIL from (prefix, separator) pairs."""
    return untagged_line(b"NAMESPACE", *(_namespace(kind, utf8) for kind in (personal, other, shared)))


def _namespace(kind: Sequence[tuple[str, str]], utf8: bool) -> bytes:
    if not kind:
        return NIL
    # Prefixes are quoted strings, never atoms (RFC 9051 §9, namespace-descr).
    return b"(%b)" % b"".join(
        paren((string(prefix if utf8 else encode_utf7(prefix), utf8=utf8), quoted(separator)))
        for prefix, separator in kind
    )


# -- mailboxes


def list_line(
    name: str,
    attributes: Sequence[str],
    *,
    command: str = "LIST",
    utf8: bool = False,
    childinfo: Sequence[str] = (),
    oldname: str | None = None,
    separator: str | None = SEPARATOR,
) -> bytes:
    """* LIST (\\HasNoChildren \\Sent) "/" Sent, with the extended items CHILDINFO (RFC 5258) and OLDNAME (RFC 9051)."""
    parts = [
        atom(command),
        flag_list(attributes),
        NIL if separator is None else quoted(separator),
        mailbox(name, utf8=utf8),
    ]
    extended = []
    if childinfo:
        extended.append(b'"CHILDINFO" ' + paren(quoted(option) for option in childinfo))
    if oldname is not None:
        extended.append(b'"OLDNAME" ' + paren((mailbox(oldname, utf8=utf8),)))
    if extended:
        parts.append(paren(extended))
    return untagged_line(*parts)


def status_data_line(name: str, values: Mapping[str, int | str | None], *, utf8: bool = False) -> bytes:
    """* STATUS name (MESSAGES 2 ...); a str value is an object id, written (id); None is NIL."""
    return untagged_line(
        b"STATUS", mailbox(name, utf8=utf8), paren(atom(item) + b" " + _status_value(v) for item, v in values.items())
    )


def _status_value(value: int | str | None) -> bytes:
    if value is None:
        return NIL
    if isinstance(value, int):
        return b"%d" % value
    return object_id(value)


def object_id(value: str) -> bytes:
    """(id), as EMAILID, THREADID and MAILBOXID are written (RFC 8474). Raises ValueError for what is no object id."""
    octets = _octets(value)
    if not _OBJECT_ID.fullmatch(octets):
        raise ValueError("not an object id")
    return b"(%b)" % octets


def flags_line(flags: Iterable[str]) -> bytes:
    """* FLAGS (...)."""
    return untagged_line(b"FLAGS", flag_list(flags))


# -- messages


def exists_line(count: int) -> bytes:
    """* 23 EXISTS."""
    return b"* %d EXISTS\r\n" % count


def recent_line(count: int) -> bytes:
    """* 5 RECENT (not in IMAP4rev2)."""
    return b"* %d RECENT\r\n" % count


def expunge_line(seq: int) -> bytes:
    """* 44 EXPUNGE."""
    return b"* %d EXPUNGE\r\n" % seq


def vanished_line(uids: NumSet, *, earlier: bool = False) -> bytes:
    """* VANISHED (EARLIER) 41,43:116 (RFC 7162 §3.2.10). Raises ValueError for an empty set."""
    return untagged_line(b"VANISHED (EARLIER)" if earlier else b"VANISHED", uids.format())


def fetch_line(seq: int, items: Iterable[bytes]) -> bytes:
    """* 12 FETCH (a b c); items are label and value already joined."""
    return b"* %d FETCH (%b)\r\n" % (seq, b" ".join(items))


def search_line(numbers: Iterable[int], *, name: str = "SEARCH", modseq: int | None = None) -> bytes:
    """* SEARCH 2 3 6 (MODSEQ 917162500), or * SORT of that form."""
    words = [f"* {name}", *map(str, numbers)]
    if modseq is not None:
        words.append(f"(MODSEQ {modseq})")
    return " ".join(words).encode() + CRLF


def esearch_line(
    tag: str,
    *,
    uid: bool,
    minimum: int | None = None,
    maximum: int | None = None,
    count: int | None = None,
    all: NumSet | Sequence[int] | None = None,
    modseq: int | None = None,
    partial: tuple[str, NumSet | Sequence[int]] | None = None,
    relevancy: Sequence[int] | None = None,
    mailbox: tuple[bytes, int] | None = None,
) -> bytes:
    """* ESEARCH (TAG "A1") UID MIN 2 ALL 2,10:15; None and an empty `all` are left out (RFC 4731 §3.1).

    A sequence keeps its order, as the answer to SORT must (RFC 5267 §3.2). `partial` is the range asked for and what is
    in it (RFC 9394), `relevancy` a score for each result (RFC 6203), `mailbox` the encoded name and UIDVALIDITY in
    answers about several (RFC 7377).
    """
    where = b" MAILBOX %b UIDVALIDITY %d" % mailbox if mailbox is not None else b""
    parts = [b"ESEARCH (TAG %b%b)" % (quoted(tag), where)]
    if uid:
        parts.append(b"UID")
    parts += [
        b"%b %d" % (name, value)
        for name, value in ((b"MIN", minimum), (b"MAX", maximum), (b"COUNT", count))
        if value is not None
    ]
    if all:
        parts.append(b"ALL " + _set(all))
    if partial is not None:
        asked, numbers = partial
        parts.append(b"PARTIAL (%b %b)" % (asked.encode("ascii"), _set(numbers) if numbers else NIL))
    if relevancy is not None:
        parts.append(b"RELEVANCY " + paren(b"%d" % score for score in relevancy))
    if modseq is not None:
        parts.append(b"MODSEQ %d" % modseq)
    return untagged_line(*parts)


def context_line(tag: str, *, uid: bool, item: str, changes: Iterable[tuple[int, NumSet | Sequence[int]]]) -> bytes:
    """* ESEARCH (TAG "A1") UID ADDTO (0 32768:32769): changes of a result at positions, 0 = its own (RFC 5267 §4.3)."""
    pairs = b" ".join([b"%d %b" % (position, _set(numbers)) for position, numbers in changes])
    return untagged_line(b"ESEARCH (TAG %b)" % quoted(tag), *([b"UID"] if uid else ()), atom(item), b"(%b)" % pairs)


def _set(numbers: NumSet | Sequence[int]) -> bytes:
    return numbers.format() if isinstance(numbers, NumSet) else _in_order(numbers)


def appenduid_code(uidvalidity: int, uids: NumSet) -> bytes:
    """APPENDUID 38505 3955 (RFC 4315)."""
    return b"APPENDUID %d %b" % (uidvalidity, uids.format())


def copyuid_code(uidvalidity: int, source: Sequence[int], target: Sequence[int]) -> bytes:
    """COPYUID 38505 304,319:320 3956:3958: the n-th of `source` became the n-th of `target`. Both in that order."""
    return b"COPYUID %d %b %b" % (uidvalidity, _in_order(source), _in_order(target))


def _in_order(numbers: Sequence[int]) -> bytes:
    """A set that expands to the numbers in the order given (NumSet would sort them). Raises ValueError when empty."""
    if not numbers:
        raise ValueError("an empty set has no IMAP spelling")
    words = []
    first = last = numbers[0]
    for number in (*numbers[1:], None):
        if number == last + 1:
            last = number
            continue
        words.append(f"{first}:{last}" if first != last else f"{first}")
        if number is not None:
            first = last = number
    return ",".join(words).encode()
