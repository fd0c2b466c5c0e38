"""The search index's words: what of a text is indexed, and what of a query is looked up. No input or output.

A word is a run of letters and digits. Whatever stands inside a text, its runs stand inside the words of that text: a
run bounded on both sides in the query is a word, one at the query's end begins a word, one at its beginning ends one,
and a query that is nothing but one run occurs in a text if, and only if, it occurs in one of the text's words.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

# Names how words are made and segments laid out. Which characters are letters depends on Python's Unicode tables. An
# index of another version is not read, and built anew by the worker.
VERSION = f"1/{unicodedata.unidata_version}"

WORD = re.compile(r"[^\W_]+")
_DIGIT = re.compile(r"\d")

# Longer words are indexed as overlapping windows, so that each piece of up to WINDOW // 2 characters is in one of them.
WINDOW = 48
LONGEST_RUN = WINDOW // 2
SHORTEST_RUN = 3
# Runs of a query that are looked up; the text decides on the others.
RUNS = 2

# A filter tells in which blocks of words a gram may occur: hashed to one of so many slots.
SLOTS = 1 << 14
NATURAL_GRAM = 3
MACHINE_GRAM = 4
# Grams of a run that are asked for: more of them leave hardly fewer blocks.
GRAMS = 6


def words(text: str) -> set[str]:
    """The words of a folded text, long ones as windows."""
    found = set(WORD.findall(text))
    for word in [word for word in found if len(word) > WINDOW]:
        found.remove(word)
        found.update([word[at : at + WINDOW] for at in range(0, len(word) - WINDOW // 2, WINDOW // 2)])
    return found


def is_machine(word: str) -> bool:
    """Hashes, numbers and the like: kept apart, because their grams would make every filter full."""
    return len(word) >= 10 and _DIGIT.search(word) is not None


@dataclass(frozen=True, slots=True)
class Run:
    """Letters and digits of a query. `starts`, `ends`: a word must begin, or end, with them."""

    text: str
    starts: bool
    ends: bool

    @property
    def pattern(self) -> bytes:
        """What to look for among words that stand between line feeds."""
        return b"\n" * self.starts + self.text.encode() + b"\n" * self.ends


def runs(needle: str) -> tuple[list[Run], bool]:
    """The runs to look up for a folded query, and whether they alone decide; no runs: only the texts tell."""
    found = []
    for match in WORD.finditer(needle):
        text, ends = match[0], match.end() < len(needle)
        if len(text) > LONGEST_RUN:
            text, ends = text[:LONGEST_RUN], False
        if len(text) >= SHORTEST_RUN:
            found.append(Run(text, match.start() > 0, ends))
    decide = len(found) == 1 and found[0].text == needle
    found.sort(key=lambda run: -len(run.text))
    return found[:RUNS], decide


def slot(gram: str) -> int:
    return zlib.crc32(gram.encode()) & (SLOTS - 1)


def slots(found: Iterable[str], size: int) -> set[int]:
    """The slots of all grams of some words."""
    grams = {word[at : at + size] for word in found for at in range(len(word) - size + 1)}
    hashed = map(zlib.crc32, "\n".join(grams).encode().split(b"\n"))
    return {one & (SLOTS - 1) for one in hashed} if grams else set()


def asked_slots(text: str, size: int) -> list[int]:
    """The slots of at most GRAMS grams, spread over a run."""
    count = len(text) - size + 1
    if count <= GRAMS:
        return [slot(text[at : at + size]) for at in range(count)]
    return [slot(text[at : at + size]) for at in (n * (count - 1) // (GRAMS - 1) for n in range(GRAMS))]
