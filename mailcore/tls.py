"""The certificate of this host: made by itself on the first run, read by every server that offers TLS.

MAILSTEAD_TLS_CERT and MAILSTEAD_TLS_KEY name your own (PEM, the certificate with its chain); without them a
self-signed one lives in the data directory, which encrypts but proves nothing to a stranger.
"""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import os
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mailcore.conf import Conf
from mailcore.errors import ConfigError

HANDSHAKE_SECONDS = 30.0
_LIFETIME = datetime.timedelta(days=3650)


def certificate_files(conf: Conf) -> tuple[Path, Path]:
    """Certificate (with chain) and private key, both PEM."""
    folder = conf.data / "tls"
    return conf.tls_cert or folder / "cert.pem", conf.tls_key or folder / "key.pem"


def ensure_certificate(conf: Conf) -> None:
    """Make a self-signed certificate when there is none yet. Raises ConfigError when the named one cannot be used."""
    path, key = certificate_files(conf)
    if conf.tls_cert is None and conf.tls_key is None and not (path.exists() and key.exists()):
        _make(path, key, conf.hostname)
    server_context(conf)


def server_context(conf: Conf) -> ssl.SSLContext:
    """For a listener: TLS 1.2 or newer. Raises ConfigError."""
    path, key = certificate_files(conf)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(path, key)
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(f"the TLS certificate {path} with key {key} cannot be used: {reason}") from None
    return context


def certificate(conf: Conf) -> x509.Certificate:
    """The certificate in use. Raises ConfigError."""
    path, _ = certificate_files(conf)
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"the TLS certificate {path} cannot be read: {error}") from None


def bindings(conf: Conf) -> dict[str, bytes]:
    """What SASL can bind a login to on our TLS connections: the certificate (tls-server-end-point, RFC 5929 §4.1).

    Python cannot export keying material (tls-exporter). Raises ConfigError.
    """
    ours = certificate(conf)
    algorithm = ours.signature_hash_algorithm
    if algorithm is None:  # such as Ed25519: not defined for it
        return {}
    weak = isinstance(algorithm, hashes.MD5 | hashes.SHA1)
    return {"tls-server-end-point": ours.fingerprint(hashes.SHA256() if weak else algorithm)}


def names(of: x509.Certificate) -> list[str]:
    """The host names that a certificate is for."""
    try:
        extension = of.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return extension.value.get_values_for_type(x509.DNSName)


def _make(path: Path, key: Path, hostname: str) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    # A common name holds 64 characters; what counts is the alternative name.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostname[:64])])
    hosts = dict.fromkeys([hostname, "localhost"])
    alternatives = [_alternative(host) for host in hosts]
    alternatives += [x509.IPAddress(ipaddress.ip_address(each)) for each in ("127.0.0.1", "::1")]
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(private, hashes.SHA256())
    )
    secret = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write(key, secret)
    _write(path, signed.public_bytes(serialization.Encoding.PEM))


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host.encode("idna").decode() if not host.isascii() else host)


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


class Handshake(asyncio.Protocol):
    """A connection of a TLS port until it is encrypted; then the protocol of `make` has it.

    A listener with a context of its own says nothing of a connection before its handshake is over: thousands that
    never finish would be seen by no limit. `admit(address)` is asked at the first moment: it counts the connection and
    returns how to stop counting it, or None to drop it. `going` holds those under way, so that a server can end them.
    """

    __slots__ = ("_admit", "_context", "_going", "_make", "_release", "_task")

    def __init__(
        self,
        context: ssl.SSLContext,
        make: Callable[[], asyncio.Protocol],
        admit: Callable[[str], Callable[[], None] | None],
        going: set[Handshake],
    ) -> None:
        self._context = context
        self._make = make
        self._admit = admit
        self._going = going
        self._release: Callable[[], None] | None = None
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._task is not None:
            self._enter(cast(asyncio.Transport, transport))
            return
        peer = transport.get_extra_info("peername")
        self._release = self._admit(peer[0] if isinstance(peer, tuple) else "")
        if self._release is not None:
            # This transport would read the client's first octets before TLS can take over (uvloop's does): TLS gets
            # the socket itself.
            try:
                sock = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
            except OSError:  # no descriptor is left, or the client is
                self._leave()
            else:
                sock.setblocking(False)
                self._going.add(self)
                self._task = asyncio.get_running_loop().create_task(self._shake(sock))
        cast(asyncio.Transport, transport).abort()

    def abort(self) -> None:
        """End it now."""
        if self._task is not None:
            self._task.cancel()

    async def _shake(self, sock: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self, sock, ssl=self._context, ssl_handshake_timeout=HANDSHAKE_SECONDS
            )
        except OSError:  # TimeoutError, ssl.SSLError and a client that has left among them
            sock.close()
        finally:
            self._leave()

    def _enter(self, encrypted: asyncio.Transport) -> None:
        self._leave()  # from here on the protocol is counted
        protocol = self._make()
        encrypted.set_protocol(protocol)
        protocol.connection_made(encrypted)

    def _leave(self) -> None:
        self._going.discard(self)
        if self._release is not None:
            release, self._release = self._release, None
            release()
