"""The one form of text that is searched, for what is stored and for queries alike."""

from __future__ import annotations

import re
import unicodedata
from functools import cache

from mailcore.mime.charset import clean

# Changes whenever `fold` gives another result for some text; folded text of another version must be made anew.
FOLD_VERSION = 1

SPACES = re.compile(rb"  +")  # to be replaced by one
LONE_CR = re.compile(rb"\r(?!\n)")
_SHORT = 64  # longer ASCII is folded sooner as Latin-1
_MAX_MARKS = 30  # combining marks in a row; the Stream-Safe Text Format of UAX #15 draws the same line


def fold(text: str) -> str:
    """`text` for comparison: NFKC, case folded, runs of white space as one space, none at the ends.

    NUL and lone surrogates are dropped, and so are combining marks after the 30th in a row (normalising them takes
    quadratic time). Never raises.
    """
    if len(text) <= _SHORT and text.isascii() and "\0" not in text:
        return " ".join(text.lower().split())
    try:
        octets = text.encode("latin-1")
    except UnicodeEncodeError:
        pass
    else:
        if b"\xdf" in octets:
            octets = octets.replace(b"\xdf", b"ss")
        # Of CRLF the CR is dropped in passing.
        octets = octets.translate(_LATIN1, b"" if LONE_CR.search(octets) else b"\r")
        if b"\0" not in octets:
            if SPACES.search(octets):
                octets = SPACES.sub(b" ", octets)
            return octets.strip(b" ").decode("latin-1")
    # Some letters fold to several, which may have a form of their own together: ΐ as one letter and as capitals.
    text = unicodedata.normalize("NFKC", _normal(text).casefold())
    if "\0" in text:
        text = text.replace("\0", "")
    return " ".join(text.split())


def _latin1_table() -> bytes:
    """The fold of each Latin-1 character that folds to one Latin-1 character, NUL for the others."""
    table = bytearray(256)
    for code in range(1, 256):
        folded = unicodedata.normalize("NFKC", chr(code)).casefold()
        if folded.isspace():
            table[code] = 32
        elif len(folded) == 1 and ord(folded) < 256:
            table[code] = ord(folded)
    return bytes(table)


_LATIN1 = _latin1_table()  # most mail, several times faster than by way of normalisation


def _normal(text: str) -> str:
    """NFKC in linear time."""
    # The usual reasons why text is not in NFKC already, done in advance: finding it normal costs a tenth of making it.
    if "\xa0" in text:
        text = text.replace("\xa0", " ")
    if "\u2026" in text:
        text = text.replace("\u2026", "...")
    return unicodedata.normalize("NFKC", _stream_safe(text))


def _stream_safe(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        text = clean(text)
    if len(text) > 256:
        suspect, long_run = _mark_patterns()
        if suspect.search(text[:: _MAX_MARKS // 2]):  # every run that is too long shows in this sample
            text = long_run.sub(r"\1", text)
    return text


@cache
def _mark_patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """What may be a combining mark of those that normalisation sorts (quick), and a run of too many of them (exact)."""
    ranges: list[list[int]] = []
    for code in range(0x300, 0x1F000):  # there are none above
        if unicodedata.combining(chr(code)):
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    basic = "".join(f"{chr(low)}-{chr(high)}" for low, high in ranges if high < 0x10000)
    other = "".join(f"{chr(low)}-{chr(high)}" for low, high in ranges if high >= 0x10000)
    mark = f"[{basic}{other}]"
    suspect = re.compile(f"[{basic}\U00010000-\U0001efff]")
    return suspect, re.compile(f"({mark}{{{_MAX_MARKS}}}){mark}+")
