"""DANE for SMTP (RFC 7672): a host's certificate against the TLSA records that DNSSEC vouches for.

Of the four usages two count: DANE-EE(3), this very certificate or key whatever its names and dates say, and
DANE-TA(2), an authority that the certificate must chain to, with names and dates right. PKIX-TA and PKIX-EE are not for
mail (RFC 7672 §3.1.3).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.verification import (
    Criticality,
    DNSName,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from mailcore.delivery.tlsa import TLSA

TA, EE = 2, 3
FULL, KEY = 0, 1
_DIGESTS = {1: hashlib.sha256, 2: hashlib.sha512}
MAX_CHAIN = 20


@dataclass(frozen=True, slots=True)
class Record:
    """A usable TLSA record: usage 2 or 3, selector 0 (certificate) or 1 (key), matching 0 to 2, and its octets."""

    usage: int
    selector: int
    matching: int
    data: bytes

    def fits(self, certificate: x509.Certificate) -> bool:
        """Whether it names this certificate or its key."""
        if self.selector == FULL:
            octets = certificate.public_bytes(Encoding.DER)
        else:
            octets = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        digest = _DIGESTS.get(self.matching)
        return (digest(octets).digest() if digest else octets) == self.data

    def __str__(self) -> str:
        return f"{self.usage} {self.selector} {self.matching} {self.data.hex()}"


class Mismatch(Exception):
    """The certificate is not what the records say. `result`: the result type of RFC 8460 §4.3."""

    def __init__(self, result: str, text: str) -> None:
        super().__init__(text)
        self.result = result


def usable(found: Sequence[TLSA]) -> tuple[Record, ...]:
    """The records that can be matched; of the others DNSSEC says that TLS is offered, and nothing more (§2.2)."""
    records = []
    for each in found:
        record = Record(each.usage, each.selector, each.mtype, bytes(each.cert))
        if record.usage not in (TA, EE) or record.selector not in (FULL, KEY):
            continue
        if record.matching in _DIGESTS:
            if len(record.data) != _DIGESTS[record.matching]().digest_size:
                continue
        elif record.matching != 0 or not _parses(record):
            continue
        records.append(record)
    return tuple(records)


def _parses(record: Record) -> bool:
    """Matching type 0: the data is the thing itself, and has to be one. Of a bare key of an authority no name is known:
    it is matched among what the host presents."""
    if record.selector == KEY:
        return bool(record.data)
    try:
        x509.load_der_x509_certificate(record.data)
    except ValueError:
        return False
    return True


def check(
    records: Sequence[Record], chain: Sequence[bytes], names: Sequence[str], now: datetime | None = None
) -> Record:
    """The record that a host's certificate is proved by. `chain`: DER, the host's own first; `names`: any of them must
    be the certificate's, for DANE-TA. Raises Mismatch."""
    if not chain:
        raise Mismatch("validation-failure", "the host showed no certificate")
    try:
        certificates = [x509.load_der_x509_certificate(each) for each in chain[:MAX_CHAIN]]
        for record in records:
            if record.usage == EE and record.fits(certificates[0]):
                return record
        trouble: Mismatch | None = None
        for record in records:
            if record.usage != TA:
                continue
            for anchor in _anchors(record, certificates):
                try:
                    _chains(certificates, anchor, names, now or datetime.now(UTC))
                    return record
                except Mismatch as error:
                    trouble = error
    except (ValueError, InvalidSignature) as error:
        raise Mismatch("validation-failure", f"a certificate cannot be read: {error}") from None
    raise trouble or Mismatch("validation-failure", "no TLSA record fits the certificate")


def _anchors(record: Record, certificates: Sequence[x509.Certificate]) -> list[x509.Certificate]:
    """The authority that a record names: among what the host shows, or in the record itself."""
    found = [each for each in certificates if record.fits(each)]
    if not found and record.matching == 0 and record.selector == FULL:
        found = [x509.load_der_x509_certificate(record.data)]
    return found


def _chains(
    certificates: Sequence[x509.Certificate], anchor: x509.Certificate, names: Sequence[str], now: datetime
) -> None:
    """Raise Mismatch unless the host has a certificate under this authority, in date and for one of the names."""
    leaf = certificates[0]
    if not leaf.not_valid_before_utc <= now <= leaf.not_valid_after_utc:
        raise Mismatch("certificate-expired", "the certificate has expired or is not valid yet")
    if leaf == anchor:
        # The host's own certificate as its authority: allowed (RFC 7671 §5.2.2), with the names checked.
        if any(fits(name, leaf) for name in names):
            return
        raise Mismatch("certificate-host-mismatch", f"the certificate is not for {names[0]}")
    trouble = ""
    builder = PolicyBuilder().store(Store([anchor])).time(now).extension_policies(ca_policy=_AUTHORITY, ee_policy=_HOST)
    if not any(fits(name, leaf) for name in names):
        raise Mismatch("certificate-host-mismatch", f"the certificate is not for {names[0]}")
    for name in names:
        try:
            builder.build_server_verifier(DNSName(name)).verify(leaf, list(certificates[1:]))
            return
        except VerificationError as error:
            trouble = str(error)
    raise Mismatch("certificate-not-trusted", f"the certificate does not chain to the TLSA record: {trouble[:200]}")


def fits(name: str, certificate: x509.Certificate) -> bool:
    """Whether a certificate is for a host name; a wildcard stands for the first label (RFC 6125 §6.4.3)."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return False
    patterns = [each.lower().rstrip(".") for each in extension.value.get_values_for_type(x509.DNSName)]
    name = name.lower().rstrip(".")
    return name in patterns or "*." + name.partition(".")[2] in patterns


def _is_authority(policy: Policy, certificate: x509.Certificate, value: x509.BasicConstraints) -> None:
    if not value.ca:
        raise ValueError("an issuer is no authority")


def _may_sign(policy: Policy, certificate: x509.Certificate, value: x509.KeyUsage | None) -> None:
    if value is not None and not value.key_cert_sign:
        raise ValueError("an issuer may not sign certificates")


# Authorities of one's own lack much of what the web's must have; that they are authorities is not among it.
_AUTHORITY = (
    ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, _is_authority)
    .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _may_sign)
)
_HOST = ExtensionPolicy.permit_all().require_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)
