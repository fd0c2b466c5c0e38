"""The one form of text that is searched, for what is stored and for queries alike."""

from __future__ import annotations

import re
import unicodedata
from functools import cache

from mailcore.mime.charset import clean

# Changes whenever `fold` gives another result for some text; folded text of another version must be made anew.
FOLD_VERSION = 1

_MAX_MARKS = 30  # combining marks in a row; the Stream-Safe Text Format of UAX #15 draws the same line


def fold(text: str) -> str:
    """`text` for comparison: NFKC, case folded, runs of white space as one space, none at the ends.

    NUL and lone surrogates are dropped, and so are combining marks after the 30th in a row (normalising them takes
    quadratic time). Never raises.
    """
    return " ".join(fold_keeping_space(text).split())


def fold_keeping_space(text: str) -> str:
    """`fold` that leaves white space as it is."""
    if text.isascii():
        text = text.lower()
    else:
        text = _normal(text).casefold()
    return text.replace("\0", "") if "\0" in text else text


def _normal(text: str) -> str:
    """NFKC in linear time."""
    # The usual reasons why text is not in NFKC already, done in advance: finding it normal costs a tenth of making it.
    if "\xa0" in text:
        text = text.replace("\xa0", " ")
    if "\u2026" in text:
        text = text.replace("\u2026", "...")
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        text = _stream_safe(text)
    return unicodedata.normalize("NFKC", text)


def _stream_safe(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        text = clean(text)
    if len(text) > 256:
        mark, long_run = _mark_patterns()
        if mark.search(text[:: _MAX_MARKS // 2]):  # every run that is too long shows in this sample
            text = long_run.sub(r"\1", text)
    return text


@cache
def _mark_patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """A combining mark (those that normalisation sorts), and a run of too many of them. All are below U+1F000."""
    ranges: list[list[int]] = []
    for code in range(0x300, 0x1F000):
        if unicodedata.combining(chr(code)):
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    mark = "[" + "".join(f"{chr(low)}-{chr(high)}" for low, high in ranges) + "]"
    return re.compile(mark), re.compile(f"({mark}{{{_MAX_MARKS}}}){mark}+")
