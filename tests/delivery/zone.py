"""Signed zones as the world sees them: Debian's nsd serves them, Debian's unbound validates them, both on loopback.

A host is a name with TLSA records under any port: `*._tcp.HOST`. What a zone says is changed after it was signed where
a test wants a forged answer.
"""

from __future__ import annotations

import datetime
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import dns.dnssec
import dns.flags
import dns.message
import dns.name
import dns.node
import dns.query
import dns.rdatatype
import dns.rrset
import dns.zone
from cryptography.hazmat.primitives.asymmetric import ec
from dns.dnssectypes import Algorithm

from tests.ports import free_ports


@dataclass
class Zone:
    """`lines` in zone file form; `forged` replace what was signed, without a new signature."""

    name: str
    signed: bool = True
    lines: list[str] = field(default_factory=list)
    forged: dict[tuple[str, str], str] = field(default_factory=dict)

    def host(self, domain: str, *tlsa: str, mx: str = "", address: str = "127.0.0.1") -> None:
        """A domain whose mail host is mx.DOMAIN (or `mx`), with these TLSA records."""
        host = mx or f"mx.{domain}"
        self.lines.append(f"{domain}. 60 IN MX 10 {host}.")
        if not mx:
            self.lines.append(f"{host}. 60 IN A {address}")
        self.lines += [f"*._tcp.{host}. 60 IN TLSA {each}" for each in tlsa]

    def write(self, folder: Path) -> str | None:
        """Write the zone file; returns the line of its trust anchor."""
        head = [
            f"{self.name}. 60 IN SOA ns.{self.name}. root.{self.name}. 1 3600 600 86400 60",
            f"{self.name}. 60 IN NS ns.{self.name}.",
            f"ns.{self.name}. 60 IN A 127.0.0.1",
        ]
        zone = dns.zone.from_text("\n".join(head + self.lines) + "\n", f"{self.name}.", relativize=False)
        anchor = None
        if self.signed:
            private = ec.generate_private_key(ec.SECP256R1())
            key = dns.dnssec.make_dnskey(private.public_key(), Algorithm.ECDSAP256SHA256, flags=257)
            now = datetime.datetime.now(datetime.UTC)
            hour = datetime.timedelta(hours=1)
            dns.dnssec.sign_zone(zone, keys=[(private, key)], inception=now - hour, expiration=now + 24 * hour)
            anchor = f"{self.name}. IN DNSKEY {key.to_text()}"
        for (name, kind), value in self.forged.items():
            forged = dns.rrset.from_text(f"{name}.", 60, "IN", kind, value)
            zone.replace_rdataset(f"{name}.", forged.to_rdataset())
        (folder / f"{self.name}.zone").write_text(zone.to_text(relativize=False))
        return anchor


@contextmanager
def serve(unbound: str, nsd: str, folder: Path, zones: Sequence[Zone]) -> Iterator[int]:
    """The port of a resolver on 127.0.0.1 that validates these zones."""
    source, port = free_ports(2)
    anchors = [anchor for zone in zones if (anchor := zone.write(folder)) is not None]
    (folder / "anchors").write_text("\n".join(anchors) + "\n")
    (folder / "nsd.conf").write_text(
        "server:\n"
        f'  ip-address: 127.0.0.1@{source}\n  username: ""\n  chroot: ""\n  zonesdir: "{folder}"\n  database: ""\n'
        f'  pidfile: "{folder}/nsd.pid"\n  xfrdfile: "{folder}/xfrd"\n  zonelistfile: "{folder}/list"\n'
        f'  xfrdir: "{folder}"\n  server-count: 1\nremote-control:\n  control-enable: no\n'
        + "".join(f"zone:\n  name: {each.name}\n  zonefile: {each.name}.zone\n" for each in zones)
    )
    (folder / "unbound.conf").write_text(
        "server:\n"
        f'  interface: 127.0.0.1@{port}\n  directory: "{folder}"\n  pidfile: "{folder}/unbound.pid"\n'
        '  username: ""\n  chroot: ""\n  do-daemonize: no\n  use-syslog: no\n  logfile: ""\n  do-ip6: no\n'
        "  do-not-query-localhost: no\n  access-control: 127.0.0.0/8 allow\n  num-threads: 1\n"
        f'  module-config: "validator iterator"\n  trust-anchor-file: "{folder}/anchors"\n  val-log-level: 2\n'
        "remote-control:\n  control-enable: no\n"
        + "".join(f"stub-zone:\n  name: {each.name}\n  stub-addr: 127.0.0.1@{source}\n" for each in zones)
    )
    environment = os.environ | {"TMPDIR": str(folder)}
    with (folder / "log").open("wb") as log:
        programs = [
            subprocess.Popen(
                [nsd, "-d", "-c", str(folder / "nsd.conf")],
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            ),
            subprocess.Popen(
                [unbound, "-d", "-c", str(folder / "unbound.conf")],
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            ),
        ]
    try:
        _wait(port, zones[0].name, folder / "log")
        yield port
    finally:
        for each in programs:
            os.killpg(each.pid, signal.SIGTERM)
        for each in programs:
            try:
                each.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(each.pid, signal.SIGKILL)


def _wait(port: int, name: str, log: Path) -> None:
    deadline = time.monotonic() + 60
    query = dns.message.make_query(f"{name}.", "SOA")
    query.flags |= dns.flags.AD
    while True:
        try:
            answer = dns.query.udp(query, "127.0.0.1", timeout=1, port=port)
            if answer.answer and answer.flags & dns.flags.AD:
                return
        except (OSError, dns.exception.DNSException):
            pass
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
