"""Where mail for a destination goes: into mailboxes here, to the smarthost, or to the addresses of its MX hosts."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

from mailcore.conf import Conf, Smarthost
from mailcore.delivery import guard
from mailcore.delivery.mx import Resolver
from mailcore.delivery.outcome import Outcome, Stage, Undeliverable, failed, later
from mailcore.delivery.plan import Plan

MAX_ADDRESSES = 10
IMPLICIT_TLS_PORT = 465


@dataclass(frozen=True, slots=True)
class Host:
    """One address to connect to; `name` for TLS and people, `login` for a relay that a rule or the administrator named.

    A rule's wishes: `tls` (none, may, require), `source` (our address), `hello` (our name).

    What transport security asks: `domain` is the recipients' when its MX records led here (else ""), `mx_secure` =
    DNSSEC vouches for them, `tlsa` = the names whose TLSA records count.
    """

    name: str
    address: str
    port: int
    login: Smarthost | None = None
    domain: str = ""
    mx_secure: bool = False
    tlsa: tuple[str, ...] = ()
    tls: str = "may"
    source: str | None = None
    hello: str | None = None

    @property
    def implicit_tls(self) -> bool:
        return self.login is not None and self.port == IMPLICIT_TLS_PORT

    def place(self, usual_port: int) -> str:
        """Where the server is: its address, with the port if that is not `usual_port`."""
        if self.port == usual_port:
            return self.address
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    def __str__(self) -> str:
        return self.name if self.name == self.address else f"{self.name} [{self.address}]"


async def hosts(destination: str, conf: Conf, resolver: Resolver, plan: Plan) -> AsyncIterator[Host]:
    """The addresses to try for a destination, best first; names are resolved only when their turn comes.

    Raises Undeliverable before the first address when there is none to try.
    """
    if plan.relay is not None:
        candidates = _relay(plan.relay, conf)
    elif destination.startswith("["):
        candidates = _literal(destination, conf)
    else:
        candidates = _exchanges(destination, conf, resolver)
    count = 0
    async for host in candidates:
        source = plan.source6 if ":" in host.address else plan.source4
        wishes = (plan.tls, source, plan.hello)
        yield host if wishes == ("may", None, None) else replace(host, tls=plan.tls, source=source, hello=plan.hello)
        count += 1
        if count == MAX_ADDRESSES:
            return


async def hop(destination: str, resolver: Resolver, plan: Plan) -> str:
    """A name for the server, or the provider, that takes a destination's mail: destinations that share it share its
    limits."""
    if plan.relay is not None:
        return f"{plan.relay.host}:{plan.relay.port}"
    if destination.startswith("["):
        return destination
    try:
        exchanges = await resolver.exchanges(destination)
    except Undeliverable:
        return destination
    best = exchanges[0].preference
    name = min(exchange.name for exchange in exchanges if exchange.preference == best)
    # example-com.mail.provider.net and example-org.mail.provider.net are one provider's.
    provider = name.partition(".")[2]
    return provider if provider.count(".") >= 2 else name


def ordered(addresses: Sequence[str], prefer: str) -> list[str]:
    """Addresses with the preferred family first, the families by turns (RFC 8305 §4): when one of them leads nowhere,
    every second attempt still gets through. `prefer`: ipv4, ipv6, or one of them only (ipv4-only, ipv6-only)."""
    families = {
        "ipv4": [each for each in addresses if ":" not in each],
        "ipv6": [each for each in addresses if ":" in each],
    }
    first = prefer.removesuffix("-only")
    if prefer != first:
        return families[first]
    pairs = zip_longest(families.pop(first), *families.values())
    return [each for pair in pairs for each in pair if each is not None]


async def _relay(relay: Smarthost, conf: Conf) -> AsyncIterator[Host]:
    """The administrator named it, so that a private address is meant."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(relay.host, relay.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise later(Stage.ROUTE, "4.4.3", f"the relay {relay.host} has no address: {error.strerror}") from error
    for address in ordered(list(dict.fromkeys(str(where[0]) for *_, where in found)), conf.out_prefer):
        yield Host(relay.host, address, relay.port, relay)


async def _literal(destination: str, conf: Conf) -> AsyncIterator[Host]:
    address = destination[1:-1].removeprefix("IPv6:")
    try:
        ipaddress.ip_address(address)
    except ValueError:
        raise failed(Stage.ROUTE, "5.1.3", f"{destination} is no address that mail can be sent to") from None
    if not guard.may_reach(address, conf.out_allow):
        raise _private(destination)
    yield Host(address, address, conf.smtp_out_port)


async def _exchanges(domain: str, conf: Conf, resolver: Resolver) -> AsyncIterator[Host]:
    exchanges = await resolver.exchanges(domain)
    if any(exchange.name == conf.hostname for exchange in exchanges):
        # We are one of the domain's mail hosts, yet do not know the domain: only better ones may be tried.
        ours = min(exchange.preference for exchange in exchanges if exchange.name == conf.hostname)
        exchanges = [exchange for exchange in exchanges if exchange.preference < ours]
        if not exchanges:
            raise failed(Stage.ROUTE, "5.4.6", f"mail for {domain} loops back to this server, which does not host it")
    tried = refused = False
    trouble: Outcome | None = None
    for exchange in exchanges:
        try:
            addresses = await resolver.lookup(exchange.name)
        except Undeliverable as error:
            trouble = error.outcome
            continue
        tlsa = addresses.tlsa if exchange.secure else ()
        for address in ordered(addresses.found, conf.out_prefer):
            if guard.may_reach(address, conf.out_allow):
                tried = True
                yield Host(exchange.name, address, conf.smtp_out_port, None, domain, exchange.secure, tlsa)
            else:
                refused = True
    if tried:
        return
    if trouble is not None:
        raise Undeliverable(trouble)
    if refused:
        raise _private(domain)
    raise failed(Stage.ROUTE, "5.4.4", f"no mail host of {domain} has an address")


def _private(destination: str) -> Undeliverable:
    text = f"the mail host of {destination} has no public address, only a private or reserved one"
    return failed(Stage.ROUTE, "5.4.4", text)
