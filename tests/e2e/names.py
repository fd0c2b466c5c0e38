"""A real DNS server for the tests: Debian's dnsmasq with the records it is given, on a port of loopback."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import dns.exception
import dns.resolver
from dns.nameserver import Do53Nameserver

from tests.waiting import PATIENCE

PIECE = 250  # octets in one string of a TXT record; 255 is the most there can be


@dataclass(frozen=True, slots=True)
class Record:
    """A record as `manage.py domain show --json` prints it; for A records the value is the address."""

    name: str
    type: str
    value: str

    def line(self) -> str:
        """The line of dnsmasq's configuration."""
        if self.type == "MX":
            preference, host = self.value.split()
            return f"mx-host={self.name},{host.rstrip('.')},{preference}"
        if self.type == "CNAME":
            return f"cname={self.name},{self.value.rstrip('.')}"
        if self.type == "SRV":
            priority, weight, port, host = self.value.split()
            return f"srv-host={self.name},{host.rstrip('.')},{port},{priority},{weight}"
        if self.type == "TXT":
            pieces = [self.value[at : at + PIECE] for at in range(0, len(self.value), PIECE)]
            return f"txt-record={self.name}," + ",".join(f'"{piece}"' for piece in pieces)
        return f"host-record={self.name},{self.value}"


@contextlib.contextmanager
def serve(program: str, folder: Path, port: int, domains: Iterable[str], records: Iterable[Record]) -> Iterator[None]:
    """Answer for `domains` with `records`, and with NXDOMAIN for whatever else is in them."""
    lines = [
        *("no-resolv", "no-hosts", "bind-interfaces", "listen-address=127.0.0.1", f"port={port}"),
        *(f"local=/{domain}/" for domain in domains),
        *(record.line() for record in records),
    ]
    (folder / "dnsmasq.conf").write_text("\n".join(lines) + "\n")
    with (folder / "dnsmasq.log").open("wb") as log:
        command = [program, "--no-daemon", f"--conf-file={folder / 'dnsmasq.conf'}", "--pid-file="]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + PATIENCE
        while process.poll() is None and not _answers(port):
            assert time.monotonic() < deadline, "dnsmasq does not answer"
        assert process.poll() is None, (folder / "dnsmasq.log").read_text()
        yield
    finally:
        process.terminate()
        process.wait(60)


def resolver(port: int) -> dns.resolver.Resolver:
    """A client that asks this server and no other."""
    made = dns.resolver.Resolver(configure=False)
    made.nameservers = [Do53Nameserver("127.0.0.1", port)]
    return made


def _answers(port: int) -> bool:
    try:
        resolver(port).resolve("probe.invalid", lifetime=1.0)
    except dns.exception.Timeout:
        return False
    except dns.exception.DNSException:
        time.sleep(0.01)
        return True
    return True
