"""Keys and certificates as values: made, checked, and what the DNS says of them."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from accounts import secrets
from mailcore import tls
from mailcore.delivery.dkim import DnsRecord
from mailcore.errors import Code, ConfigError, MailError
from mailcore.store.certificates import Stored

# Octets of a file that is to be imported.
MAX_FILE = 256 * 1024


@dataclass(frozen=True, slots=True)
class Checked:
    """A certificate with its chain (PEM) and key (PEM, not sealed) that belong together."""

    chain: str
    key: bytes
    names: tuple[str, ...]
    begins: datetime
    ends: datetime
    self_signed: bool


def new_key() -> bytes:
    """A fresh key, PEM: P-256, which every mail server knows."""
    return _pem(ec.generate_private_key(ec.SECP256R1()))


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def check(chain: bytes, key: bytes) -> Checked:
    """Raises MailError(BAD_VALUE) when they cannot be used together."""
    try:
        leaf, *_ = certificates = x509.load_pem_x509_certificates(chain)
        private = serialization.load_pem_private_key(key, None)
    except TypeError:
        raise MailError(Code.BAD_VALUE, "the key is protected by a password: remove that first") from None
    except ValueError as error:
        why = str(error).partition(". ")[0]  # what follows are addresses of the library's documentation
        raise MailError(Code.BAD_VALUE, f"this is no certificate with its key in PEM: {why}") from None
    if _spki(leaf.public_key()) != _spki(private.public_key()):
        raise MailError(Code.BAD_VALUE, "the key does not belong to the first certificate of the file")
    names = tuple(tls.names(leaf))
    if not names:
        raise MailError(Code.BAD_VALUE, "the certificate names no host")
    text = "".join(each.public_bytes(serialization.Encoding.PEM).decode() for each in certificates)
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        tls.usable(tls.Pair(text.encode(), lambda: pem, names))
    except (ConfigError, ssl.SSLError) as error:
        raise MailError(Code.BAD_VALUE, f"OpenSSL does not take it: {error}") from None
    return Checked(text, pem, names, leaf.not_valid_before_utc, leaf.not_valid_after_utc, leaf.issuer == leaf.subject)


def unsealed(sealed: bytes) -> bytes:
    """A stored key. Raises ConfigError when it was sealed with another installation key."""
    try:
        return secrets.unseal(sealed)
    except secrets.SealError as error:
        raise ConfigError(str(error)) from None


def pair(stored: Stored) -> tls.Pair:
    """How a stored certificate is served; its key stays sealed until somebody asks for the name."""
    assert stored.chain is not None
    return tls.Pair(stored.chain.encode(), lambda: unsealed(stored.private_key), stored.names)


def key_digest(key: bytes) -> str:
    """What a TLSA record `3 1 1` says of a key (PEM)."""
    return hashlib.sha256(_spki(public_key(key))).hexdigest()


def spki_digest(certificate: x509.Certificate) -> str:
    """What a TLSA record `3 1 1` says of a certificate."""
    return hashlib.sha256(_spki(certificate.public_key())).hexdigest()


def tlsa_texts(certificate: x509.Certificate) -> set[str]:
    """All TLSA records of usage 3 that fit a certificate (RFC 6698 §2.1)."""
    whole = certificate.public_bytes(serialization.Encoding.DER)
    texts = set()
    for selector, octets in enumerate((whole, _spki(certificate.public_key()))):
        texts |= {
            f"3 {selector} 0 {octets.hex()}",
            f"3 {selector} 1 {hashlib.sha256(octets).hexdigest()}",
            f"3 {selector} 2 {hashlib.sha512(octets).hexdigest()}",
        }
    return texts


def _spki(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def public_key(key: bytes) -> PublicKeyTypes:
    """The public half of a key (PEM)."""
    return serialization.load_pem_private_key(key, None).public_key()


def tlsa_records(host: str, digests: Sequence[str]) -> list[DnsRecord]:
    """TLSA records for mail from other servers (RFC 7672 §3.1.1): the certificate may change, the key may not."""
    return [DnsRecord(f"_25._tcp.{host}", "TLSA", f"3 1 1 {digest}") for digest in digests]
