"""A name server on loopback that answers from a table."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass, field
from typing import cast

import dns.flags
import dns.message
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset


@dataclass
class NameServer:
    """`zone[name][type]` = record texts; names in `failing` give SERVFAIL, those in `silent` nothing at all.

    `secure`: it says that it has validated everything (the AD bit).
    """

    zone: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    failing: set[str] = field(default_factory=set)
    silent: set[str] = field(default_factory=set)
    secure: bool = False
    asked: list[tuple[str, str]] = field(default_factory=list)
    port: int = 0
    _udp: asyncio.DatagramTransport | None = None
    _tcp: asyncio.Server | None = None

    def add(self, name: str, kind: str, *records: str) -> None:
        self.zone.setdefault(name, {}).setdefault(kind, []).extend(records)

    def host(self, domain: str, *hosts: tuple[int, str, str]) -> None:
        """MX records with an address each: (preference, name, IPv4)."""
        for preference, name, address in hosts:
            self.add(domain, "MX", f"{preference} {name}.")
            if address:
                self.zone.setdefault(name, {})["A"] = [address]

    async def start(self) -> NameServer:
        loop = asyncio.get_running_loop()
        for _ in range(20):
            self._tcp = await asyncio.start_server(self._serve_tcp, "127.0.0.1", 0)
            self.port = self._tcp.sockets[0].getsockname()[1]
            try:
                self._udp, _ = await loop.create_datagram_endpoint(
                    lambda: _Udp(self), local_addr=("127.0.0.1", self.port)
                )
                return self
            except OSError:
                self._tcp.close()
        raise RuntimeError("no free port")

    async def stop(self) -> None:
        if self._udp is not None:
            self._udp.close()
        if self._tcp is not None:
            self._tcp.close()
            await self._tcp.wait_closed()

    def answer(self, wire: bytes) -> dns.message.Message | None:
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind))
        if name in self.silent:
            return None
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA | (dns.flags.AD if self.secure else 0)
        if name in self.failing:
            response.set_rcode(dns.rcode.SERVFAIL)
            return response
        for _ in range(5):
            records = self.zone.get(name)
            if records is None:
                response.set_rcode(dns.rcode.NXDOMAIN)
                return response
            if "CNAME" in records and kind != "CNAME":
                response.answer.append(dns.rrset.from_text(f"{name}.", 60, "IN", "CNAME", *records["CNAME"]))
                name = records["CNAME"][0].rstrip(".")
                continue
            break
        if kind in records:
            response.answer.append(dns.rrset.from_text(f"{name}.", 60, "IN", kind, *records[kind]))
        return response

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        response = self.answer(await reader.readexactly(length))
        if response is not None:
            wire = response.to_wire()
            writer.write(struct.pack("!H", len(wire)) + wire)
            await writer.drain()
        writer.close()


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, server: NameServer) -> None:
        self.server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        response = self.server.answer(data)
        if response is not None:
            wire = response.to_wire(max_size=1232)
            self.transport.sendto(wire, addr)
