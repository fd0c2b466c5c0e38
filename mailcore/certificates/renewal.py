"""Which certificates this installation wants, and getting those that are due.

Wanted are one for MAILSTEAD_HOSTNAME and one for each hosted domain, for those of its service names that lead here.
Beat has this looked at (mailcore.tasks); `manage.py certificate renew` does it at once.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from types import ModuleType
from typing import TYPE_CHECKING

from cryptography import x509

from accounts import secrets
from mailcore import db
from mailcore.certificates import material
from mailcore.conf import Conf
from mailcore.delivery.mx import Resolver
from mailcore.delivery.outcome import Undeliverable
from mailcore.errors import Code, ConfigError, MailError
from mailcore.store import certificates
from mailcore.store.certificates import Stored

if TYPE_CHECKING:
    from mailcore.certificates.acme import Account, Authority

log = logging.getLogger(__name__)

SERVICES = ("mail", "mta-sts", "autoconfig", "autodiscover")
# Names asked for at the same time.
AT_ONCE = 16
# Seconds until an authority is asked again for names that it refused, while it gave others: authorities ration
# certificates that are alike by the week.
COMPLETE_AFTER = 7 * 86_400


@dataclass(frozen=True, slots=True)
class Done:
    """What came of one certificate; `error` says what is missing, of all of it when `names` is empty."""

    name: str
    names: tuple[str, ...] = ()
    error: str = ""


def wants_host(conf: Conf) -> bool:
    """Whether this host's own certificate is an authority's business."""
    return bool(conf.acme) and conf.tls_cert is None and "." in conf.hostname


async def want(name: str, names: Collection[str] = ()) -> None:
    """Note that a certificate is wanted: for a host (`names`: it and others) or a hosted domain (names below it).

    Raises MailError.
    """
    keys = [secrets.seal(material.new_key()) for _ in range(2)]
    async with db.transaction() as tx:
        await certificates.want(tx, name, keys[0], keys[1], list(names))


async def look(conf: Conf, resolver: Resolver) -> list[str]:
    """Note what is wanted by now, and say which certificates are due. Raises MailError."""
    async with db.single() as tx:
        await certificates.forget_unhosted(tx)
    async with db.read() as tx:
        domains = await certificates.hosted_domains(tx)
        there = {each.name: each for each in await certificates.every(tx)}
    if wants_host(conf):
        await want(conf.hostname.lower())
    ours = await _our_addresses(conf, resolver, there.values(), domains)
    gate = asyncio.Semaphore(AT_ONCE)

    async def of_domain(domain: str) -> tuple[str, list[str]]:
        async with gate:
            return domain, await _services(conf, resolver, domain, ours)

    incomplete = []
    for domain, names in await asyncio.gather(*map(of_domain, domains)):
        known = there.get(domain)
        if known is None and names:
            await want(domain, names)
        elif known is not None and known.chain is not None and set(names) - set(known.names):
            incomplete.append(domain)
    async with db.single() as tx:
        await certificates.forget_challenges(tx)
    await _ask_when(conf)
    async with db.read() as tx:
        due = await certificates.due(tx)
        found = await certificates.get(tx, incomplete)
    now = datetime.now(UTC)
    asked_again = [each.name for each in found if each.source == "acme" and each.next_try_at <= now]
    return [*due, *(name for name in asked_again if name not in due)]


async def _ask_when(conf: Conf) -> None:
    """Ask the authority when it wants its certificates renewed: earlier when it is about to revoke them (RFC 9773)."""
    async with db.read() as tx:
        asked = await certificates.to_ask_about(tx)
    if not (conf.acme and asked):
        return
    acme = _acme()
    try:
        account = await _account(conf)
        found = await asyncio.to_thread(acme.advice, _authority(conf), account, asked)
    except (acme.AcmeError, ConfigError) as error:
        log.info("the authority cannot be asked when to renew: %s", error)
        found = {}
    async with db.transaction() as tx:
        for name in asked:
            each = found.get(name)
            await certificates.advised(tx, name, each and each.renew_at, each and each.ask_at)


async def revoke(conf: Conf, stored: Stored, reason: int) -> None:
    """Have the authority revoke a certificate that it issued; it stays in use until there is another. Raises
    MailError."""
    acme = _acme()
    assert stored.chain is not None
    try:
        account = await _account(conf)
        await asyncio.to_thread(
            acme.revoke, _authority(conf), account, x509.load_pem_x509_certificate(stored.chain.encode()), reason
        )
    except ConfigError as error:
        raise MailError(Code.UNAVAILABLE, str(error)) from None
    except acme.AcmeError as error:
        raise MailError(Code.UNAVAILABLE, f"The authority did not revoke it: {error.text}") from None
    log.info("the certificate for %s was revoked", ", ".join(stored.names))


def _authority(conf: Conf) -> Authority:
    made: Authority = _acme().Authority(conf.acme, conf.acme_email, conf.acme_eab, conf.tls_ca)
    return made


async def _our_addresses(
    conf: Conf, resolver: Resolver, there: Collection[Stored], domains: Collection[str]
) -> frozenset[str]:
    """The addresses of all hosts of the installation, as the DNS has them."""
    hosts = {conf.hostname.lower(), *(each.name for each in there if each.source == "acme")} - set(domains)
    found: set[str] = set()
    for host in hosts:
        found.update(await _addresses(resolver, host))
    return frozenset(found)


async def _services(conf: Conf, resolver: Resolver, domain: str, ours: frozenset[str]) -> list[str]:
    """The service names of a domain that lead here and nowhere else."""
    names = [name for service in SERVICES if (name := f"{service}.{domain}") != conf.hostname.lower()]
    found = [await _addresses(resolver, name) for name in names]
    return [name for name, addresses in zip(names, found, strict=True) if addresses and ours.issuperset(addresses)]


async def _addresses(resolver: Resolver, name: str) -> list[str]:
    try:
        return await resolver.addresses(name)
    except Undeliverable as error:
        log.info("%s", error.outcome.text)
        return []


async def obtain(conf: Conf, name: str, *, force: bool = False, next_key: bool = False) -> Done | None:
    """Have a certificate issued or renewed, whoever else may try; None when somebody else does, or it must wait.

    `force`: now, though it failed a moment ago. `next_key`: change to the key that was announced. Raises MailError.
    """
    async with db.single() as tx:
        stored = await certificates.claim(tx, name, force=force)
    if stored is None:
        return None
    try:
        names, is_domain = await _names(conf, stored)
        if not names:
            raise _Failure(f"no name of {name} leads to {conf.hostname}: publish its DNS records first")
        done, wait = await _order(conf, stored, names, is_domain, next_key)
    except _Failure as failure:
        async with db.single() as tx:
            await certificates.failed(tx, name, failure.text, failure.wait)
        log.warning("no certificate for %s: %s", name, failure.text)
        return Done(name, error=failure.text)
    if done.error:
        async with db.single() as tx:
            await certificates.incomplete(tx, name, done.error, wait)
    log.info("there is a new certificate for %s", ", ".join(done.names))
    return done


class _Failure(Exception):
    def __init__(self, text: str, wait: int = 0) -> None:
        super().__init__(text)
        self.text = text
        self.wait = wait


async def _names(conf: Conf, stored: Stored) -> tuple[list[str], bool]:
    """What to ask for, and whether it is a domain's service names."""
    async with db.read() as tx:
        domains = await certificates.hosted_domains(tx)
        there = await certificates.every(tx)
    if stored.name not in domains or stored.name == conf.hostname.lower():
        return list(stored.names) or [stored.name], False
    resolver = Resolver(conf.dns)
    ours = await _our_addresses(conf, resolver, there, domains)
    return await _services(conf, resolver, stored.name, ours), True


