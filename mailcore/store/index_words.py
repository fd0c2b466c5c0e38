"""The search index's words: what of a text is indexed, and what of a query is looked up. No input or output.

A word is a run of letters, digits and the marks on them. Whatever stands inside a text, its runs stand inside the words
of that text: a run bounded on both sides in the query is a word, one at the query's end begins a word, one at its
beginning ends one, and a query that is nothing but one run occurs in a text if, and only if, it occurs in one of the
text's words.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

# Names how words are made and segments laid out. Which characters are letters depends on Python's Unicode tables. An
# index of another version is not read, and built anew by the worker.
VERSION = f"3/{unicodedata.unidata_version}"


def _word() -> re.Pattern[str]:
    """Any class of characters would do. Vowels of Indian scripts and of Thai are marks, and everything beyond the basic
    plane counts as a letter: named as ranges, the class is found in two thirds of the time that `\\w` takes."""
    basic = "".join(map(chr, (*range(0xD800), *range(0xF900, 0x10000))))
    marks = {char for char in re.findall(r"[\W]", basic) if unicodedata.category(char)[0] == "M"}
    kept = re.sub(r"[\W_]", lambda found: found[0] if found[0] in marks else "\0", basic)
    return re.compile(f"[{''.join(f'{run[0]}-{run[-1]}' for run in kept.split(chr(0)) if run)}\U00010000-\U0010ffff]+")


WORD = _word()
_DIGIT = re.compile(r"\d")
# Scripts in which two characters are a word, and texts have no spaces: Chinese, Japanese, Korean.
_DENSE = re.compile("[\u2e80-\U0010ffff]")
_DENSE_PAIR = re.compile("(?=([\u2e80-\U0010ffff]{2}))")

# Longer words are indexed as overlapping windows, so that each piece of up to WINDOW // 2 characters is in one of them.
WINDOW = 48
LONGEST_RUN = WINDOW // 2
SHORTEST_RUN = 3
SHORTEST_DENSE_RUN = 2
# Runs of a query that are looked up; the text decides on the others.
RUNS = 2
MACHINE_LENGTH = 10

# A filter tells in which blocks of words a gram may occur: hashed to one of so many slots. Short runs have one of their
# own: what is asked of the other would leave twenty times as many blocks if it were made of three letters.
SLOTS = 1 << 14
GRAM = 4
SHORT_GRAM = 3
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
    return (
        len(word) >= MACHINE_LENGTH and _DIGIT.search(word) is not None and (word.isascii() or not _DENSE.search(word))
    )


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
        if len(text) >= SHORTEST_RUN or _is_dense(text):
            found.append(Run(text, match.start() > 0, ends))
    decide = len(found) == 1 and found[0].text == needle
    found.sort(key=lambda run: -len(run.text))
    return found[:RUNS], decide


def slot(gram: str) -> int:
    return zlib.crc32(gram.encode()) & (SLOTS - 1)


def slots(found: Sequence[str], size: int) -> set[int]:
    """The slots of all grams of some words; with SHORT_GRAM also of all pairs of dense characters."""
    text = "\n".join(found)
    grams = set(map("".join, zip(*[text[at:] for at in range(size)], strict=False)))
    if size == SHORT_GRAM and not text.isascii():
        grams.update(_DENSE_PAIR.findall(text))
    wanted = "\0".join([gram for gram in grams if "\n" not in gram])
    return {one & (SLOTS - 1) for one in map(zlib.crc32, wanted.encode().split(b"\0"))} if wanted else set()


def asked_slots(text: str) -> list[int]:
    """The slots of at most GRAMS grams, spread over a run; of one that is shorter than a gram its own."""
    count = len(text) - GRAM + 1
    if count < 1:
        return [slot(text)]
    if count <= GRAMS:
        return [slot(text[at : at + GRAM]) for at in range(count)]
    return [slot(text[at : at + GRAM]) for at in (n * (count - 1) // (GRAMS - 1) for n in range(GRAMS))]


def _is_dense(text: str) -> bool:
    return len(text) >= SHORTEST_DENSE_RUN and len(_DENSE.findall(text)) == len(text)
