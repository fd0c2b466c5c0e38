"""The certificates of this process: which of them a client is shown, and how they change while it runs.

A client that names a host (SNI) gets the certificate for that name, any other the default one: MAILSTEAD_TLS_CERT and
MAILSTEAD_TLS_KEY (PEM, the certificate with its chain), else what the database has for MAILSTEAD_HOSTNAME, else a
self-signed one in the data directory, which encrypts but proves nothing to a stranger.
"""

from __future__ import annotations

import datetime
import ipaddress
import logging
import os
import ssl
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mailcore.conf import Conf
from mailcore.errors import ConfigError

log = logging.getLogger(__name__)

HANDSHAKE_SECONDS = 30.0
# Ready contexts for names that clients ask for; one takes 30 KB, and 2 ms to make.
CONTEXTS = 128
# OpenSSL draws the keys of session tickets once for each context: it must not live for ever, or they would.
TICKET_SECONDS = 6 * 3600.0
_NAME = "mailstead_asked_name"
_LIFETIME = datetime.timedelta(days=3650)


class Context(ssl.SSLContext):
    """For a listener; `bindings`: what SASL can bind a login to on its connections.

    That is the certificate (tls-server-end-point, RFC 5929 §4.1): Python cannot export keying material (tls-exporter).
    """

    bindings: Mapping[str, bytes] = {}


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate that can be served: PEM with its chain, and how to get the PEM of its key when it is needed."""

    chain: bytes
    key: Callable[[], bytes]
    names: tuple[str, ...]


class Certificates:
    """What the listeners of a process offer. Raises ConfigError when the default certificate cannot be used."""

    def __init__(self, conf: Conf) -> None:
        self._conf = conf
        self._kept: Mapping[str, Pair] = {}
        self._ready: OrderedDict[int, Context] = OrderedDict()
        self._stamp: object = None
        self._own = _from_files(conf)
        self._stamp = _stamp(conf)
        self._made = time.monotonic()
        self._front = self._make_front()

    @property
    def context(self) -> ssl.SSLContext:
        """For the next handshake."""
        if time.monotonic() - self._made > TICKET_SECONDS:
            self._begin_anew()
        return self._front

    def take(self, kept: Iterable[Pair]) -> None:
        """Serve these as well; connections that are open go on with what they have."""
        self._kept = {name: pair for pair in kept for name in pair.names}
        self._begin_anew()

    def look_at_files(self) -> bool:
        """Whether the files of the default certificate have changed, and can be used; else the last ones stay."""
        stamp = _stamp(self._conf)
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            self._own = _from_files(self._conf)
        except ConfigError as error:  # half of it is written: the other half comes in a moment
            log.warning("the former certificate stays in use: %s", error)
            return False
        self._begin_anew()
        return True

    def _begin_anew(self) -> None:
        # Tickets of the former context open nothing here: a login is bound to the certificate that its client has seen.
        self._ready.clear()
        self._made = time.monotonic()
        self._front = self._make_front()

    def _make_front(self) -> Context:
        pair = self._own
        if self._conf.tls_cert is None:
            pair = self._find(self._conf.hostname.lower()) or pair
        try:
            context = _context(pair)
        except (ConfigError, ssl.SSLError) as error:
            log.error("the certificate of the database for %s cannot be used: %s", self._conf.hostname, error)
            context = _context(self._own)
        context.sni_callback = self._choose
        return context

    def _find(self, name: str) -> Pair | None:
        return self._kept.get(name) or self._kept.get(f"*.{name.partition('.')[2]}")

    def _choose(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        setattr(connection, _NAME, name)
        if name is None or len(name) > 255:
            return
        name = name.lower().rstrip(".")
        if self._conf.tls_cert is not None and covers(self._own.names, name):
            return
        pair = self._find(name)
        if pair is None:
            return
        at = id(pair)  # a wildcard is one context, whatever is asked for
        ready = self._ready.get(at)
        if ready is None:
            try:
                ready = self._ready[at] = _context(pair)
            except (ConfigError, ssl.SSLError) as error:
                log.error("the certificate for %s cannot be used: %s", name, error)
                return
            if len(self._ready) > CONTEXTS:
                self._ready.popitem(last=False)
        self._ready.move_to_end(at)
        connection.context = ready


def _context(pair: Pair) -> Context:
    """Raises ConfigError, ssl.SSLError."""
    context = Context(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Python loads certificates from files alone; this one never reaches a disk. The key stands first, so that it is
    # the one that counts where the certificate's file has one too.
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        content = pair.key() + b"\n" + pair.chain
        os.write(descriptor, content)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password=lambda: b"")
    finally:
        os.close(descriptor)
    context.bindings = _bindings(x509.load_pem_x509_certificate(pair.chain))
    return context


def usable(pair: Pair) -> None:
    """Raises ConfigError or ssl.SSLError when OpenSSL cannot serve it."""
    _context(pair)


def _from_files(conf: Conf) -> Pair:
    """Raises ConfigError when they cannot be used."""
    path, key = certificate_files(conf)
    try:
        chain, secret = path.read_bytes(), key.read_bytes()
        pair = Pair(chain, lambda: secret, tuple(names(x509.load_pem_x509_certificate(chain))))
        _context(pair)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(f"the TLS certificate {path} with key {key} cannot be used: {reason}") from None
    return pair


def _stamp(conf: Conf) -> object:
    found: list[tuple[int, int, int] | None] = []
    for path in certificate_files(conf):
        try:
            status = path.stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_mtime_ns, status.st_size, status.st_ino))
    return found


def certificate_files(conf: Conf) -> tuple[Path, Path]:
    """Certificate (with chain) and private key, both PEM."""
    folder = conf.data / "tls"
    return conf.tls_cert or folder / "cert.pem", conf.tls_key or folder / "key.pem"


def ensure_certificate(conf: Conf) -> None:
    """Make a self-signed certificate when there is none yet. Raises ConfigError when the named one cannot be used."""
    path, key = certificate_files(conf)
    if conf.tls_cert is None and conf.tls_key is None and not (path.exists() and key.exists()):
        _make(path, key, conf.hostname)
    _from_files(conf)


def asked_name(connection: ssl.SSLObject) -> str | None:
    """The host name that a client asked for (SNI), of a connection of `Certificates`."""
    return getattr(connection, _NAME, None)


def bindings(connection: ssl.SSLObject | None) -> Mapping[str, bytes]:
    """What SASL can bind a login to on this connection of `Certificates`; nothing without TLS."""
    context = connection.context if connection is not None else None
    return context.bindings if isinstance(context, Context) else {}


def covers(offered: Iterable[str], name: str) -> bool:
    """Whether a certificate of these names is one for a host."""
    return bool({name, f"*.{name.partition('.')[2]}"} & set(offered))


@lru_cache(maxsize=8)
def trusting(authorities: Path | None) -> ssl.SSLContext:
    """For a client: a certificate of the server's name, from an authority of the system's or one of these (PEM).

    Raises ConfigError.
    """
    context = ssl.create_default_context()
    context.hostname_checks_common_name = False
    if authorities is not None:
        try:
            context.load_verify_locations(authorities)
        except (OSError, ssl.SSLError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise ConfigError(f"MAILSTEAD_TLS_CA: the authorities in {authorities} cannot be used: {reason}") from None
    return context


def certificate(conf: Conf) -> x509.Certificate:
    """The default certificate as the files have it. Raises ConfigError."""
    path, _ = certificate_files(conf)
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"the TLS certificate {path} cannot be read: {error}") from None


def _bindings(ours: x509.Certificate) -> dict[str, bytes]:
    algorithm = ours.signature_hash_algorithm
    if algorithm is None:  # such as Ed25519: not defined for it
        return {}
    weak = isinstance(algorithm, hashes.MD5 | hashes.SHA1)
    return {"tls-server-end-point": ours.fingerprint(hashes.SHA256() if weak else algorithm)}


def names(of: x509.Certificate) -> list[str]:
    """The host names that a certificate is for, in lower case."""
    try:
        extension = of.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return [name.lower() for name in extension.value.get_values_for_type(x509.DNSName)]


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
