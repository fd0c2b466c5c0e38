"""The base subject, by which replies and forwards sort and thread with the original (RFC 5256 §2.1)."""

from __future__ import annotations

import re

_MAX_SUBJECT = 2_000  # characters that are looked at

_BLOB = r"\[[^\[\]]*\]\s*"
_LEADER = re.compile(rf"(?:{_BLOB})*(?:re|fwd?)\s*(?:{_BLOB})?:\s*", re.I)
_LEADING_BLOB = re.compile(_BLOB)
_FORWARD = re.compile(r"\[fwd:(.*)\]\Z", re.I | re.S)


def base_subject(subject: str) -> str:
    """The base subject in its own letter case: compare it folded. "" when nothing but leaders is left."""
    return _extract(subject)[0]


def is_reply(subject: str) -> bool:
    """Whether the subject says that the message answers or forwards another one (RFC 5256 §3)."""
    return _extract(subject)[1]


def _extract(subject: str) -> tuple[str, bool]:
    """The base subject, and whether more than blobs in [] was taken off."""
    text = " ".join(subject[:_MAX_SUBJECT].split())
    reply = False
    if ":" not in text and "[" not in text and not text.endswith(")"):
        return text, reply
    while True:
        if text.endswith((")", " ")):
            length = len(text.rstrip())
            text = _strip_trailers(text)
            reply = reply or len(text) < length
        start = 0
        while True:
            if match := _LEADER.match(text, start):
                start = match.end()
                reply = True
                continue
            blob = _LEADING_BLOB.match(text, start)
            if not blob or blob.end() >= len(text):
                break
            start = blob.end()
        text = text[start:].strip()
        forward = _FORWARD.match(text)
        if not forward:
            return text, reply
        text = forward.group(1).strip()
        reply = True


def _strip_trailers(text: str) -> str:
    while True:
        text = text.rstrip()
        if text[-5:].lower() != "(fwd)":
            return text
        text = text[:-5]
