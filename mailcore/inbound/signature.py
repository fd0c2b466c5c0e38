"""DKIM signatures on what comes in (RFC 6376, RFC 8301, RFC 8463): whose they are, and whether they hold.

Nothing here asks the DNS: the caller looks up `Signature.key_name` and hands the record to `trouble`. Everything is a
stranger's, the key too; what it may cost is bounded by MAX_FIELD and the size of keys.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import time
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import load_der_public_key

from mailcore.mime import canonical, headers

MAX_FIELD = 16 * 1024
"""Octets of a DKIM-Signature field, and of a key's record; longer ones are passed over."""
MAX_SIGNED = 200
RSA_BITS = range(1024, 4097)

_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_]([a-z0-9_-]{0,62}))*")
_SPACE = re.compile(r"[ \t\r\n]+")


@dataclass(frozen=True, slots=True)
class Signature:
    """A DKIM-Signature field that can be checked. `domain` is d=, in lower case; `raw` the field as it stands."""

    domain: str
    selector: str
    tags: dict[str, str]
    raw: bytes

    @property
    def key_name(self) -> str:
        """Where its key is published."""
        return f"{self.selector}._domainkey.{self.domain}"


@dataclass(frozen=True, slots=True)
class Message:
    """A message as signatures see it: its fields (raw with the line end, lower-case name, value), and its body."""

    fields: tuple[tuple[bytes, bytes, bytes], ...]
    body: bytes

    def values(self, name: bytes) -> list[bytes]:
        """The unfolded values of the fields of a name (lower case)."""
        return [headers.unfold(value) for _, each, value in self.fields if each == name]


def split(raw: bytes) -> Message:
    """Take a message with CRLF line ends apart."""
    end = headers.header_end(raw, 0, len(raw))
    return Message(tuple((field, name.lower(), value) for field, name, value in headers.fields(raw[:end])), raw[end:])


def tags(text: str) -> dict[str, str]:
    """A tag list (RFC 6376 §3.2) without the white space in it. Raises ValueError."""
    found: dict[str, str] = {}
    for part in _SPACE.sub(" ", text).split(";"):
        name, equals, value = part.partition("=")
        name = name.strip()
        if not equals:
            if name:
                raise ValueError(f"{name[:40]!r} is no tag")
        elif name in found:
            raise ValueError(f"{name[:40]!r} is given twice")
        else:
            found[name] = value.strip()
    return found


def signatures(message: Message) -> list[Signature]:
    """Those of a message that are well formed, in order; others count as if they were not there (§6.1.1)."""
    found = []
    for raw, name, value in message.fields:
        if name != b"dkim-signature" or len(raw) > MAX_FIELD:
            continue
        try:
            given = tags(value.decode("ascii"))
        except ValueError:
            continue
        domain, selector = given.get("d", "").lower(), given.get("s", "").lower()
        if all(_NAME.fullmatch(each) and len(each) <= 200 for each in (domain, selector)):
            found.append(Signature(domain, selector, given, raw))
    return found


def trouble(message: Message, signature: Signature, record: str, services: frozenset[str]) -> str:
    """Why a signature does not count, "" when it does. `record` is its key's TXT record; one of `services` is what the
    key must be for (§3.6.1), where it is not for everything."""
    try:
        given, key = signature.tags, tags(record) if len(record) <= MAX_FIELD else {}
        return _form(signature) or _of_key(signature, key, services) or _mismatch(message, given, signature.raw, key)
    except (ValueError, UnsupportedAlgorithm) as error:
        return f"it cannot be read: {error}"[:200]


