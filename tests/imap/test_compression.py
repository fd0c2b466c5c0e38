"""COMPRESS=DEFLATE: both ways, with back-pressure, and against data made to harm (RFC 4978)."""

from __future__ import annotations

import base64
import os
import socket
import ssl
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailcore.imap.compression import SLICE, Compression
from tests.imap.conftest import Person
from tests.imap.running import HOST, Running
from tests.waiting import until


class Packed:
    """A client that has asked for compression."""

    def __init__(self, running: Running, person: Person, *, tls: bool = False) -> None:
        self.socket: socket.socket = socket.create_connection((HOST, running.tls_port if tls else running.port), 60)
        if tls:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            self.socket = context.wrap_socket(self.socket)
        self._deflater = zlib.compressobj(6, zlib.DEFLATED, -15)
        self._inflater = zlib.decompressobj(-15)
        self._buffer = bytearray()
        self.received = 0
        self._plain(b'a LOGIN %b "%b"\r\n' % (person.address.encode(), person.password.encode()))
        assert self._plain(b"b COMPRESS DEFLATE\r\n").endswith(b"b OK DEFLATE active\r\n")

    def _plain(self, command: bytes) -> bytes:
        self.socket.sendall(command)
        said = b""
        while not said.endswith(b"\r\n") or command[:2] not in said:
            said += self.socket.recv(1 << 16)
        return said

    def pack(self, data: bytes) -> bytes:
        return self._deflater.compress(data) + self._deflater.flush(zlib.Z_SYNC_FLUSH)

    def send(self, data: bytes) -> None:
        self.socket.sendall(self.pack(data))

    def until(self, end: bytes) -> bytes:
        """All that is said up to and including `end`."""
        searched = 0
        while (at := self._buffer.find(end, searched)) < 0:
            searched = max(0, len(self._buffer) - len(end))
            data = self.socket.recv(1 << 16)
            assert data, f"the server closed after {self._buffer[-200:]!r}"
            self.received += len(data)
            self._buffer += self._inflater.decompress(data)
        said = bytes(self._buffer[: at + len(end)])
        del self._buffer[: at + len(end)]
        return said

    def rest(self) -> bytes:
        """All that is said until the server closes."""
        said, self._buffer = bytes(self._buffer), bytearray()
        while data := self.socket.recv(1 << 16):
            said += self._inflater.decompress(data)
        return said

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
def packed(imap: Running, alice: Person) -> Iterator[Packed]:
    client = Packed(imap, alice)
    yield client
    client.close()


@pytest.mark.parametrize("tls", [False, True])
def test_commands_answers_and_messages_pass_compressed(imap: Running, alice: Person, tls: bool) -> None:
    packed = Packed(imap, alice, tls=tls)
    body = (
        b"Subject: hello\r\n\r\n" + b"The same line again and again.\r\n" * 20_000 + os.urandom(50_000).hex().encode()
    )
    packed.send(b"c APPEND INBOX {%d+}\r\n%b\r\n" % (len(body), body))
    assert packed.until(b"c OK").count(b"*") == 0
    packed.until(b"\r\n")
    before = packed.received
    packed.send(b"d SELECT INBOX\r\ne UID FETCH 1 (BODY.PEEK[])\r\n")
    assert body in packed.until(b"e OK FETCH completed\r\n")
    assert packed.received - before < len(body) // 3
    packed.send(b"f LOGOUT\r\n")
    assert packed.rest() == b"* BYE Logging out\r\nf OK LOGOUT completed\r\n"
    packed.close()


def test_octets_that_come_one_by_one_are_understood(packed: Packed) -> None:
    for octet in packed.pack(b"c NOOP\r\nd NOOP\r\n"):
        packed.socket.sendall(bytes([octet]))
    assert packed.until(b"d OK NOOP completed\r\n") == b"c OK NOOP completed\r\nd OK NOOP completed\r\n"


def test_idle_hears_of_mail_through_a_compressor_that_was_given_back(
    imap: Running, alice: Person, packed: Packed
) -> None:
    packed.send(b"c SELECT INBOX\r\n")
    packed.until(b"c OK")
    packed.send(b"d IDLE\r\n")
    packed.until(b"+ idling\r\n")
    until(lambda: len(imap.server.connections) == 1)  # those of the tests before may still be leaving
    (connection,) = imap.server.connections
    assert connection.compression is not None
    for _ in range(3):
        for _ in range(2):
            connection.compression.rest()
        assert connection.compression._deflater is None
        imap.deliver(alice.account_id, b"Subject: hi\r\n\r\nhello")
        packed.until(b"EXISTS\r\n")
    packed.send(b"DONE\r\n")
    packed.until(b"d OK IDLE completed\r\n")


def test_compression_starts_once_and_only_with_deflate(packed: Packed) -> None:
    packed.send(b"c COMPRESS DEFLATE\r\nd COMPRESS GZIP\r\ne COMPRESS\r\nf STARTTLS\r\ng NOOP\r\n")
    said = packed.until(b"e BAD ")
    assert said.startswith(b"c NO [COMPRESSIONACTIVE] DEFLATE is active already\r\nd NO [COMPRESSIONACTIVE] ")
    assert b"\r\nf BAD STARTTLS is not possible" in packed.until(b"g OK ")


