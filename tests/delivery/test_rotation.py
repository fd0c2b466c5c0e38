"""New signing keys: published first, in use when the DNS shows them all, the old ones published for a while yet."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import dkim as dkimpy
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from django.core.management import CommandError, call_command
from django.db import connection

from accounts import people
from mailcore import conf as configuration
from mailcore import db
from mailcore.delivery import dkim, rotation
from mailcore.delivery.mx import Resolver
from mailcore.management.commands import domain as command
from mailcore.store import signing_keys
from mailcore.store.signing_keys import SigningKey
from tests.delivery.nameserver import NameServer

DOMAIN = "example.test"
MESSAGE = b"From: Ann <ann@example.test>\r\nSubject: hello\r\n\r\nHello\r\n"

pytestmark = [pytest.mark.django_db(transaction=True)]


@pytest.fixture(autouse=True)
def keys(database_url: str, rsa_key: rsa.RSAPrivateKey, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(dkim, "generate_private_key", lambda *_: rsa_key)
    people.add_domain(DOMAIN)
    with db.django_transaction() as tx:
        db.run_sync(dkim.create_keys(tx, DOMAIN))
    yield


@pytest.fixture
async def names(database_url: str) -> AsyncIterator[NameServer]:
    server = await NameServer().start()
    await db.open_pool(4)
    yield server
    await db.close_pool()
    await server.stop()


async def stored() -> list[SigningKey]:
    async with db.read() as tx:
        return await signing_keys.of_domain(tx, DOMAIN)


async def states() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key in await stored():
        found.setdefault(key.state, []).append(key.algorithm)
    return {state: sorted(algorithms) for state, algorithms in found.items()}


async def prepare() -> list[SigningKey]:
    async with db.transaction() as tx:
        await dkim.create_keys(tx, DOMAIN, "next")
    async with db.read() as tx:
        return await rotation.coming(tx, DOMAIN)


def publish(names: NameServer, *keys: SigningKey) -> None:
    for key in keys:
        record = dkim.key_record(key)
        names.add(record.name, "TXT", " ".join(f'"{record.value[at : at + 200]}"' for at in range(0, 2000, 200)))


def resolver(names: NameServer) -> Resolver:
    return Resolver((("127.0.0.1", names.port),))


async def test_new_keys_sign_when_the_dns_shows_all_of_them_and_no_sooner(names: NameServer) -> None:
    both = ["ed25519", "rsa"]
    old = await stored()
    new = await prepare()
    assert await states() == {"active": both, "next": both}
    assert await rotation.step(resolver(names)) == 0, "nothing is published"
    publish(names, new[0])
    assert await rotation.step(resolver(names)) == 0, "one of two is"
    async with db.read() as tx:
        assert {key.selector for key in await dkim.load_keys(tx, DOMAIN)} == {key.selector for key in old}
    publish(names, new[1])
    assert await rotation.step(resolver(names)) == 1
    assert await states() == {"active": both, "retired": both}
    assert await rotation.step(resolver(names)) == 0
    async with db.read() as tx:
        opened = await dkim.load_keys(tx, DOMAIN)
        records = {record.name: record.value for record in await dkim.dns_records(tx, DOMAIN)}
    assert {key.selector for key in opened} == {key.selector for key in new}
    assert len({key.selector for key in (*old, *new)}) == 4, "no selector is used twice"
    message = dkimpy.DKIM(dkim.sign(MESSAGE, opened) + MESSAGE)

    def lookup(name: bytes, timeout: int = 5) -> bytes:
        return records[name.decode().rstrip(".")].encode()

    assert message.verify(0, dnsfunc=lookup) and message.verify(1, dnsfunc=lookup)
    assert all(dkim.key_record(key).name in records for key in old), "what was signed before can still be verified"


async def test_a_record_with_another_key_or_a_dns_that_fails_changes_nothing(names: NameServer) -> None:
    first, second = await prepare()
    publish(names, first)
    names.add(dkim.key_record(second).name, "TXT", f'"v=DKIM1; p={first.public_key[:100]}"')
    assert await rotation.step(resolver(names)) == 0
    names.failing.add(dkim.key_record(second).name)
    assert await rotation.step(resolver(names)) == 0
    assert await states() == {"active": ["ed25519", "rsa"], "next": ["ed25519", "rsa"]}


async def test_retired_keys_go_after_a_while_and_their_selectors_do_not_come_back_before(names: NameServer) -> None:
    publish(names, *await prepare())
    await rotation.step(resolver(names))
    async with db.transaction() as tx:
        await tx.execute("UPDATE dkim_key SET changed_at = now() - interval '7 days' WHERE state = 'retired'")
    await rotation.step(resolver(names))
    assert "retired" in await states()
    async with db.transaction() as tx:
        await tx.execute("UPDATE dkim_key SET changed_at = now() - interval '9 days' WHERE state = 'retired'")
    await rotation.step(resolver(names))
    assert await states() == {"active": ["ed25519", "rsa"]}


async def test_two_who_rotate_at_once_rotate_once(names: NameServer) -> None:
    publish(names, *await prepare())
    assert sorted(await asyncio.gather(*(rotation.step(resolver(names)) for _ in range(3)))) == [0, 0, 1]
    assert await states() == {"active": ["ed25519", "rsa"], "retired": ["ed25519", "rsa"]}


async def test_the_27th_rotation_of_a_year_still_finds_a_selector(names: NameServer) -> None:
    for _ in range(27):
        for key in await prepare():
            async with db.transaction() as tx:
                await signing_keys.turn(tx, DOMAIN, [key.selector])
    assert len({key.selector for key in await stored()}) == 56


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command("domain", *arguments, stdout=out)
    return out.getvalue()


def test_an_administrator_rotates_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    # A name server that is not there shows nothing.
    monkeypatch.setattr(command, "conf", replace(configuration.conf, dns=(("127.0.0.1", 9),)))
    said = run("dkim", "rotate", DOMAIN)
    assert "Publish these records" in said and said.count("IN TXT") == 2
    assert run("dkim", "rotate", DOMAIN) == said, "asking again makes no further keys"
    listed = json.loads(run("dkim", "list", DOMAIN, "--json"))
    assert sorted(key["state"] for key in listed) == ["active", "active", "next", "next"]
    assert all(key["record"]["name"] in run("show", DOMAIN) for key in listed)
    said = run("dkim", "rotate", DOMAIN, "--now")
    coming = [key["selector"] for key in listed if key["state"] == "next"]
    assert all(selector in said for selector in coming)
    assert "signs no more" in run("dkim", "list", DOMAIN) and "PRIVATE" not in run("dkim", "list", DOMAIN, "--json")
    with connection.cursor() as cursor:
        cursor.execute("SELECT selector FROM dkim_key WHERE state = 'active' ORDER BY 1")
        assert [row[0] for row in cursor.fetchall()] == sorted(coming)
    with pytest.raises(CommandError):
        run("dkim", "rotate", "elsewhere.test")
