"""From a domain to the hosts that take its mail, and from a host to its addresses (RFC 5321 §5.1, RFC 7505, RFC 3464).

All of it through the configured resolver; answers, negative ones too, are kept for their time to live.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

import dns.asyncresolver
import dns.exception
import dns.nameserver
import dns.rdatatype
import dns.resolver

from mailcore.conf import HostPort
from mailcore.delivery.outcome import Stage, failed, later

LIFETIME = 12.0
TIMEOUT = 4.0
MAX_HOSTS = 20
CACHE_SIZE = 20_000

NotThere = (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer)


@dataclass(frozen=True, slots=True)
class Exchange:
    """A host that takes mail for a domain."""

    preference: int
    name: str


class Resolver:
    """The configured resolvers (empty = the system's), with a cache for this process."""

    def __init__(self, servers: tuple[HostPort, ...] = ()) -> None:
        self._resolver = dns.asyncresolver.Resolver(configure=not servers)
        if servers:
            self._resolver.nameservers = [dns.nameserver.Do53Nameserver(host, port) for host, port in servers]
        self._resolver.lifetime = LIFETIME
        self._resolver.timeout = TIMEOUT
        self._resolver.search = []
        self._resolver.cache = dns.resolver.LRUCache(CACHE_SIZE)

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
        found = (
            []
            if answer.rrset is None
            else [
                Exchange(record.preference, record.exchange.to_text(omit_final_dot=True).lower())
                for record in answer.rrset
            ]
        )
        if any(exchange.name in ("", ".") for exchange in found):
            if len(found) == 1:
                raise failed(Stage.ROUTE, "5.1.10", f"{domain} accepts no mail (null MX)")
            found = [exchange for exchange in found if exchange.name not in ("", ".")]
        if not found:
            return [Exchange(0, domain)]
        random.shuffle(found)
        return sorted(found, key=lambda exchange: exchange.preference)[:MAX_HOSTS]

    async def addresses(self, name: str) -> list[str]:
        """The IP addresses of a host, IPv4 first: large receivers trust few new senders on IPv6. [] = it has none.

        Raises Undeliverable (for now) when DNS fails for both kinds, or fails for one and has nothing of the other.
        """
        kinds = (dns.rdatatype.A, dns.rdatatype.AAAA)
        answers = await asyncio.gather(*(self._addresses(name, kind) for kind in kinds), return_exceptions=True)
        found: list[str] = []
        trouble: BaseException | None = None
        for answer in answers:
            if isinstance(answer, BaseException):
                if not isinstance(answer, NotThere):
                    trouble = answer
            else:
                found += answer
        if not found and trouble is not None:
            if not isinstance(trouble, dns.exception.DNSException):
                raise trouble
            raise later(Stage.ROUTE, "4.4.3", f"DNS gives no answer for {name}: {_reason(trouble)}") from trouble
        return found

    async def _addresses(self, name: str, kind: dns.rdatatype.RdataType) -> list[str]:
        answer = await self._resolver.resolve(name, kind)
        records = [record.address for record in answer]
        random.shuffle(records)
        return records


def _reason(error: BaseException) -> str:
    if isinstance(error, dns.resolver.LifetimeTimeout):
        return "time out"
    if isinstance(error, dns.resolver.NoNameservers):
        return "the name servers fail (SERVFAIL)"
    return str(error)[:200] or type(error).__name__
