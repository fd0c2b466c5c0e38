"""Ids of blobs: a message, a part of a message, or an upload. None of them is worth anything in another account.

An upload's id names its content, so it carries a seal over account and content: a hash alone would let everybody who
knows (or guesses) a file's hash read it.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from dataclasses import dataclass

from accounts.secrets import key_for, keys_for

_MESSAGE = re.compile(r"B([1-9][0-9]{0,17})")
_PART = re.compile(r"P([1-9][0-9]{0,17})-([1-9][0-9]{0,3}(?:_[1-9][0-9]{0,3}){0,70})")
_UPLOAD = re.compile(r"U([A-Za-z0-9_-]{64})")
_SEAL = 16
_PURPOSE = "jmap upload ids"


@dataclass(frozen=True, slots=True)
class BlobId:
    """What an id stands for: an email (and one of its parts), or the hash of something uploaded."""

    email_id: int = 0
    part_id: str | None = None
    upload: bytes | None = None


def message_blob_id(email_id: int) -> str:
    return f"B{email_id}"


def upload_blob_id(account_id: int, digest: bytes) -> str:
    """The id of an upload with this SHA-256."""
    return "U" + base64.urlsafe_b64encode(digest + _seal(key_for(_PURPOSE), account_id, digest)).decode()


def parse_blob_id(account_id: int, text: object) -> BlobId | None:
    """What the id means for this account; None for what means nothing."""
    if not isinstance(text, str):
        return None
    if match := _MESSAGE.fullmatch(text):
        return BlobId(int(match.group(1)))
    if match := _PART.fullmatch(text):
        return BlobId(int(match.group(1)), match.group(2).replace("_", "."))
    if match := _UPLOAD.fullmatch(text):
        try:
            token = base64.urlsafe_b64decode(match.group(1))
        except (binascii.Error, ValueError):
            return None
        digest, seal = token[:32], token[32:]
        if any(hmac.compare_digest(seal, _seal(key, account_id, digest)) for key in keys_for(_PURPOSE)):
            return BlobId(upload=digest)
    return None


def _seal(key: bytes, account_id: int, digest: bytes) -> bytes:
    return hmac.digest(key, b"%d:%b" % (account_id, digest), "sha256")[:_SEAL]
