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
    text = " ".join(subject[:_MAX_SUBJECT].split())
    if ":" not in text and "[" not in text and not text.endswith(")"):
        return text
    while True:
        if text.endswith((")", " ")):
            text = _strip_trailers(text)
        start = 0
        while True:
            if match := _LEADER.match(text, start):
                start = match.end()
                continue
            blob = _LEADING_BLOB.match(text, start)
            if not blob or blob.end() >= len(text):
                break
            start = blob.end()
        text = text[start:].strip()
        forward = _FORWARD.match(text)
        if not forward:
            return text
        text = forward.group(1).strip()


def _strip_trailers(text: str) -> str:
    while True:
        text = text.rstrip()
        if text[-5:].lower() != "(fwd)":
            return text
        text = text[:-5]
