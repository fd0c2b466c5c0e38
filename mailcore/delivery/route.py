"""Where mail for a destination goes: into mailboxes here, to the smarthost, or to the addresses of its MX hosts."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass

from mailcore.conf import Conf, Smarthost
from mailcore.delivery import guard
from mailcore.delivery.mx import Resolver
from mailcore.delivery.outcome import Outcome, Stage, Undeliverable, failed, later

MAX_ADDRESSES = 10
IMPLICIT_TLS_PORT = 465


@dataclass(frozen=True, slots=True)
class Host:
    """One address to connect to; `name` for TLS and people, `login` for a smarthost that wants one."""

    name: str
    address: str
    port: int
    login: Smarthost | None = None

    @property
    def implicit_tls(self) -> bool:
        return self.login is not None and self.port == IMPLICIT_TLS_PORT

    def __str__(self) -> str:
        return self.name if self.name == self.address else f"{self.name} [{self.address}]"


async def hosts(destination: str, conf: Conf, resolver: Resolver) -> AsyncIterator[Host]:
    """The addresses to try for a destination, best first; names are resolved only when their turn comes.

    Raises Undeliverable before the first address when there is none to try.
    """
    if conf.smarthost is not None:
        candidates = _smarthost(conf.smarthost)
    elif destination.startswith("["):
        candidates = _literal(destination, conf)
    else:
        candidates = _exchanges(destination, conf, resolver)
    count = 0
    async for host in candidates:
        yield host
        count += 1
        if count == MAX_ADDRESSES:
            return


async def _smarthost(smarthost: Smarthost) -> AsyncIterator[Host]:
    """The administrator named it, so that a private address is meant."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(smarthost.host, smarthost.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise later(Stage.ROUTE, "4.4.3", f"the smarthost {smarthost.host} has no address: {error.strerror}") from error
    for *_, where in found:
        yield Host(smarthost.host, str(where[0]), smarthost.port, smarthost)


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
            addresses = await resolver.addresses(exchange.name)
        except Undeliverable as error:
            trouble = error.outcome
            continue
        for address in addresses:
            if guard.may_reach(address, conf.out_allow):
                tried = True
                yield Host(exchange.name, address, conf.smtp_out_port)
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
