"""Nonsense in every argument of every method is answered in JMAP's words, never by serverFail; the store is whole."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from mailcore import db
from mailcore.jmap.context import METHODS
from mailcore.store import quota
from tests.jmap.world import SIMPLE, USING, World

pytestmark = pytest.mark.django_db(transaction=True)

IDS = [
    "M1", "M2", "F1", "F2", "F99", "T1", "a1", "#x", "", "M0", "M-1", "M" + "9" * 30, "B1", "P1-1",
    "S" + "0" * 15, "💌",
]  # fmt: skip
WORDS = [
    "$seen", "keywords", "keywords/$seen", "mailboxIds", "mailboxIds/F1", "name", "parentId", "role", "email",
    "type", "operator", "conditions", "AND", "OR", "NOT", "text", "subject", "inMailbox", "header", "before",
    "property", "receivedAt", "isAscending", "header:X:asText", "header:From:asAddresses", "id", "value",
    "partId", "blobId", "~", "subParts", "textBody", "bodyValues", "bodyStructure", "attachments", "envelope",
    "mailFrom", "rcptTo", "/", "a/b", "undoStatus", "canceled", "emailId", "identityId", "to", "from", "cid",
    "multipart/mixed", "text/plain", "\r\nX: y", "2026-01-01T00:00:00Z", "9999-12-31T23:59:59Z",
    "0001-01-01T00:00:00+14:00", "ü" * 300, "a" * 70_000, "%s %(x)s",
]  # fmt: skip


class Nonsense:
    """Values that a hostile or broken client sends; the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def value(self, depth: int = 0) -> Any:
        kind = self.random.randrange(9 if depth < 4 else 6)
        if kind == 0:
            return self.random.choice([None, True, False])
        if kind == 1:
            return self.random.choice([0, 1, -1, 2**31, 2**53, 2**63, 10**400, 0.5, -1e308])
        if kind in (2, 3):
            return self.random.choice(IDS)
        if kind in (4, 5):
            return self.random.choice(WORDS)
        if kind == 6:
            return [self.value(depth + 1) for _ in range(self.random.randrange(4))]
        keys = [self.random.choice(WORDS + IDS) for _ in range(self.random.randrange(5))]
        return {key: self.value(depth + 1) for key in keys}

    def arguments(self, names: frozenset[str]) -> dict[str, Any]:
        found = {name: self.likely(name) for name in sorted(names) if self.random.random() < 0.6}
        if self.random.random() < 0.1:
            found["#" + self.random.choice(sorted(names or {"x"}))] = self.value()
        return found

    def likely(self, name: str) -> Any:
        """Often a value of the right shape, so that it gets past the first check."""
        if self.random.random() < 0.3:
            return self.value()
        if name in ("create", "emails"):
            return {"x": self.value(1) if self.random.random() < 0.2 else self.object()}
        if name.startswith(("update", "onSuccessUpdate")):
            return {self.random.choice(IDS): self.object()}
        if name in ("ids", "destroy", "emailIds", "onSuccessDestroyEmail"):
            return [self.random.choice(IDS) for _ in range(self.random.randrange(4))]
        if name in ("properties", "bodyProperties"):
            return self.random.sample(WORDS, 3) if self.random.random() < 0.5 else None
        if name == "filter":
            return self.object()
        if name == "sort":
            return [self.object()]
        if name in ("sinceState", "sinceQueryState", "ifInState"):
            return self.random.choice(["1", "5", "99999999", "x", "٣", "1" * 40])
        return self.value()

    def object(self) -> dict[str, Any]:
        base: dict[str, Any] = self.random.choice(
            [
                {},
                {"mailboxIds": {"F2": True}},
                {"mailboxIds": {"F2": True}, "bodyValues": {"t": {"value": "x"}}, "textBody": [{"partId": "t"}]},
                {"name": "Box"},
                {"emailId": "M1", "identityId": "x"},
                {"operator": "AND", "conditions": []},
            ]
        )
        return {**base, **{self.random.choice(WORDS): self.value(2) for _ in range(self.random.randrange(3))}}


async def test_no_nonsense_is_a_failure_of_ours(world: World, caplog: pytest.LogCaptureFixture) -> None:
    alice = world.alice
    for n in range(3):
        await world.deliver(alice.account, SIMPLE.format(subject=f"S{n}"))
    nonsense = Nonsense(seed=8621)
    answered = 0
    for _ in range(30):
        calls: list[Any] = []
        for n, (name, entry) in enumerate(sorted(METHODS.items())):
            calls.append([name, {"accountId": alice.id, **nonsense.arguments(entry.arguments)}, f"c{n}"])
        for start in range(0, len(calls), 30):
            request = {"using": USING, "methodCalls": calls[start : start + 30]}
            answer = await alice.api(request)
            assert answer.status == 200, answer.body
            for name, body, call_id in answer.json["methodResponses"]:
                call = next(call for call in calls if call[2] == call_id)
                assert body.get("type") != "serverFail", json.dumps(call)[:2000]
                answered += name != "error"
    assert answered > 100, "some of it got past the first checks"
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    async with db.read() as tx:
        assert await quota.recount(tx, alice.account) == []