def test_the_session_sees_no_plain_command_behind_the_switch(imap: Running, alice: Person) -> None:
    with socket.create_connection((HOST, imap.port), 60) as client:
        said = b""
        client.sendall(
            b'a LOGIN %b "%b"\r\nb COMPRESS DEFLATE\r\nc NOOP\r\n' % (alice.address.encode(), alice.password.encode())
        )
        while data := client.recv(1 << 16):
            said += data
    start = said.index(b"b OK DEFLATE active\r\n") + len(b"b OK DEFLATE active\r\n")
    assert zlib.decompressobj(-15).decompress(said[start:]) == b"* BYE The compressed data cannot be read\r\n"


@pytest.mark.parametrize("garbage", [b"\xff" * 100, b"\x03\x00", b"plain text\r\n"])
def test_data_that_cannot_be_read_ends_the_session(packed: Packed, garbage: bytes) -> None:
    packed.socket.sendall(garbage)
    assert packed.rest() == b"* BYE The compressed data cannot be read\r\n"


def test_a_bomb_is_inflated_a_slice_at_a_time(imap: Running, alice: Person) -> None:
    bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed_bomb = b"".join(bomb.compress(bytes(1 << 20)) for _ in range(100)) + bomb.flush(zlib.Z_SYNC_FLUSH)
    one = Compression()
    one.feed(packed_bomb)
    octets = 0
    while one.more:
        piece = one.take()
        assert len(piece) <= SLICE
        octets += len(piece)
    assert octets == 100 << 20

    client, other = Packed(imap, alice), Packed(imap, alice)
    client.socket.sendall(packed_bomb)
    other.send(b"c NOOP\r\n")
    other.until(b"c OK")
    assert b"* BYE Your input cannot be followed any more\r\n" in client.rest()
    client.close()
    other.close()


def test_a_thousand_commands_in_a_few_octets_take_turns_with_others(imap: Running, alice: Person) -> None:
    flood, other = Packed(imap, alice), Packed(imap, alice)
    begun = time.monotonic()
    flood.send(b"c NOOP\r\n" * 15_000 + b"d NOOP\r\n")
    waits = []
    for _ in range(5):
        started = time.monotonic()
        other.send(b"c NOOP\r\n")
        other.until(b"c OK")
        waits.append(time.monotonic() - started)
    assert flood.until(b"d OK NOOP completed\r\n").count(b"c OK") == 15_000
    assert min(waits) < (time.monotonic() - begun) / 3, "nobody waits until all of them are answered"
    flood.close()
    other.close()


def test_a_client_that_does_not_read_costs_a_bounded_buffer_and_loses_nothing(
    imap: Running, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imap.server, "limits", replace(imap.server.limits, output=64 * 1024))
    bodies = [b"Subject: noise\r\n\r\n" + os.urandom(2_000_000).hex().encode() for _ in range(5)]
    for body in bodies:
        imap.deliver(alice.account_id, body)
    client = Packed(imap, alice)
    client.send(b"c SELECT INBOX\r\n")
    client.until(b"c OK")
    until(lambda: len(imap.server.connections) == 1)  # those of the tests before may still be leaving
    (connection,) = imap.server.connections
    assert connection.transport is not None
    client.send(b"d FETCH 1:* (BODY.PEEK[])\r\n")
    most, deadline = 0, time.monotonic() + 60
    while connection._drained is None:  # the session waits for the client
        most = max(most, connection.transport.get_write_buffer_size())
        assert time.monotonic() < deadline
        time.sleep(0.005)
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        most = max(most, connection.transport.get_write_buffer_size())
        time.sleep(0.005)
    assert 0 < most < 64 * 1024 + 2 * SLICE, most
    said = client.until(b"d OK FETCH completed\r\n")
    assert all(body in said for body in bodies)
    client.close()


def test_a_quiet_session_keeps_only_the_decompressor() -> None:
    kept = []
    for _ in range(100):
        one = Compression()
        sender = zlib.compressobj(6, zlib.DEFLATED, -15)
        one.feed(sender.compress(b"a NOOP\r\n") + sender.flush(zlib.Z_SYNC_FLUSH))
        assert one.take() == b"a NOOP\r\n"
        one.deflate([b"a OK\r\n"])
        one.rest()
        one.rest()
        kept.append(one)
    assert all(one._deflater is None for one in kept)
    reader = zlib.decompressobj(-15)
    again = kept[0].deflate([b"b OK\r\n"])
    first = Compression().deflate([b"a OK\r\n"])
    assert reader.decompress(first + again) == b"a OK\r\nb OK\r\n"


TEXT, NOISE = b"a line of text as people write them\r\n" * 4000, base64.b64encode(os.urandom(150_000))
PIECES = st.lists(
    st.tuples(st.sampled_from([TEXT, NOISE]), st.integers(0, 1000), st.integers(0, 140_000)).map(
        lambda cut: cut[0][cut[1] : cut[1] + cut[2]]
    ),
    max_size=5,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(PIECES, max_size=5))
def test_packed_and_unpacked_pieces_are_one_stream(writes: list[list[bytes]]) -> None:
    ours, client = Compression(), zlib.decompressobj(-15)
    for pieces in writes:
        assert client.decompress(ours.deflate(pieces)) == b"".join(pieces), "all of it can be read at once"


def test_what_hardly_shrinks_is_not_packed() -> None:
    def spent(work: Callable[[], object]) -> float:
        times = []
        for _ in range(20):
            begun = time.thread_time()
            work()
            times.append(time.thread_time() - begun)
        return min(times)

    sent = Compression().deflate([NOISE])
    assert len(NOISE) < len(sent) < len(NOISE) + 100
    assert spent(lambda: Compression().deflate([NOISE])) < spent(lambda: zlib.compress(NOISE, 3)) / 3
    assert len(Compression().deflate([TEXT])) < len(TEXT) / 20
