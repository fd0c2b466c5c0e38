"""Which thread a message belongs to: the one that knows one of its Message-IDs under the same base subject (RFC
8621 §3)."""

from __future__ import annotations

import hashlib

from mailcore.mime import Summary, fold

# The oldest ancestor and the nearest ones decide; a list of thousands is an attack.
MAX_REFERENCES = 50


def keys(summary: Summary) -> list[int]:
    """Signed 64-bit keys of a message: one for each Message-ID it bears or names, each bound to its base subject."""
    ids = [
        *summary.references[:1],
        *summary.references[1:][-MAX_REFERENCES:],
        *summary.in_reply_to[:5],
        *summary.message_id[:1],
    ]
    subject = fold(summary.base_subject)
    return [
        int.from_bytes(hashlib.sha256(f"{name}\0{subject}".encode("utf-8", "replace")).digest()[:8], signed=True)
        for name in dict.fromkeys(ids)
    ]
