"""What beat has done for transport security now and then: policies fetched anew, reports sent."""

from __future__ import annotations

import asyncio
import logging

from mailcore.conf import Conf
from mailcore.delivery.mx import Resolver
from mailcore.delivery.tls import mta_sts, tlsrpt

log = logging.getLogger(__name__)

BUDGET = 120.0


async def run(conf: Conf, budget: float = BUDGET) -> None:
    """Both, for at most `budget` seconds; what is left is done next time."""
    resolver = Resolver(conf.dns, conf.dnssec)
    until = asyncio.get_running_loop().time() + budget
    try:
        async with asyncio.timeout(budget / 2):
            done, failed = await mta_sts.refresh(conf, resolver)
        if done or failed:
            log.info("%d MTA-STS policies were fetched anew, %d could not be", done, failed)
    except TimeoutError:
        log.info("some MTA-STS policies are fetched anew next time")
    sent = await tlsrpt.send_due(conf, resolver, until=until)
    if sent.sent or sent.later:
        log.info("%d TLS reports were sent, %d are tried again", sent.sent, sent.later)
