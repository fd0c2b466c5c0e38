"""Keys derived from the installation key, and sealing of secrets that must be kept readable (DKIM keys, TOTP secrets).

A key of its own is derived for each purpose (HKDF-SHA-256, RFC 5869), so that none can be used in another's place.
SECRET_KEY_FALLBACKS are tried when reading, so that the installation key can be changed.
"""

from __future__ import annotations

import os
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

_NONCE = 12
# First octet of everything sealed: lets the algorithm change one day.
_VERSION = b"\x01"


class SealError(Exception):
    """Sealed bytes that cannot be opened: damaged, or sealed with another installation key."""


def key_for(purpose: str) -> bytes:
    """The current 32-octet key for one purpose."""
    return _derive(settings.SECRET_KEY, purpose)


def keys_for(purpose: str) -> tuple[bytes, ...]:
    """The current key for a purpose, then those of former installation keys that are still honoured."""
    return tuple(_derive(key, purpose) for key in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS))


def seal(plain: bytes) -> bytes:
    """Encrypt and authenticate (AES-256-GCM) with the installation key."""
    nonce = os.urandom(_NONCE)
    return _VERSION + nonce + AESGCM(key_for("seal")).encrypt(nonce, plain, _VERSION)


def unseal(sealed: bytes) -> bytes:
    """Undo `seal`; raises SealError."""
    sealed = bytes(sealed)  # psycopg hands out memoryviews
    if sealed[:1] == _VERSION:
        nonce, box = sealed[1 : 1 + _NONCE], sealed[1 + _NONCE :]
        for key in keys_for("seal"):
            try:
                return AESGCM(key).decrypt(nonce, box, _VERSION)
            except (InvalidTag, ValueError):
                continue
    raise SealError("a stored secret cannot be opened: it was sealed with another installation key, or is damaged")


@lru_cache(maxsize=64)
def _derive(secret: str | bytes, purpose: str) -> bytes:
    material = secret.encode() if isinstance(secret, str) else secret
    return HKDF(SHA256(), 32, salt=None, info=b"mailstead " + purpose.encode()).derive(material)