def _form(signature: Signature) -> str:
    given = signature.tags
    names = _names(given.get("h", ""))
    identity = given.get("i", "@" + signature.domain).lower().rpartition("@")[2]
    if given.get("v") != "1" or not all(given.get(each) for each in ("a", "b", "bh")):
        return "a tag is missing"
    if "from" not in names or len(names) > MAX_SIGNED:
        return "it is not over the From field"
    if "l" in given:
        return "it is over a part of the body only"
    if identity != signature.domain and not identity.endswith("." + signature.domain):
        return "it speaks for another domain"
    if "x" in given and int(given["x"][:15]) < time.time():
        return "it has expired"
    if given.get("q", "dns/txt") != "dns/txt":
        return "its key is not in the DNS"
    return ""


def _of_key(signature: Signature, key: dict[str, str], services: frozenset[str]) -> str:
    flags = _names(key.get("t", ""))
    identity = signature.tags.get("i", "@" + signature.domain).lower().rpartition("@")[2]
    if key.get("v", "DKIM1") != "DKIM1" or "p" not in key:
        return "there is no key"
    if not key["p"]:
        return "the key has been revoked"
    if signature.tags["a"].partition("-")[0] != key.get("k", "rsa"):
        return "the key is of another kind"
    if "h" in key and "sha256" not in _names(key["h"]):
        return "the key is for another hash"
    if not {"*", *services} & set(_names(key.get("s", "*"))):
        return "the key is for another service"
    if "y" in flags:
        return "the key is only being tested"
    if "s" in flags and identity != signature.domain:
        return "the key is not for domains below its own"
    return ""


def _names(text: str) -> list[str]:
    return [each.strip().lower() for each in text.split(":")]


def _mismatch(message: Message, given: dict[str, str], raw: bytes, key: dict[str, str]) -> str:
    head, _, body = given.get("c", "simple/simple").partition("/")
    if {head, body or "simple"} - {"simple", "relaxed"}:
        return "its canonicalization is not known"
    content = canonical.relaxed_body([message.body]) if body == "relaxed" else [canonical.simple_body(message.body)]
    if hashlib.sha256(b"".join(content)).digest() != _octets(given["bh"]):
        return "the body was changed"
    digest = hashlib.sha256()
    left: dict[bytes, list[tuple[bytes, bytes]]] = {}
    for field, name, value in message.fields:
        left.setdefault(name, []).append((field, value))
    for name in (each.encode() for each in _names(given["h"])):
        if left.get(name):
            field, value = left[name].pop()  # the last one counts first (§5.4.2)
            digest.update(headers.relaxed(name, value) if head == "relaxed" else field)
    own = _without_signature(raw)
    own = headers.relaxed(b"dkim-signature", own.partition(b":")[2]) if head == "relaxed" else own
    digest.update(own.removesuffix(b"\r\n"))
    return _wrong(given["a"], _octets(key["p"]), _octets(given["b"]), digest.digest())


def _wrong(algorithm: str, public: bytes, proof: bytes, digest: bytes) -> str:
    try:
        if algorithm == "ed25519-sha256":
            Ed25519PublicKey.from_public_bytes(public).verify(proof, digest)
            return ""
        if algorithm != "rsa-sha256":
            return "its algorithm is not to be used"
        key = load_der_public_key(public)
        if not isinstance(key, RSAPublicKey) or key.key_size not in RSA_BITS:
            return "the key is too short, or none"
        key.verify(proof, digest, padding.PKCS1v15(), Prehashed(hashes.SHA256()))
    except InvalidSignature:
        return "it does not fit the message"
    return ""


def _without_signature(raw: bytes) -> bytes:
    """A DKIM-Signature field with an empty b= (§3.5)."""
    name, colon, value = raw.partition(b":")
    parts = value.split(b";")
    for at, part in enumerate(parts):
        tag, equals, rest = part.partition(b"=")
        if equals and tag.strip(b" \t\r\n") == b"b":
            # Nothing is after the last tag but the line end, which is not a part of it.
            parts[at] = tag + equals + (b"\r\n" if at == len(parts) - 1 and rest.endswith(b"\r\n") else b"")
    return name + colon + b";".join(parts)


def _octets(text: str) -> bytes:
    try:
        return base64.b64decode(text.replace(" ", ""), validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
