"""From a domain to the hosts that take its mail, and from a host to its addresses (RFC 5321 §5.1, RFC 7505, RFC 3464).

All of it through the configured resolver; answers, negative ones too, are kept for their time to live. Whether DNSSEC
vouches for an answer is the resolver's word (the AD bit), which counts only when it comes from one that we trust.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
from dataclasses import dataclass

import dns.asyncresolver
import dns.exception
import dns.flags
import dns.nameserver
import dns.rdatatype
import dns.resolver

from mailcore.conf import HostPort
from mailcore.delivery.outcome import Stage, failed, later
from mailcore.delivery.tlsa import TLSA

LIFETIME = 12.0
TIMEOUT = 4.0
MAX_HOSTS = 20
CACHE_SIZE = 20_000
DOCKER_DNS = "127.0.0.11"

NotThere = (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer)


@dataclass(frozen=True, slots=True)
class Exchange:
    """A host that takes mail for a domain; `secure`: DNSSEC vouches for that."""

    preference: int
    name: str
    secure: bool = False


@dataclass(frozen=True, slots=True)
class Addresses:
    """A host's IP addresses. `tlsa`: the names under which its TLSA records are looked for, best first; none when
    DNSSEC does not vouch for the addresses (RFC 7672 §2.2.2)."""

    found: tuple[str, ...]
    tlsa: tuple[str, ...] = ()


class Resolver:
    """The configured resolvers (empty = the system's), with a cache for this process.

    `dnssec`: whether their word on DNSSEC is believed, "on", "off", or "auto" = when all of them are on loopback.
    """

    def __init__(self, servers: tuple[HostPort, ...] = (), dnssec: str = "off") -> None:
        self._resolver = dns.asyncresolver.Resolver(configure=not servers)
        if servers:
            self._resolver.nameservers = [dns.nameserver.Do53Nameserver(host, port) for host, port in servers]
        self._resolver.lifetime = LIFETIME
        self._resolver.timeout = TIMEOUT
        self._resolver.search = []
        self._resolver.cache = dns.resolver.LRUCache(CACHE_SIZE)
        hosts = [host for host, _ in servers] or [str(each) for each in self._resolver.nameservers]
        self.trusts_dnssec = dnssec == "on" or (dnssec == "auto" and all(_is_here(host) for host in hosts))
        if self.trusts_dnssec:
            self._resolver.set_flags(dns.flags.RD | dns.flags.AD)  # AD asks for the bit (RFC 6840 §5.7)

    def _is_secure(self, answer: dns.resolver.Answer) -> bool:
        return self.trusts_dnssec and bool(answer.response.flags & dns.flags.AD)

    async def exchanges(self, domain: str) -> list[Exchange]:
        """The mail hosts of a domain in the order to try, equal ones shuffled; the domain itself without MX records.

        Raises Undeliverable: for good when there is no such domain or it takes no mail, for now when DNS fails.
        """
        try:
            answer = await self._resolver.resolve(domain, dns.rdatatype.MX, raise_on_no_answer=False)
        except dns.resolver.NXDOMAIN:
            raise failed(Stage.ROUTE, "5.1.2", f"there is no domain {domain}") from None
        except dns.exception.DNSException as error:
            raise later(Stage.ROUTE, "4.4.3", f"DNS gives no answer for {domain}: {_reason(error)}") from error
        secure = self._is_secure(answer)
        found = [
            Exchange(record.preference, record.exchange.to_text(omit_final_dot=True).lower(), secure)
            for record in answer.rrset or ()
        ]
        if any(exchange.name in ("", ".") for exchange in found):
            if len(found) == 1:
                raise failed(Stage.ROUTE, "5.1.10", f"{domain} accepts no mail (null MX)")
            found = [exchange for exchange in found if exchange.name not in ("", ".")]
        if not found:
            return [Exchange(0, domain, secure)]
        random.shuffle(found)
        return sorted(found, key=lambda exchange: exchange.preference)[:MAX_HOSTS]

    async def addresses(self, name: str) -> list[str]:
        """The IP addresses of a host, as `lookup` finds them."""
        return list((await self.lookup(name)).found)

    async def lookup(self, name: str) -> Addresses:
        """The IP addresses of a host, IPv4 first: large receivers trust few new senders on IPv6. () = it has none.

        Raises Undeliverable (for now) when DNS fails for both kinds, or fails for one and has nothing of the other.
        """
        kinds = (dns.rdatatype.A, dns.rdatatype.AAAA)
        answers = await asyncio.gather(*(self._resolver.resolve(name, kind) for kind in kinds), return_exceptions=True)
        found: list[str] = []
        secure: list[bool] = []
        canonical = name
        trouble: BaseException | None = None
        for answer in answers:
            if isinstance(answer, BaseException):
                if not isinstance(answer, NotThere):
                    trouble = answer
                continue
            records = [record.address for record in answer]
            random.shuffle(records)
            found += records
            secure.append(self._is_secure(answer))
            canonical = answer.canonical_name.to_text(omit_final_dot=True).lower()
        if not found and trouble is not None:
            if not isinstance(trouble, dns.exception.DNSException):
                raise trouble
            raise later(Stage.ROUTE, "4.4.3", f"DNS gives no answer for {name}: {_reason(trouble)}") from trouble
        return Addresses(tuple(found), await self._tlsa_names(name, canonical, bool(secure) and all(secure)))

    async def _tlsa_names(self, name: str, canonical: str, secure: bool) -> tuple[str, ...]:
        """Where the TLSA records of a host may stand: under the name that an alias leads to, else under its own."""
        if secure or name == canonical:
            return tuple(dict.fromkeys((canonical, name))) if secure else ()
        # A signed alias that leads into an unsigned zone: its own name may still have records.
        try:
            answer = await self._resolver.resolve(name, dns.rdatatype.CNAME)
        except dns.exception.DNSException:
            return ()
        return (name,) if self._is_secure(answer) else ()

    async def tlsa(self, port: int, name: str) -> list[TLSA]:
        """The TLSA records of a service that DNSSEC vouches for. Raises DNSException when it cannot be known, because
        DNS fails or an answer is forged: then mail must wait (RFC 7672 §2.1)."""
        try:
            answer = await self._resolver.resolve(f"_{port}._tcp.{name}", dns.rdatatype.TLSA)
        except NotThere:
            return []
        return list(answer) if self._is_secure(answer) else []

    async def texts(self, name: str, lifetime: float = LIFETIME) -> list[str]:
        """The TXT records of a name, each in one piece; [] = there are none. Raises DNSException."""
        try:
            answer = await self._resolver.resolve(name, dns.rdatatype.TXT, lifetime=lifetime)
        except NotThere:
            return []
        return [b"".join(record.strings).decode("utf-8", "replace") for record in answer]


def _is_here(host: str) -> bool:
    """A resolver on this host. Docker's at 127.0.0.11 only passes on what another one says, its AD bit included."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback and host != DOCKER_DNS
    except ValueError:
        return False


def _reason(error: BaseException) -> str:
    if isinstance(error, dns.resolver.LifetimeTimeout):
        return "time out"
    if isinstance(error, dns.resolver.NoNameservers):
        return "the name servers fail (SERVFAIL)"
    return str(error)[:200] or type(error).__name__
