"""Certificates from a real authority: Pebble, which rejects a fifth of all nonces."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import pytest
from cryptography import x509
from django.core.management import call_command
from django.db import connections

from accounts import secrets
from mailcore import db, tls
from mailcore.certificates import acme, material, renewal
from mailcore.certificates.watch import Watch
from mailcore.delivery.mx import Resolver
from mailcore.management.commands import certificate as command
from mailcore.store import certificates
from tests.certificates.conftest import Town
from tests.certificates.pebble import pebble

pytestmark = pytest.mark.programs("pebble")

HOST = "mail.example.test"
DOMAIN = "example.test"


async def look(town: Town) -> list[str]:
    return await renewal.look(town.conf, Resolver(town.conf.dns))


async def age(name: str, share: float) -> None:
    """Make a certificate as old as this share of its life."""
    async with db.transaction() as tx:
        await tx.execute(
            "UPDATE certificate SET not_before = now() - (not_after - not_before) * %s::float8, "
            "not_after = now() + (not_after - not_before) * (1 - %s::float8) WHERE name = %s",
            (share, share, name),
        )


async def test_a_host_gets_its_certificate_and_keeps_the_key_when_it_is_renewed(town: Town) -> None:
    assert await look(town) == [HOST]
    done = await renewal.obtain(town.conf, HOST)
    assert done is not None and done.names == (HOST,) and not done.error
    first = await town.stored(HOST)
    assert first.chain is not None and first.failures == 0
    leaf, *above = x509.load_pem_x509_certificates(first.chain.encode())
    leaf.verify_directly_issued_by(above[0])
    above[-1].verify_directly_issued_by(x509.load_pem_x509_certificate(town.authority.root()))
    asked = {path.rpartition("/")[0] for path in town.web.asked}
    assert asked == {f"{HOST}:{town.web.port}/.well-known/acme-challenge"}
    assert b"PRIVATE KEY" not in first.private_key and b"PRIVATE KEY" in secrets.unseal(first.private_key)
    async with db.read() as tx:
        sealed, uri = await certificates.acme_account(tx, town.conf.acme) or (b"", "")
    assert b"PRIVATE KEY" not in sealed and uri.startswith("https://localhost:")

    await age(HOST, 0.66)
    assert await look(town) == []
    await age(HOST, 0.67)
    assert await look(town) == [HOST]
    assert await renewal.obtain(town.conf, HOST)
    second = await town.stored(HOST)
    assert second.chain not in (None, first.chain) and second.version > first.version
    assert secrets.unseal(second.private_key) == secrets.unseal(first.private_key)
    assert await look(town) == []

    await renewal.obtain(town.conf, HOST, force=True, next_key=True)
    third = await town.stored(HOST)
    assert secrets.unseal(third.private_key) == secrets.unseal(first.next_key)
    assert secrets.unseal(third.next_key) not in (secrets.unseal(first.private_key), secrets.unseal(first.next_key))
    shown = x509.load_pem_x509_certificate((third.chain or "").encode()).public_key()
    assert material.key_digest(secrets.unseal(third.private_key)) == material.key_digest(secrets.unseal(first.next_key))
    assert shown == material.public_key(secrets.unseal(first.next_key))


async def test_a_domain_gets_one_for_the_names_that_lead_here(town: Town) -> None:
    town.names.add("mta-sts.example.test", "CNAME", f"{HOST}.")
    town.names.add("autoconfig.example.test", "A", "192.0.2.7")
    assert sorted(await look(town)) == [DOMAIN, HOST]
    assert await renewal.obtain(town.conf, DOMAIN) is not None
    assert (await town.stored(DOMAIN)).names == ("mta-sts.example.test",)
    assert DOMAIN not in await look(town)
    town.names.zone["autoconfig.example.test"]["A"] = ["127.0.0.1"]
    assert DOMAIN in await look(town), "another name leads here by now"
    await renewal.obtain(town.conf, DOMAIN)
    assert set((await town.stored(DOMAIN)).names) == {"mta-sts.example.test", "autoconfig.example.test"}
    async with db.transaction() as tx:
        await tx.execute("DELETE FROM accounts_domain")
    await look(town)
    async with db.read() as tx:
        left = await certificates.every(tx)
    assert [each.name for each in left] == [HOST], "that of a domain which is hosted no more goes"


async def test_a_name_that_cannot_be_verified_does_not_keep_the_others_from_theirs(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("mta-sts", "autoconfig"):
        town.names.add(f"{name}.example.test", "CNAME", f"{HOST}.")
    await renewal.want(DOMAIN)
    publish = certificates.publish_challenge
    refused = iter([True])

    async def forgetful(tx: db.Tx, token: str, answer: str) -> None:
        await publish(tx, token, "something else" if next(refused, False) else answer)

    monkeypatch.setattr(certificates, "publish_challenge", forgetful)
    done = await renewal.obtain(town.conf, DOMAIN)
    assert done is not None and len(done.names) == 1 and "unauthorized" in done.error
    stored = await town.stored(DOMAIN)
    assert stored.names == done.names and stored.failures == 1
    assert timedelta(days=6) < stored.next_try_at - datetime.now(UTC) <= timedelta(days=7)
    assert DOMAIN not in await look(town)


async def test_what_cannot_be_verified_is_tried_again_ever_more_rarely(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def elsewhere(tx: db.Tx, token: str, answer: str) -> None:
        """The web process of another installation answers."""

    monkeypatch.setattr(certificates, "publish_challenge", elsewhere)
    await renewal.want(HOST)
    for failures, wait in ((1, 900), (2, 1800), (3, 3600)):
        done = await renewal.obtain(town.conf, HOST, force=True)
        assert done is not None and not done.names and "unauthorized" in done.error
        stored = await town.stored(HOST)
        assert stored.failures == failures and stored.chain is None and stored.error == done.error
        left = (stored.next_try_at - datetime.now(UTC)).total_seconds()
        assert wait - 60 < left <= wait
    assert await renewal.obtain(town.conf, HOST) is None, "it is not its time"
    monkeypatch.undo()
    done = await renewal.obtain(town.conf, HOST, force=True)
    assert done is not None and done.names == (HOST,)
    assert (await town.stored(HOST)).failures == 0 and not (await town.stored(HOST)).error


async def test_two_workers_do_not_ask_for_the_same(town: Town) -> None:
    await renewal.want(HOST)
    async with db.transaction() as tx:
        assert await certificates.claim(tx, HOST) is not None
    assert await renewal.obtain(town.conf, HOST) is None
    assert not town.web.asked


async def test_an_authority_that_has_forgotten_us_gets_to_know_us_again(town: Town) -> None:
    account = acme.Account(material.new_key(), town.conf.acme.replace("/dir", "/my-account/nobody"))
    async with db.transaction() as tx:
        await certificates.keep_acme_account(tx, town.conf.acme, secrets.seal(account.key), account.uri)
    await renewal.want(HOST)
    done = await renewal.obtain(town.conf, HOST)
    assert done is not None and done.names == (HOST,)
    async with db.read() as tx:
        _, uri = await certificates.acme_account(tx, town.conf.acme) or (b"", "")
    assert uri != account.uri


async def test_an_authority_for_customers_only_is_told_who_we_are(town: Town, tmp_path: Path) -> None:
    secret = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
    folder = tmp_path / "customers"
    folder.mkdir()
    running = pebble("pebble", folder, dns=town.names.port, http=town.web.port, customers={"kid-1": secret})
    authority = await asyncio.to_thread(running.__enter__)
    try:
        ours = replace(town.conf, acme=authority.directory, tls_ca=authority.trust)
        await renewal.want(HOST)
        for binding, words in (("", "MAILSTEAD_ACME_EAB"), ("kid-1:" + secret[::-1], ""), ("kid-9:" + secret, "")):
            done = await renewal.obtain(replace(ours, acme_eab=binding), HOST, force=True)
            assert done is not None and not done.names and words in done.error
            assert secret not in done.error and secret[::-1] not in done.error
        done = await renewal.obtain(replace(ours, acme_eab=f"kid-1:{secret}"), HOST, force=True)
        assert done is not None and done.names == (HOST,), done
    finally:
        await asyncio.to_thread(running.__exit__, None, None, None)


async def test_a_revoked_certificate_gets_a_successor_with_the_next_key(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "conf", town.conf)
    await renewal.want(HOST)
    await renewal.obtain(town.conf, HOST)
    first = await town.stored(HOST)
    await db.close_pool()  # the command opens its own
    output = StringIO()

    def revoke() -> None:
        call_command("certificate", "revoke", HOST, "--reason", "superseded", stdout=output)
        connections.close_all()  # this thread's

    await asyncio.to_thread(revoke)
    await db.open_pool(4)
    second = await town.stored(HOST)
    old, new = (x509.load_pem_x509_certificate((each.chain or "").encode()) for each in (first, second))
    assert await asyncio.to_thread(town.authority.is_revoked, old)
    assert not await asyncio.to_thread(town.authority.is_revoked, new)
    assert new.public_key() == material.public_key(secrets.unseal(first.next_key))
    assert output.getvalue().startswith("Certificate revoked; another one is asked for.\nCertificate for mail.example")


async def test_a_running_server_shows_what_was_issued(town: Town) -> None:
    tls.ensure_certificate(replace(town.conf, tls_ca=None))
    served = tls.Certificates(town.conf)
    watch = Watch(town.conf, served)
    await watch.begin()  # which says that the host wants one
    before = served.context
    assert (await town.stored(HOST)).chain is None
    await renewal.obtain(town.conf, HOST)
    await watch.look()
    assert served.context is not before
    assert tls.bindings(None) == {}


async def test_without_an_address_in_the_dns_the_authority_is_not_asked(town: Town) -> None:
    await renewal.want(DOMAIN)
    done = await renewal.obtain(town.conf, DOMAIN)
    assert done is not None and "publish its DNS records first" in done.error
