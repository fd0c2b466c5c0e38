"""A certificate authority of the tests' own, and a web server for policies and reports."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Issued:
    """A certificate with its key; `chain` PEM of it and what stands above it, without the root."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    above: tuple[x509.Certificate, ...] = ()

    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    def spki(self) -> bytes:
        return self.key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def context(self, folder: Path, *extra: Issued) -> ssl.SSLContext:
        """For a server that shows it, what stands above it, and `extra`."""
        number = self.certificate.serial_number
        chain, key = folder / f"{number}.pem", folder / f"{number}.key"
        above = b"".join(each.public_bytes(serialization.Encoding.PEM) for each in self.above)
        chain.write_bytes(self.pem() + above + b"".join(each.pem() for each in extra))
        key.write_bytes(
            self.key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain, key)
        return context


@dataclass(frozen=True)
class Authority:
    """Issues certificates; one `under` another is an intermediate one, and one with a `given` certificate need not be
    entitled to issue any."""

    name: str = "Test Authority"
    under: Authority | None = None
    given: Issued | None = None

    @cached_property
    def own(self) -> Issued:
        if self.given is not None:
            return self.given
        key = ec.generate_private_key(ec.SECP256R1())
        return _issue(self.name, (), key, self.under, authority=True)

    def issue(self, *names: str, days: int = 30, authority: bool = False, since: int = -2) -> Issued:
        """A certificate for host names; days < 0 = it has expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        return _issue(names[0], names, key, self, days=days, authority=authority, since=since)

    def file(self, folder: Path) -> Path:
        """The authority's certificate as a file to trust."""
        path = folder / f"{self.own.certificate.serial_number}-ca.pem"
        path.write_bytes(self.own.pem())
        return path


def _issue(
    name: str,
    names: tuple[str, ...],
    key: ec.EllipticCurvePrivateKey,
    by: Authority | None,
    *,
    days: int = 30,
    authority: bool = False,
    since: int = -2,
) -> Issued:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer = by.own if by is not None else None
    signer = issuer.key if issuer else key
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + since * DAY)
        .not_valid_after(now + days * DAY)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if names:
        alternatives = x509.SubjectAlternativeName([x509.DNSName(each) for each in names])
        builder = builder.add_extension(alternatives, critical=False)
    above: tuple[x509.Certificate, ...] = ()
    if issuer is not None and by is not None and by.under is not None:
        above = (issuer.certificate, *issuer.above)
    return Issued(builder.sign(signer, hashes.SHA256()), key, above)


@dataclass
class WebServer:
    """HTTPS on loopback: answers each path from a table, and remembers what it was asked and sent."""

    context: ssl.SSLContext
    pages: dict[str, tuple[int, str, bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    posted: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    raw: bytes | None = None  # instead of any page
    hang: bool = False
    port: int = 0
    _server: asyncio.Server | None = None

    async def start(self) -> WebServer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.split("\r\n")
            method, path, _ = first.split(" ")
            headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
            self.asked.append(path)
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            if method == "POST":
                self.posted.append((path, headers, body))
            if self.hang:
                await asyncio.sleep(3600)
            status, kind, page = self.pages.get(path, (404, "text/plain", b"nothing"))
            reply = (
                f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(page)}\r\n\r\n".encode() + page
            )
            writer.write(self.raw if self.raw is not None else reply)
            await writer.drain()
        except (OSError, EOFError):
            pass
        finally:
            writer.close()
