"""A name server, a web process and a certificate authority that looks at both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from accounts import people
from mailcore import db
from mailcore.conf import Conf, conf
from mailcore.store import certificates
from mailcore.store.certificates import Stored
from tests.certificates.pebble import Pebble, Web, pebble, web
from tests.delivery.nameserver import NameServer


@dataclass
class Town:
    """Where certificates are got: mail.example.test and the domain example.test lead here."""

    conf: Conf
    names: NameServer
    authority: Pebble
    web: Web

    async def stored(self, name: str) -> Stored:
        return await stored_of(name)


@pytest.fixture
def hosted(transactional_db: None) -> None:
    """example.test is hosted, and committed."""
    people.add_domain("example.test")


@pytest.fixture
async def hamlet(hosted: None, tmp_path: Path) -> AsyncIterator[Conf]:
    """Settings where no authority is near; the pool is open."""
    await db.open_pool(4)
    try:
        yield replace(conf, data=tmp_path, hostname="mail.example.test")
    finally:
        await db.close_pool()


async def stored_of(name: str) -> Stored:
    """A certificate as it is stored."""
    async with db.read() as tx:
        (found,) = await certificates.get(tx, [name])
    return found


@pytest.fixture
async def town(hosted: None, tmp_path: Path, program: Callable[[str], str]) -> AsyncIterator[Town]:
    async with AsyncExitStack() as closing:
        names = await NameServer().start()
        closing.push_async_callback(names.stop)
        site = closing.enter_context(web())
        running = pebble(program("pebble"), tmp_path, dns=names.port, http=site.port)
        authority = await asyncio.to_thread(running.__enter__)
        closing.callback(running.__exit__, None, None, None)
        names.add("mail.example.test", "A", "127.0.0.1")
        await db.open_pool(4)
        closing.push_async_callback(db.close_pool)
        ours = replace(
            conf,
            data=tmp_path,
            hostname="mail.example.test",
            dns=(("127.0.0.1", names.port),),
            acme=authority.directory,
            acme_email="admin@example.test",
            tls_ca=authority.trust,
        )
        yield Town(ours, names, authority, site)
