"""The end of DATA, dot-stuffing, and the octets that are refused: whole, cut anywhere, and byte by byte."""

from __future__ import annotations

import re
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailcore.wire.smtp import data
from mailcore.wire.smtp.data import END, DotReader, Fault, OctetCheck, dot_stuff

LINE = st.lists(st.sampled_from([b".", b"..", b"a", b" ", b"\xc3\xa9", b"end"]), max_size=4).map(b"".join)
MESSAGE = st.lists(LINE, max_size=8).map(lambda lines: b"".join(line + b"\r\n" for line in lines))
SOUP = st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b".", b"a", b"\0", b"\r\n.\r\n", b"\n.\n"]), max_size=14).map(
    b"".join
)
CUTS = st.lists(st.integers(0, 60), max_size=6)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    points = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(points)]


def read(chunks: list[bytes]) -> tuple[bytes, bytes, DotReader]:
    reader, out, rest = DotReader(), b"", b""
    for chunk in chunks:
        if reader.done:
            rest += chunk
            continue
        out += reader.feed(chunk)
        if reader.done:
            rest = reader.rest
    return out, rest, reader


@given(MESSAGE, SOUP, CUTS)
def test_a_message_comes_out_as_it_was_and_what_follows_stays_unread(
    message: bytes, tail: bytes, cuts: list[int]
) -> None:
    stream = dot_stuff(message) + tail
    for chunks in (pieces(stream, cuts), [stream], [stream[i : i + 1] for i in range(len(stream))]):
        out, rest, reader = read(chunks)
        assert reader.done
        assert out == message
        assert rest == tail
        assert reader.check.finish() is None


@given(SOUP, st.integers(1, 9))
def test_large_messages_are_worked_on_in_pieces_to_the_same_end(soup: bytes, piece: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "PIECE", piece)
        cut = b"".join(data.pieces(soup)), dot_stuff(soup), data.newlines_are_pairs(soup)
    assert cut == (soup, dot_stuff(soup), data.newlines_are_pairs(soup))
    assert cut[2] == (b"\r" not in (left := soup.replace(b"\r\n", b"")) and b"\n" not in left)


@given(SOUP, CUTS)
def test_any_octets_give_the_same_result_however_they_are_cut(soup: bytes, cuts: list[int]) -> None:
    whole, cut = read([soup]), read(pieces(soup, cuts))
    single = read([soup[i : i + 1] for i in range(len(soup))])
    for other in (cut, single):
        assert other[:2] == whole[:2]
        assert other[2].done == whole[2].done
        if whole[2].done:
            assert (other[2].check.finish() is None) == (whole[2].check.finish() is None)
            assert (other[2].check.fault is Fault.BARE_NEWLINE) == (whole[2].check.fault is Fault.BARE_NEWLINE)
    at = (b"\r\n" + soup).find(END)
    assert whole[2].done == (at >= 0)
    if at >= 0:
        body = soup[:at]
        bare = re.search(rb"\r(?!\n)|(?<!\r)\n", body)
        fault = whole[2].check.finish()
        assert (fault is Fault.BARE_NEWLINE) == (bare is not None)
        assert (fault is Fault.NUL) == (bare is None and b"\0" in body)


@given(SOUP, CUTS)
def test_the_octet_check_of_bdat_does_not_depend_on_chunks(soup: bytes, cuts: list[int]) -> None:
    whole, cut = OctetCheck(), OctetCheck()
    whole.feed(soup)
    for piece in pieces(soup, cuts):
        cut.feed(piece)
    faults = whole.finish(), cut.finish()
    assert (faults[0] is Fault.BARE_NEWLINE) == (faults[1] is Fault.BARE_NEWLINE)
    assert (faults[0] is None) == (faults[1] is None)
    assert (faults[0] is Fault.BARE_NEWLINE) == (re.search(rb"\r(?!\n)|(?<!\r)\n", soup) is not None)


@pytest.mark.parametrize(
    "smuggled",
    [b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r.\r\n", b"\r\n.\n", b"\r\n.\r", b"\r\r\n.\r\r\n", b"\n.\r", b"\r\n\0.\r\n\n"],
)
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_other_ends_of_data_do_not_end_it_and_are_refused(smuggled: bytes, size: int) -> None:
    """CVE-2023-51764 (Postfix), CVE-2023-51765 (Sendmail), CVE-2023-51766 (Exim)."""
    inside = b"Subject: a\r\n\r\ntext" + smuggled + b"MAIL FROM:<evil@example.org>\r\nRCPT TO:<ann@example.org>\r\n"
    stream = inside + b".\r\n"
    out, rest, reader = read([stream[i : i + size] for i in range(0, len(stream), size)])
    assert reader.done
    assert rest == b""
    assert b"MAIL FROM:<evil" in out
    assert reader.check.finish() is Fault.BARE_NEWLINE


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize("smuggled", [b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r\n.\n", b"x\r\n.\rM", b"\r\n.\r\r\n"])
def test_a_lone_dot_beside_a_bare_newline_is_noticed_before_the_end(smuggled: bytes, size: int) -> None:
    reader, stream = DotReader(), b"text\r\n\r\ntext" + smuggled + b"MAIL FROM:<evil@example.org>\r\n"
    for i in range(0, len(stream), size):
        reader.feed(stream[i : i + size])
    assert not reader.done
    assert reader.check.dot_line


def test_a_carriage_return_at_the_edge_of_a_chunk_is_not_bare() -> None:
    check = OctetCheck()
    for piece in (b"a\r", b"\nb\r", b"\n"):
        check.feed(piece)
    assert check.finish() is None
    check = OctetCheck()
    check.feed(b"a\r")
    assert check.finish() is Fault.BARE_NEWLINE


def test_the_empty_message() -> None:
    assert read([b".\r\nQUIT\r\n"])[:2] == (b"", b"QUIT\r\n")


def test_the_cost_is_linear_whole_and_byte_by_byte() -> None:
    # Nearly-ends and dots all over: the worst for whoever searches again what was searched before.
    stream = dot_stuff(b"\r\n.\r" * 20_000 + b"\r\n")

    def cost(size: int, count: int) -> float:
        data, reader = stream[:count], DotReader()
        began = time.process_time()
        for i in range(0, len(data), size):
            reader.feed(data[i : i + size])
        return time.process_time() - began

    for size in (1, 1 << 20):
        small = min(cost(size, len(stream) // 8) for _ in range(3))
        large = min(cost(size, len(stream)) for _ in range(3))
        assert large < 8 * small * 3 + 0.01
