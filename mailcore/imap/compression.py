"""Raw deflate both ways of one connection (RFC 4978), with bounded memory and work.

What has come in is inflated in small pieces as the session asks for more, so a few octets that stand for megabytes cost
no more memory than they have themselves. What goes out may continue a raw deflate stream with a fresh compressor at any
flushed point: nothing ties it to what was sent before. So a quiet session gives its compressor back.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

# Level 3 packs answers of FETCH to 7 % at 380 MB/s, level 6 to 6 % at 150. A window of 16 kB costs 128 kB of memory.
_LEVEL, _WINDOW, _MEMORY = 3, -14, 7
# A piece of so many octets is looked at first: base64 of what is compressed already shrinks by a quarter at best, at
# 36 MB/s, and pulling a mailbox of 350 MB would take ten times as long as without.
_LARGE, _SAMPLE, _DENSE = 16 * 1024, 2048, 0.7
SLICE = 0xFFFF
"""Octets that are inflated or deflated in one go: as many as a block that is not compressed can hold."""


class Compression:
    """The two streams of a connection."""

    __slots__ = ("_deflater", "_inflater", "_pending", "_used", "more")

    def __init__(self) -> None:
        self._deflater: zlib._Compress | None = None
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        self._pending = bytearray()
        self._used = False
        self.more = False
        """There may be more to take."""

    def feed(self, data: bytes) -> int:
        """Add what has come, compressed; returns how many octets now wait."""
        if data:
            self._pending += data
            self.more = True
        return len(self._pending)

    def take(self) -> bytes:
        """The next octets, at most SLICE; look at `more`. Raises zlib.error for what is no deflate, or its end."""
        data = self._inflater.decompress(self._pending[:SLICE], SLICE)
        if self._inflater.eof:
            raise zlib.error("the stream has ended")
        taken = min(SLICE, len(self._pending)) - len(self._inflater.unconsumed_tail)
        del self._pending[:taken]
        # A full answer may have left some of it in the decompressor, even when it took all of the input.
        self.more = bool(self._pending) or len(data) == SLICE
        return data

    def deflate(self, pieces: Sequence[bytes | memoryview]) -> bytes:
        """What to send for these pieces, flushed: the client can read all of it. Nothing for nothing."""
        sent: list[bytes | memoryview] = []
        flushed = True
        for piece in _joined(pieces):
            if len(piece) >= _LARGE and _is_dense(piece):
                if self._deflater is not None and not flushed:
                    sent.append(self._deflater.flush(zlib.Z_SYNC_FLUSH))
                sent += _stored(piece)
                # Its next references would reach over what it has not seen: another one begins.
                self._deflater, flushed = None, True
                continue
            if self._deflater is None:
                self._deflater = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW, _MEMORY)
            sent.append(self._deflater.compress(piece))
            flushed = False
        if self._deflater is not None and not flushed:
            sent.append(self._deflater.flush(zlib.Z_SYNC_FLUSH))
        self._used = bool(pieces) or self._used
        return b"".join(sent)

    def rest(self) -> None:
        """Give back the compressor unless it was used since the last call."""
        if not self._used:
            self._deflater = None
        self._used = False


def slices(pieces: Iterable[bytes | memoryview]) -> Iterator[list[bytes | memoryview]]:
    """The same octets in groups of at most SLICE: a piece that is long enough to be looked at stays by itself."""
    group: list[bytes | memoryview] = []
    room = SLICE
    for piece in pieces:
        for at in range(0, len(piece), SLICE):
            part = memoryview(piece)[at : at + SLICE] if len(piece) > SLICE else piece
            if len(part) > room:
                yield group
                group, room = [], SLICE
            group.append(part)
            room -= len(part)
    if group:
        yield group


def _joined(pieces: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """Small neighbours as one: a call for each would cost more than packing it."""
    for large, some in groupby(pieces, lambda piece: len(piece) >= _LARGE):
        if large:
            yield from some
        else:
            yield b"".join(some)


def _is_dense(piece: bytes | memoryview) -> bool:
    """Whether packing would save little, judged by a sample from its middle: attachments in base64, mostly."""
    middle = len(piece) // 2
    sample = piece[middle : middle + _SAMPLE]
    return len(zlib.compress(sample, 1)) > _DENSE * len(sample)


def _stored(piece: bytes | memoryview) -> list[bytes | memoryview]:
    """A piece as blocks that are not compressed (RFC 1951 §3.2.4); whatever was sent before ends at an octet."""
    blocks: list[bytes | memoryview] = []
    for at in range(0, len(piece), SLICE):
        part = piece[at : at + SLICE]
        blocks += (struct.pack("<BHH", 0, len(part), len(part) ^ 0xFFFF), part)
    return blocks
