"""A balancer on this machine that names no client (LOCAL, UNKNOWN): nobody becomes local by that."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailcore import tls
from mailcore.conf import conf
from mailcore.imap import server as imap
from mailcore.imap.limits import Limits
from tests.smtp.test_proxy import LOCAL, LOOPBACK, MESSAGE, through
from tests.smtp.world import Village, running

pytestmark = [pytest.mark.django_db(transaction=True)]

UNKNOWN = b"PROXY UNKNOWN\r\n"
OURSELVES = b"PROXY TCP4 127.0.0.1 127.0.0.1 40000 25\r\n"


@pytest.mark.parametrize("header", [LOCAL, UNKNOWN], ids=["LOCAL", "UNKNOWN"])
async def test_who_is_not_named_has_nothing_of_what_loopback_may(
    village: Village, tmp_path: Path, header: bytes
) -> None:
    assert conf.plaintext_auth == "loopback"
    async with running(tmp_path, proxy_from=LOOPBACK) as world:
        async with through(world.ports["submission"], OURSELVES) as client:
            await client.hear()
            assert "AUTH" in await client.ask("EHLO client.example"), "a client on this machine, by its balancer's word"
        async with through(world.ports["submission"], header) as client:
            await client.hear()
            assert "AUTH" not in await client.ask("EHLO client.example")
            assert (await client.ask("AUTH PLAIN AGEAYg==")).startswith("5")
        async with through(world.ports["submissions"], header, tls=True) as client:
            await client.hear()
            await client.expect("EHLO client.example", "250")
            await client.login()
        async with through(world.ports["lmtp"], header) as client:
            assert (await client.hear()).startswith("554 5.7.1")
        async with through(world.ports["mx"], header) as client:
            await client.hear()
            await client.expect("EHLO client.example", "250")
            assert (await client.deliver(MESSAGE)).startswith("250")


async def test_nor_by_imap(village: Village, tmp_path: Path) -> None:
    tls.ensure_certificate(conf)
    async with running(tmp_path) as world:
        ingest, certificates = world.server.receiver.ingest, world.server.certificates
        server = imap.Server(ingest, certificates, Limits(), "mx.example.test", 1 << 20, LOOPBACK)
        await server.listen("127.0.0.1", 0, 0)
        try:
            for header, allowed in ((OURSELVES, True), (LOCAL, False), (UNKNOWN, False)):
                async with through(server.ports[0], header) as client:
                    assert ("LOGINDISABLED" not in await client.hear()) is allowed
        finally:
            await server.close()
