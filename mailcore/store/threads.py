"""Which thread a message belongs to: the one that knows one of its Message-IDs under the same base subject (RFC
8621 §3)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from mailcore.arrays import Int8s
from mailcore.db import Params, Row, sql
from mailcore.mime import Summary, fold

# The oldest ancestor and the nearest ones decide; a list of thousands is an attack.
MAX_REFERENCES = 50

KEYS = sql("""
    SELECT t.account_id, t.key, t.thread_id
    FROM thread_key t JOIN unnest(%s::bigint[], %s::bigint[]) AS k(account_id, key) USING (account_id, key)""")


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


class Threads:
    """The thread keys that a batch of messages touches: loaded once, added to as messages are placed."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], int] = {}
        self._new: dict[tuple[int, int], int] = {}
        self._keys: dict[int, list[int]] = {}

    def question(self, messages: Iterable[tuple[int, Summary]]) -> tuple[str, Params]:
        """The query for what the store knows of the messages' keys; to be run when their accounts are locked."""
        wanted: dict[tuple[int, int], None] = {}
        for account_id, summary in messages:
            found = self._keys.get(id(summary))
            if found is None:
                found = self._keys[id(summary)] = keys(summary)
            wanted.update(((account_id, key), None) for key in found)
        return KEYS, (Int8s([pair[0] for pair in wanted]), Int8s([pair[1] for pair in wanted]))

    def learn(self, rows: Iterable[Row]) -> None:
        """The answer to the question."""
        self._known = {(account_id, key): thread_id for account_id, key, thread_id in rows}

    def place(self, account_id: int, summary: Summary, message_id: int) -> int:
        """The thread of a message, which is its own when nothing is known; remembers its keys."""
        pairs = [(account_id, key) for key in self._keys[id(summary)]]
        threads = [self._known[pair] for pair in pairs if pair in self._known]
        thread_id = min(threads, default=message_id)
        for pair in pairs:
            if pair not in self._known:
                self._known[pair] = self._new[pair] = thread_id
        return thread_id

    def new_keys(self) -> list[tuple[int, int, int]]:
        """Rows (account, key, thread) to write; in one order for all transactions."""
        return sorted((account_id, key, thread) for (account_id, key), thread in self._new.items())