async def _order(conf: Conf, stored: Stored, names: list[str], is_domain: bool, next_key: bool) -> tuple[Done, int]:
    """Raises _Failure."""
    acme = _acme()

    loop = asyncio.get_running_loop()

    def publish(token: str, answer: str) -> None:
        asyncio.run_coroutine_threadsafe(_publish(token, answer), loop).result(acme.TIMEOUT)

    try:
        key = material.unsealed(stored.next_key if next_key else stored.private_key)
        account = await _account(conf)
        known = account.uri
    except ConfigError as error:
        raise _Failure(str(error)) from None
    refused: dict[str, str] = {}
    chain = ""
    while not chain:
        question = acme.Question(_authority(conf), names, key, publish)
        try:
            chain = await asyncio.to_thread(acme.obtain, question, account)
        except acme.AcmeError as error:
            refused |= error.refused
            left = [name for name in names if name not in refused]
            # One service name of a domain that cannot be verified keeps the others from nothing.
            if not is_domain or not left or len(left) == len(names):
                raise _Failure(error.text, error.wait) from None
            names = left
        finally:
            if account.uri != known:
                known = account.uri
                await _keep_account(conf, account.key, account.uri)
    try:
        checked = material.check(chain.encode(), key)
    except MailError as error:
        raise _Failure(f"what the authority issued cannot be used: {error.text}") from None
    following = secrets.seal(material.new_key()) if next_key else stored.next_key
    async with db.transaction() as tx:
        await certificates.keep(
            tx,
            stored.name,
            "acme",
            checked.names,
            checked.chain,
            secrets.seal(key),
            following,
            (checked.begins, checked.ends),
        )
    life = int((checked.ends - checked.begins).total_seconds())
    missing = "; ".join(f"{name}: {reason}" for name, reason in refused.items())
    return Done(stored.name, checked.names, missing), min(COMPLETE_AFTER, life // 6)


async def _publish(token: str, answer: str) -> None:
    async with db.transaction() as tx:
        await certificates.publish_challenge(tx, token, answer)


def _acme() -> ModuleType:
    """Loaded only here: 30 MB that hardly any process needs."""
    return importlib.import_module("mailcore.certificates.acme")


async def _account(conf: Conf) -> Account:
    async with db.read() as tx:
        known = await certificates.acme_account(tx, conf.acme)
    account: Account = _acme().Account(*((material.unsealed(known[0]), known[1]) if known else (material.new_key(),)))
    return account


async def _keep_account(conf: Conf, key: bytes, uri: str) -> None:
    async with db.transaction() as tx:
        await certificates.keep_acme_account(tx, conf.acme, secrets.seal(key), uri)
