"""App passwords: a secret of its own for each mail program, so that one lost phone does not cost the account.

They are random (140 bits), so a fast keyed hash is enough to store them: whoever reads the table learns nothing without
the installation key, and checking one costs microseconds instead of Argon2's milliseconds. Each is good for some or all
of the mail protocols, never for signing in to the webmail or the administration.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Collection, Iterable

from accounts.secrets import SealError, key_for, keys_for, seal, unseal

# Base32 (RFC 4648) in lower case: survives dictation, and phones that capitalise.
_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_LENGTH = 28
_GROUP = 4
_PURPOSE = "app password"
# 140 random bits cannot be guessed however fast: RFC 7677's minimum is as good as more.
SCRAM_ITERATIONS = 4096

# What an app password can be good for; a protocol that is not among them takes those that are good for everything.
SCOPES = ("imap", "pop3", "smtp", "jmap")

# An account's row count is checked against this when one is added, and read up to it at login.
MAX_PER_ACCOUNT = 100
# `last_used_at` is for people: a client that logs in every minute need not write a row each time.
USED_RESOLUTION_SECONDS = 300


def every_scope() -> list[str]:
    """The scopes of an app password when nothing else is said: all mail protocols."""
    return list(SCOPES)


def covers(scopes: Collection[str], scope: str) -> bool:
    """Whether an app password of these scopes may be used for a protocol."""
    return scope in scopes if scope in SCOPES else set(SCOPES) <= set(scopes)


def generate() -> str:
    """A new secret, as shown to its owner once: seven groups of four, `abcd-efgh-…`."""
    letters = "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))
    return "-".join(letters[start : start + _GROUP] for start in range(0, _LENGTH, _GROUP))


def canonical(secret: str) -> str | None:
    """The letters alone, however they were typed (spaces, hyphens, capitals); None if it cannot be an app password."""
    if len(secret) > 2 * _LENGTH:
        return None
    letters = secret.replace("-", "").replace(" ", "").lower()
    if len(letters) != _LENGTH or not set(letters) <= set(_ALPHABET):
        return None
    return letters


def digest(secret: str) -> bytes:
    """What is stored of a secret that `generate` made: keyed BLAKE2b, 32 octets. Raises ValueError for other text."""
    letters = canonical(secret)
    if letters is None:
        raise ValueError("not an app password")
    return _digest(letters, key_for(_PURPOSE))


def find(secret: str, stored: Iterable[bytes]) -> bytes | None:
    """The stored digest that the secret belongs to, or None; the time taken does not tell which comes close."""
    letters = canonical(secret)
    if letters is None:
        return None
    found = None
    wanted = [_digest(letters, key) for key in keys_for(_PURPOSE)]
    for row in stored:
        for candidate in wanted:
            if hmac.compare_digest(bytes(row), candidate):
                found = bytes(row)
    return found


def scram_salt(address: str) -> bytes:
    """The salt of all app passwords of an account, and of none: it tells nothing, not even whether there is one."""
    return hashlib.sha256(b"mailstead scram " + address.encode("utf-8", "surrogatepass")).digest()[:16]


def sealed_scram(secret: str, address: str) -> bytes:
    """StoredKey and ServerKey (RFC 5802 §3) of a secret as `generate` shows it: what SCRAM needs, sealed."""
    salted = hashlib.pbkdf2_hmac("sha256", secret.encode("ascii"), scram_salt(address), SCRAM_ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    return seal(stored + hmac.digest(salted, b"Server Key", "sha256"))


def open_scram(sealed: bytes) -> tuple[bytes, bytes] | None:
    """StoredKey and ServerKey, or None when they cannot be opened with any installation key that is honoured."""
    try:
        pair = unseal(sealed)
    except SealError:
        return None
    return pair[:32], pair[32:]


def _digest(letters: str, key: bytes) -> bytes:
    return hashlib.blake2b(letters.encode(), key=key, digest_size=32).digest()
