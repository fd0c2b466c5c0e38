"""The PROXY protocol of HAProxy, versions 1 and 2: whose connection it is that a balancer passes on; sans I/O.

What follows the header belongs to somebody else, a TLS handshake perhaps. `Header.wants` therefore says how many
octets can be read next without reading beyond the header, whatever they turn out to be.
"""

from __future__ import annotations

import ipaddress
import re
import struct

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
NO_PROXY = b"PROXY UNKNOWN\r\n"
"""What a balancer sends when the connection is its own."""
MAX_V1 = 107
"""Octets of the longest line of version 1, with its CRLF."""
MAX_V2 = 4_096
"""Octets that we take behind the fixed part of version 2: addresses, and what else the balancer tells."""

_FIXED = 16
_LINE = re.compile(rb"PROXY (?:UNKNOWN(?: [^\r\n]*)?|(TCP4|TCP6) ([0-9A-Fa-f.:]+) ([0-9A-Fa-f.:]+) ([0-9]+) ([0-9]+))")
_LOCAL, _PROXY = 0x20, 0x21
# Family and transport: how long the addresses are. UNSPEC and Unix sockets name nobody.
_ADDRESSES = {0x00: 0, 0x11: 12, 0x21: 36, 0x31: 216}


class ProxyError(Exception):
    """It is not a PROXY header, or one that says nothing sensible."""


class Header:
    """A header as it arrives: give `feed` at most `wants` octets until that is 0; then look at `source`."""

    __slots__ = ("_buffer", "source", "wants")

    def __init__(self) -> None:
        self._buffer = b""
        self.wants = len(NO_PROXY)
        self.source: str | None = None
        """The client's address; None when the connection is the balancer's own, or it does not know."""

    def feed(self, octets: bytes) -> None:
        """Take the next octets. Raises ProxyError."""
        if len(octets) > self.wants:
            raise ValueError("more octets than the header wants")
        self._buffer += octets
        self.wants -= len(octets)
        start = self._buffer[: len(SIGNATURE)]
        if not (SIGNATURE.startswith(start) or b"PROXY ".startswith(start[:6])):
            raise ProxyError("not a PROXY header")
        if not self.wants:
            self._look()

    def _look(self) -> None:
        buffer = self._buffer
        if buffer.startswith(SIGNATURE):
            if len(buffer) < _FIXED:
                self.wants = _FIXED - len(buffer)
                return
            command, family, size = struct.unpack("!BBH", buffer[12:16])
            if size > MAX_V2:
                raise ProxyError("the header is too long")
            self.wants = _FIXED + size - len(buffer)
            if not self.wants:
                self.source = _second(command, family, buffer[_FIXED:])
        elif buffer.endswith(b"\r\n"):
            self.source = _first(buffer[:-2])
        elif len(buffer) >= MAX_V1:
            raise ProxyError("the line is too long")
        else:
            self.wants = 1 if buffer.endswith(b"\r") or len(buffer) == MAX_V1 - 1 else 2


def _first(line: bytes) -> str | None:
    found = _LINE.fullmatch(line)
    if found is None:
        raise ProxyError("the line cannot be read")
    family, source, target, *ports = found.groups()
    if family is None:
        return None
    if any(int(port) > 65535 or str(int(port)).encode() != port for port in ports):
        raise ProxyError("a port cannot be read")
    kind = ipaddress.IPv4Address if family == b"TCP4" else ipaddress.IPv6Address
    try:
        address, _ = kind(source.decode()), kind(target.decode())
    except ValueError:
        raise ProxyError("an address cannot be read") from None
    return _plain(address)


def _second(command: int, family: int, rest: bytes) -> str | None:
    if command not in (_LOCAL, _PROXY):
        raise ProxyError("version or command is not known")
    if command == _LOCAL:
        return None
    if family not in _ADDRESSES or len(rest) < _ADDRESSES[family]:
        raise ProxyError("the addresses cannot be read")
    if family == 0x11:
        return str(ipaddress.IPv4Address(rest[:4]))
    if family == 0x21:
        return _plain(ipaddress.IPv6Address(rest[:16]))
    return None


def _plain(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """An IPv4 client of an IPv6 balancer as what it is."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
