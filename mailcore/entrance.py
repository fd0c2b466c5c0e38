"""What happens on a connection before its protocol has it: the PROXY header of a balancer, the TLS handshake.

A balancer that MAILSTEAD_PROXY_FROM names must begin with a PROXY header, everybody else must not. From there on the
client's address is the one of the header, for limits, throttle, trace and checks alike.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

from mailcore.conf import Network
from mailcore.tls import HANDSHAKE_SECONDS, Certificates
from mailcore.wire.proxy import Header, ProxyError

log = logging.getLogger(__name__)

HEADER_SECONDS = 10.0
# Connections of balancers whose header is still to come: they are counted against no client yet.
MAX_HEADERS = 2_000


class Unnamed(str):
    """The address of a balancer that named no client (LOCAL, UNKNOWN): whoever speaks, it is not known to be somebody
    on this machine, even if the balancer is."""

    __slots__ = ()


Admit = Callable[[str], Callable[[], None] | None]


@dataclass(slots=True)
class Door:
    """A listener's way in. `make(source)` makes the protocol; `source` is the client's address, None = the socket's.

    A listener that speaks TLS at once says nothing of a connection before its handshake is over: thousands that
    never finish would be seen by no limit. `admit(address)` is asked before: it counts the connection and returns how
    to stop counting it, or None to drop it.
    """

    make: Callable[[str | None], asyncio.Protocol]
    admit: Admit
    certificates: Certificates | None = None
    proxies: Sequence[Network] = ()
    going: set[Entrance] = field(default_factory=set)
    """Those under way, so that a server can end them."""
    headers: int = 0

    def protocol(self) -> asyncio.Protocol:
        """For `loop.create_server`."""
        return Entrance(self) if self.certificates is not None or self.proxies else self.make(None)


class Entrance(asyncio.Protocol):
    """A connection until `Door.make`'s protocol has it."""

    __slots__ = ("_door", "_release", "_source", "_task")

    def __init__(self, door: Door) -> None:
        self._door = door
        self._release: Callable[[], None] | None = None
        self._source: str | None = None
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        plain = cast(asyncio.Transport, transport)
        if self._task is not None:
            self._enter(plain)
            return
        door = self._door
        peer = address_of(transport)
        proxied = is_within(peer, door.proxies)
        if not proxied and door.certificates is None:
            self._enter(plain)
            return
        if not proxied:
            self._release = door.admit(peer)
        elif door.headers < MAX_HEADERS:
            door.headers += 1
            self._release = self._header_ends
        if self._release is not None:
            # This transport would read the client's first octets before we can look at them (uvloop's does): we get
            # the socket itself.
            try:
                sock = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
            except OSError:  # no descriptor is left, or the client is
                self._leave()
            else:
                sock.setblocking(False)
                door.going.add(self)
                self._task = asyncio.get_running_loop().create_task(self._go(sock, peer if proxied else None))
        plain.abort()

    def abort(self) -> None:
        """End it now."""
        if self._task is not None:
            self._task.cancel()

    async def _go(self, sock: socket.socket, proxy: str | None) -> None:
        certificates = self._door.certificates
        handed_over = False
        try:
            if proxy is not None and not await self._pass_header(sock, proxy):
                return
            handed_over = True  # the loop closes it when it fails
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self,
                sock,
                ssl=certificates.context if certificates is not None else None,
                ssl_handshake_timeout=HANDSHAKE_SECONDS if certificates is not None else None,
            )
        except OSError:  # TimeoutError, ssl.SSLError and a client that has left among them
            handed_over = False
        finally:
            if not handed_over:
                sock.close()
            self._leave()

    async def _pass_header(self, sock: socket.socket, proxy: str) -> bool:
        """Read the header, and whether its client may go on."""
        try:
            async with asyncio.timeout(HEADER_SECONDS):
                source = await _read_header(sock)
        except ProxyError as error:
            log.warning("%s is to send a PROXY header: %s", proxy, error)
            return False
        if source is None:
            self._source = Unnamed(proxy)
        else:
            # A loopback address of another machine is not ours: whoever that is counts as that machine.
            self._source = source if not is_here(source) or is_here(proxy) else proxy
        if self._door.certificates is None:
            return True  # the protocol counts it
        self._leave_line()
        self._release = self._door.admit(self._source)
        return self._release is not None

    def _enter(self, transport: asyncio.Transport) -> None:
        self._leave()  # from here on the protocol is counted
        protocol = self._door.make(self._source)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)

    def _header_ends(self) -> None:
        self._door.headers -= 1

    def _leave(self) -> None:
        self._door.going.discard(self)
        self._leave_line()

    def _leave_line(self) -> None:
        if self._release is not None:
            release, self._release = self._release, None
            release()


async def _read_header(sock: socket.socket) -> str | None:
    """The source of a PROXY header; not an octet more is read. Raises ProxyError, OSError."""
    loop = asyncio.get_running_loop()
    header = Header()
    while header.wants:
        octets = await loop.sock_recv(sock, header.wants)
        if not octets:
            raise ConnectionResetError
        header.feed(octets)
    return header.source


def address_of(transport: asyncio.BaseTransport) -> str:
    """The other end's address, without a zone, and an IPv4 client of an IPv6 listener as what it is; "" if none."""
    peer = transport.get_extra_info("peername")
    return str(peer[0]).partition("%")[0].removeprefix("::ffff:") if isinstance(peer, tuple) else ""


def is_within(address: str, networks: Sequence[Network]) -> bool:
    """Whether an address belongs to one of the networks."""
    if not networks:
        return False
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(ip in network for network in networks)


def is_here(address: str) -> bool:
    """Whether a client is a program of this machine: for what only these may (MAILSTEAD_PLAINTEXT_AUTH)."""
    if isinstance(address, Unnamed):
        return False
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback
