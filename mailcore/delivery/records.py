"""What the owner of a hosted domain publishes in the DNS, so that mail arrives, is trusted, and programs find us."""

from __future__ import annotations

import hashlib
from typing import Literal

from mailcore.conf import conf
from mailcore.db import Tx
from mailcore.delivery import dkim
from mailcore.delivery.dkim import DnsRecord

StsMode = Literal["none", "testing", "enforce"]

# Seconds for which other servers keep our MTA-STS policy: long, so that nobody can make them forget it; short while
# it is being tried.
STS_AGE = {"testing": 86_400, "enforce": 30 * 86_400}


def sts_policy(mode: StsMode) -> str:
    """The text of the MTA-STS policy of our domains (RFC 8461 §3.2); "none" takes back what was there before."""
    lines = ["version: STSv1", f"mode: {mode}"]
    if mode != "none":
        lines.append(f"mx: {conf.hostname}")
    lines.append(f"max_age: {STS_AGE.get(mode, 86_400)}")
    return "".join(f"{line}\r\n" for line in lines)


async def of_domain(tx: Tx, domain: str, sts: StsMode = "none") -> list[DnsRecord]:
    """MX, SPF, DKIM, DMARC, TLS reports, with `sts` MTA-STS, and where mail programs find our servers (RFC 6186)."""
    host = f"{conf.hostname}."
    records = [DnsRecord(domain, "MX", f"10 {host}"), DnsRecord(domain, "TXT", "v=spf1 mx -all")]
    records += await dkim.dns_records(tx, domain)
    records += [
        DnsRecord(f"_dmarc.{domain}", "TXT", f"v=DMARC1; p=none; rua=mailto:postmaster@{domain}"),
        DnsRecord(f"_smtp._tls.{domain}", "TXT", f"v=TLSRPTv1; rua=mailto:{conf.tls_reports}@{domain}"),
    ]
    if sts != "none":
        # Other servers fetch the policy again when its id has changed.
        number = hashlib.sha256(sts_policy(sts).encode()).hexdigest()[:20]
        records += [
            DnsRecord(f"_mta-sts.{domain}", "TXT", f"v=STSv1; id={number}"),
            DnsRecord(f"mta-sts.{domain}", "CNAME", host),
        ]
    records += [DnsRecord(f"{name}.{domain}", "CNAME", host) for name in ("autoconfig", "autodiscover")]
    services = (("imaps", conf.imaps_port), ("submissions", conf.submissions_port))
    records += [DnsRecord(f"_{name}._tcp.{domain}", "SRV", f"0 1 {port} {host}") for name, port in services if port]
    return records
