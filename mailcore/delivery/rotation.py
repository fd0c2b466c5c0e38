"""New signing keys: published first, in use when the DNS shows them, the old ones published for a while yet.

`manage.py domain dkim rotate` begins it; beat's regular look at the DNS (mailcore.tasks) ends it.
"""

from __future__ import annotations

import asyncio
import logging

import dns.exception

from mailcore import db
from mailcore.db import Tx
from mailcore.delivery import dkim
from mailcore.delivery.mx import Resolver
from mailcore.store import signing_keys
from mailcore.store.signing_keys import SigningKey

log = logging.getLogger(__name__)

# Domains whose records are asked for at the same time.
AT_ONCE = 8


async def coming(tx: Tx, domain: str) -> list[SigningKey]:
    """The keys of a domain that are to sign next, [] = no rotation is under way."""
    return [key for key in await signing_keys.of_domain(tx, domain) if key.state == "next"]


async def published(resolver: Resolver, keys: list[SigningKey]) -> list[SigningKey]:
    """Those of the keys whose record the DNS shows; a DNS that does not answer shows nothing."""
    shown = []
    for key in keys:
        record = dkim.key_record(key)
        try:
            found = await resolver.texts(record.name)
        except dns.exception.DNSException as error:
            log.info("%s: %s", record.name, error)
            continue
        if any(_public_key(text) == key.public_key for text in found):
            shown.append(key)
    return shown


async def step(resolver: Resolver) -> int:
    """Let every key sign that the DNS shows by now, and forget those long retired; how many domains have new keys.

    The keys of a domain turn together: until the last one is published, the old ones sign.
    """
    async with db.transaction() as tx:
        await signing_keys.forget(tx)
        domains = await signing_keys.waiting(tx)
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(domain: str) -> bool:
        async with gate, db.read() as tx:
            keys = await coming(tx, domain)
        async with gate:
            shown = await published(resolver, keys)
        if not keys or len(shown) < len(keys):
            return False
        async with db.transaction() as tx:
            now = await signing_keys.turn(tx, domain, [key.selector for key in keys])
        if now:
            log.info("mail of %s is signed with new keys: %s", domain, ", ".join(now))
        return bool(now)

    return sum(await asyncio.gather(*(one(domain) for domain in domains)))


def _public_key(text: str) -> str:
    """The p= of a record, however its owner has spaced it."""
    for tag in "".join(text.split()).split(";"):
        name, _, value = tag.partition("=")
        if name == "p":
            return value
    return ""
