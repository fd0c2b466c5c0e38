"""Account passwords: how they are hashed (Argon2id), checked, judged and generated.

Everything here is plain computation: no database, safe to run in a thread (Argon2 releases the interpreter lock).
"""

from __future__ import annotations

import secrets
from functools import lru_cache

import argon2
from django.contrib.auth.hashers import Argon2PasswordHasher
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError

# The one place for Argon2id's cost: OWASP's first recommendation, about 25 ms and 19 MiB per check. Logins of many
# clients at once cost this in the mail process, so memory counts as much as time; a stored hash of other cost stays
# valid and is renewed when its owner next signs in.
TIME_COST = 2
MEMORY_KIB = 19 * 1024
PARALLELISM = 1

# Longest secret that is looked at; nobody types more, and hashing time must not depend on a stranger.
MAX_LENGTH = 512

# No 0/o, 1/l/i: they are read aloud and copied from paper. 31 symbols, 4.95 bits each.
_READABLE = "abcdefghjkmnpqrstuvwxyz23456789"
_GROUPS = 4
_GROUP_LENGTH = 4


class Hasher(Argon2PasswordHasher):
    """Django's Argon2id hasher with our cost; named in settings.PASSWORD_HASHERS."""

    time_cost = TIME_COST
    memory_cost = MEMORY_KIB
    parallelism = PARALLELISM


def hash_password(password: str) -> str:
    """Django's encoded form (`argon2$argon2id$…`)."""
    hasher = Hasher()
    return hasher.encode(password, hasher.salt())


def verify(password: str, encoded: str) -> bool:
    """True when `password` is the one that was hashed; False for an unusable or foreign hash. Takes about 25 ms."""
    algorithm, separator, rest = encoded.partition("$")
    if algorithm != Hasher.algorithm or not separator:
        return False
    try:
        return argon2.PasswordHasher().verify("$" + rest, password)
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
        return False


@lru_cache(maxsize=1)
def dummy_hash() -> str:
    """A hash that nothing matches: verified for unknown users, so that they take as long as known ones."""
    return hash_password(secrets.token_urlsafe(32))


def generate_password() -> str:
    """A random password that can be read aloud, such as `k7wm-x2pd-e9rt-b4hn` (79 bits)."""
    letters = [secrets.choice(_READABLE) for _ in range(_GROUPS * _GROUP_LENGTH)]
    return "-".join("".join(letters[start : start + _GROUP_LENGTH]) for start in range(0, len(letters), _GROUP_LENGTH))


def unusable_reason(password: str) -> str | None:
    """Why a password cannot be used at all (empty, too long, characters that protocols cannot carry), or None."""
    if not password:
        return "The password is empty."
    if len(password) > MAX_LENGTH:
        return f"The password is longer than {MAX_LENGTH} characters."
    if any(ord(char) < 32 or ord(char) == 127 for char in password):
        return "The password contains a control character (a line break or tab?); mail programs cannot send those."
    return None


def weakness(password: str, address: str = "") -> str | None:
    """Why a password is a poor choice, in words for its owner, or None; judged by settings.AUTH_PASSWORD_VALIDATORS."""
    if address and password.lower() in (address.lower(), address.partition("@")[0].lower()):
        return "The password is too similar to the address."
    try:
        validate_password(password)
    except ValidationError as error:
        return " ".join(error.messages)
    return None
