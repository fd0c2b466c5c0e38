"""What one stranger publishes, or keeps silent about, holds up nobody else."""

from __future__ import annotations

import asyncio

import pytest

from mailcore import db
from mailcore.delivery import fetch, guard
from mailcore.delivery.fetch import FetchError
from mailcore.delivery.mx import Resolver
from mailcore.delivery.tls import chores, mta_sts, tlsrpt
from mailcore.store import transport
from mailcore.store.transport import Count
from tests.delivery.world import World

RECORDS = ("https://[far", "https://collector.example/a b", "https://collector.example:x/")


@pytest.mark.parametrize("url", RECORDS)
async def test_an_address_that_is_none_is_an_error_of_the_one_who_published_it(here: World, url: str) -> None:
    with pytest.raises(FetchError, match="not an address"):
        await fetch.fetch(url, here.conf, Resolver(here.conf.dns))


async def test_a_report_that_cannot_be_addressed_does_not_keep_the_others_from_leaving(here: World) -> None:
    domains = [f"far{number}.example" for number in range(len(RECORDS))]
    async with db.transaction() as tx:
        await transport.count(tx, [Count(name, '{"policy-type": "sts"}') for name in (*domains, "zoe.example")])
        await tx.execute("UPDATE tls_result SET day = day - 2")
    for name, url in zip(domains, RECORDS, strict=True):
        here.names.zone[f"_smtp._tls.{name}"] = {"TXT": [f'"v=TLSRPTv1; rua={url}"']}
    here.names.zone["_smtp._tls.zoe.example"] = {"TXT": ['"v=TLSRPTv1; rua=mailto:zoe@zoe.example"']}
    sent = await tlsrpt.send_due(here.conf, Resolver(here.conf.dns))
    assert (sent.sent, sent.later) == (1, len(RECORDS))
    assert set(await here.rows()) == {"zoe@zoe.example"}


async def test_a_silent_web_server_does_not_let_other_policies_expire(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes first, because its policy expires first; the round ends long before it would answer."""
    async with db.transaction() as tx:
        for name, age in (("silent.example", 90_000), ("zoe.example", 100_000)):
            await transport.keep_policy(tx, name, "1", "enforce", ["mx.example"], age)
        await tx.execute("UPDATE mta_sts_policy SET fetched_at = fetched_at - interval '80000 seconds'")

    async def load(domain: str, *_: object) -> mta_sts.Policy:
        if domain == "silent.example":
            await asyncio.Event().wait()
        return mta_sts.Policy("enforce", ("mx.example",), 100_000)

    monkeypatch.setattr(mta_sts, "load", load)
    round_ = asyncio.create_task(mta_sts.refresh(here.conf, Resolver(here.conf.dns)))
    async with asyncio.timeout(60):
        while not await _is_fresh("zoe.example"):
            await asyncio.sleep(0.01)
    round_.cancel()
    await asyncio.gather(round_, return_exceptions=True)


async def _is_fresh(domain: str) -> bool:
    async with db.read() as tx:
        row = await tx.one(
            "SELECT fetched_at > now() - interval '1 hour' FROM mta_sts_policy WHERE domain = %s::text", (domain,)
        )
    return bool(row and row[0])


def test_a_fetch_ends_within_a_round_of_chores() -> None:
    """So that its failure is written down, and the next round begins with somebody else."""
    assert mta_sts.TXT_LIFETIME + mta_sts.REFRESH_SECONDS < chores.BUDGET / 2


@pytest.mark.parametrize("address", ["fec0::1", "feff::25"])
def test_site_local_addresses_are_not_public(address: str) -> None:
    assert not guard.may_reach(address, ())
