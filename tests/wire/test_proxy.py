"""The PROXY header: what it says, that nothing beyond it is read, and that nonsense is refused."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailcore.wire.proxy import MAX_V2, SIGNATURE, Header, ProxyError

REST = b"\x16\x03\x01 what follows belongs to TLS"
V4 = bytes([192, 0, 2, 7, 198, 51, 100, 1]) + struct.pack("!HH", 56324, 25)
V6 = bytes.fromhex("20010db800000000000000000000000720010db8000000000000000000000001") + struct.pack("!HH", 1, 25)
MAPPED = bytes(10) + b"\xff\xff" + bytes([192, 0, 2, 7]) + bytes(16) + bytes(4)


def second(command: int, family: int, rest: bytes) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(rest)) + rest


HEADERS: list[tuple[bytes, str | None]] = [
    (b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 25\r\n", "192.0.2.7"),
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255"),
    (b"PROXY TCP6 2001:db8::7 2001:db8::1 1 25\r\n", "2001:db8::7"),
    (b"PROXY TCP6 2001:DB8:0:0:0:0:0:7 ::1 1 25\r\n", "2001:db8::7"),
    (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 1 25\r\n", "192.0.2.7"),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", None),
    (second(0x21, 0x11, V4), "192.0.2.7"),
    (second(0x21, 0x11, V4 + b"\x03\x00\x04abcd\x04\x00\x00"), "192.0.2.7"),
    (second(0x21, 0x21, V6), "2001:db8::7"),
    (second(0x21, 0x21, MAPPED), "192.0.2.7"),
    (second(0x21, 0x31, bytes(216)), None),
    (second(0x21, 0x00, b""), None),
    (second(0x21, 0x00, b"x" * 300), None),
    (second(0x20, 0x00, b""), None),
    (second(0x20, 0x11, V4), None),
    (second(0x20, 0x77, bytes(MAX_V2)), None),
]


def read(octets: bytes, most: int = 1 << 20) -> tuple[Header, bytes]:
    """Let a header take what it wants of the octets; what is left of them."""
    header = Header()
    while header.wants and octets:
        size = min(header.wants, most)
        header.feed(octets[:size])
        octets = octets[size:]
    return header, octets


@pytest.mark.parametrize(("octets", "source"), HEADERS)
@pytest.mark.parametrize("most", [1, 3, 1 << 20])
def test_a_header_says_who_the_client_is_and_takes_nothing_else(octets: bytes, source: str | None, most: int) -> None:
    header, rest = read(octets + REST, most)
    assert (header.wants, header.source, rest) == (0, source, REST)


@pytest.mark.parametrize("octets", [octets for octets, _ in HEADERS])
def test_an_incomplete_header_wants_more(octets: bytes) -> None:
    for size in range(len(octets)):
        header, _ = read(octets[:size])
        assert header.wants > 0


@pytest.mark.parametrize(
    "octets",
    [
        b"EHLO client.example\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello",
        b"PROXY\r\n" + bytes(20),
        b"proxy TCP4 192.0.2.7 198.51.100.1 1 25\r\n",
        b"PROXY  TCP4 192.0.2.7 198.51.100.1 1 25\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 1\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 1 25 \r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 1 65536\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 01 25\r\n",
        b"PROXY TCP4 192.0.2.256 198.51.100.1 1 25\r\n",
        b"PROXY TCP4 192.0.2.07 198.51.100.1 1 25\r\n",
        b"PROXY TCP4 2001:db8::7 2001:db8::1 1 25\r\n",
        b"PROXY TCP6 192.0.2.7 198.51.100.1 1 25\r\n",
        b"PROXY TCP6 fe80::1%eth0 ::1 1 25\r\n",
        b"PROXY UDP4 192.0.2.7 198.51.100.1 1 25\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 1 25\n" + bytes(80),
        b"PROXY TCP4 192.0.2.7\r 198.51.100.1 1 25\r\n",
        b"PROXY UNKNOWN " + b"x" * 200 + b"\r\n",
        SIGNATURE[:11] + b"\r" + bytes(30),
        second(0x11, 0x11, V4),
        second(0x22, 0x11, V4),
        second(0x21, 0x12, V4),
        second(0x21, 0x11, V4[:-1]),
        second(0x21, 0x21, V4),
        second(0x21, 0x99, V6),
        second(0x21, 0x11, bytes(MAX_V2 + 1)),
    ],
)
@pytest.mark.parametrize("most", [1, 1 << 20])
def test_nonsense_is_refused(octets: bytes, most: int) -> None:
    with pytest.raises(ProxyError):
        read(octets, most)


@given(st.sampled_from([b"", b"PROXY ", SIGNATURE]), st.binary(max_size=200), st.integers(1, 9))
def test_no_octets_break_it(start: bytes, octets: bytes, most: int) -> None:
    try:
        header, _ = read(start + octets, most)
    except ProxyError:
        return
    assert header.wants <= MAX_V2


@given(st.ip_addresses(), st.integers(0, 65535), st.binary(max_size=50))
def test_any_address_survives_both_versions(address: object, port: int, rest: bytes) -> None:
    kind = "TCP4" if "." in str(address) and ":" not in str(address) else "TCP6"
    other = "192.0.2.1" if kind == "TCP4" else "::1"
    line = f"PROXY {kind} {address} {other} {port} 25\r\n".encode()
    mapped = getattr(address, "ipv4_mapped", None)
    header, left = read(line + rest)
    assert (header.source, left) == (str(mapped or address), rest)
    packed = address.packed  # type: ignore[attr-defined]
    family = 0x11 if len(packed) == 4 else 0x21
    header, left = read(second(0x21, family, packed * 2 + struct.pack("!HH", port, 25)) + rest)
    assert (header.source, left) == (str(mapped or address), rest)
