"""A segment of the index answers what a look at every word answers."""

from __future__ import annotations

from functools import reduce

from hypothesis import given, settings
from hypothesis import strategies as st

from mailcore import mime
from mailcore.store import index_segment
from mailcore.store.index_segment import Builder, Segment
from mailcore.store.index_words import WINDOW, WORD, Run, runs, words

# Few letters, so that queries hit; characters of one to four octets, digits, separators, long words.
_CHARACTERS = st.sampled_from("aab bcß_1 9-.éж中語𝒳\u0301\n\x01")
# What folds to several characters or composes, vowels that are marks, scripts without spaces, other digits, emoji.
_OTHERS = st.sampled_from(
    "İıſŉǰΐﬁﬄ½Ａ\u0345ͅάΣς ไทย้ำहिन्दीक्ष 한국가\u1100\u1161 日本語ガ\u3099 ٣१ ❤\ufe0f\u200d👩 \xad\u2060"
)
_PIECES = st.one_of(
    st.text(_OTHERS, max_size=20),
    st.text(st.sampled_from("中語日本1 "), max_size=20),
    st.text(_CHARACTERS, max_size=30),
    st.text("ab", min_size=WINDOW - 2, max_size=3 * WINDOW),
    st.text("abcdef0123", min_size=10, max_size=40),
)
texts = st.lists(_PIECES, max_size=4).map(lambda pieces: mime.fold(" ".join(pieces)))


def look_up(segment: Segment, run: Run) -> bytearray:
    rows = dict(segment.filters)
    asked = index_segment.filter_rows(run, segment.natural, segment.machine)
    found = bytearray(2 * segment.messages)
    for number in index_segment.blocks_of(run, segment.natural, segment.machine, {row: rows[row] for row in asked}):
        index_segment.mark(run, *segment.blocks[number], found)
    return found


def found_by(segment: Segment, needle: str, part: index_segment.Part) -> tuple[set[int], bool] | None:
    wanted, decide = runs(needle)
    if not wanted:
        return None
    marked = reduce(index_segment.both, [index_segment.messages(look_up(segment, run), part) for run in wanted])
    found = index_segment.numbers(segment.first, segment.documents, marked)
    packed = index_segment.bits(segment.documents, marked)
    assert [segment.first + at for at in range(packed.bit_length()) if packed >> at & 1] == found
    return set(found), decide


@given(
    st.lists(st.tuples(texts, texts), min_size=1, max_size=12),
    st.lists(st.integers(1, 3), min_size=12, max_size=12),
    st.data(),
)
@settings(max_examples=300, deadline=None)
def test_nothing_is_missed_and_what_words_decide_is_right(documents, steps, data):
    builder = Builder()
    docno, stored = 5, {}
    for (header, body), step in zip(documents, steps, strict=False):
        builder.add(docno, "", header, body)
        stored[docno] = (header, body)
        docno += step
    segment = builder.finish(5, docno)
    whole = "\n".join(f"{header}\x01{body}" for header, body in documents)
    for _ in range(10):
        at = data.draw(st.integers(0, max(0, len(whole) - 1)))
        needle = mime.fold(data.draw(st.one_of(texts, st.just(whole[at : at + data.draw(st.integers(1, 60))]))))
        for part in ("header", "body", "any"):
            answer = found_by(segment, needle, part)
            if answer is None:
                continue
            maybe, decide = answer
            scan = {
                number
                for number, (header, body) in stored.items()
                if needle in {"header": header, "body": body, "any": f"{header}\x01{body}"}[part]
            }
            assert scan <= maybe
            if decide:
                assert scan == maybe


def test_two_chinese_characters_are_a_word_and_vowel_signs_belong_to_theirs():
    builder = Builder()
    builder.add(1, "", "中文郵件", "हिन्दी में")
    builder.add(2, "", "中立文書2026年第12期", "मुंबई")
    segment = builder.finish(1, 3)
    assert segment.machine == 0
    assert found_by(segment, "中文", "any") == ({1}, True)
    assert found_by(segment, "文書", "header") == ({2}, True)
    assert found_by(segment, "文中", "any") == (set(), True)
    assert found_by(segment, "हिन्दी", "body") == ({1}, True)
    assert found_by(segment, "中", "any") is None, "one character is not looked up"


def test_many_blocks():
    builder = Builder()
    for docno in range(1, 400):
        builder.add(
            docno, "", f"all {docno}", " ".join(f"w{docno}x{n} {docno * 7919 + n:x}deadbeef" for n in range(40))
        )
    segment = builder.finish(1, 400)
    assert segment.natural > 20 and segment.machine > 20
    assert found_by(segment, "w7x13", "body") == ({7}, True)
    assert found_by(segment, f"{7 * 7919 + 3:x}deadbeef", "body") == ({7}, True)
    assert found_by(segment, "all", "header") == (set(range(1, 400)), True)
    assert found_by(segment, "all", "body") == (set(), True)
    assert found_by(segment, "beef", "any") == (set(range(1, 400)), True)


def test_a_column_that_a_long_header_lost_can_be_found_and_is_not_decided():
    builder = Builder()
    builder.add(1, "lost", "header", "body")
    segment = builder.finish(1, 2)
    assert not segment.decides
    assert found_by(segment, "lost", "header") == ({1}, True)


@given(st.text("ab", max_size=4 * WINDOW))
def test_every_short_piece_of_a_long_word_is_in_a_window(text):
    found = words(text)
    assert all(len(word) <= WINDOW and WORD.fullmatch(word) for word in found)
    for at in range(len(text)):
        assert any(text[at : at + WINDOW // 2] in word for word in found)
