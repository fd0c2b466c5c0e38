"""The store against a model: random operations of several sessions, everything compared after each step.

Counters equal a recount, UIDs only grow, modseqs follow the order of commits, bytes come back exactly, and a
session that asks what changed since its modseq arrives at the mailbox as it is.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from mailcore import db, mime
from mailcore.errors import Code, MailError
from mailcore.store import (
    accounts,
    append,
    changes,
    expunge,
    fetch,
    flags,
    housekeeping,
    mailboxes,
    quota,
    search,
    transfer,
)

ACCOUNT_IDS = itertools.count(1_000_000)
QUOTA = 4000

bits = st.integers(0, flags.ALL_FLAGS)
words = st.lists(st.sampled_from(["$Forwarded", "Work", "work", "x"]), max_size=3).map(tuple)
bodies = st.binary(max_size=60).map(lambda tail: b"Subject: s\r\nMessage-ID: <a@b>\r\n\r\n" + tail)


@dataclass
class Box:
    """What a mailbox should hold: uid -> (raw, flags, keywords in lower case)."""

    id: int
    uidvalidity: int
    uidnext: int = 1
    mail: dict[int, tuple[bytes, int, frozenset[str]]] = field(default_factory=dict)


@dataclass
class Session:
    """A client with a mailbox open: what it knows, and since which modseq."""

    mailbox_id: int
    modseq: int = 0
    known: dict[int, tuple[int, frozenset[str]]] = field(default_factory=dict)


def lower(keywords) -> frozenset[str]:
    return frozenset(word.lower() for word in keywords or ())


class StoreMachine(RuleBasedStateMachine):
    names = Bundle("names")
    sessions = Bundle("sessions")

    def run(self, verb, *args, **kwargs):
        """Run a verb in a transaction of its own; publish nothing."""
        with db.django_transaction() as tx:
            result = db.run_sync(verb(tx, *args, **kwargs))
        modseqs = {change.modseq for change in tx.changes}
        assert all(modseq > self.modseq for modseq in modseqs), "a change took a modseq that was given out before"
        self.modseq = max(modseqs, default=self.modseq)
        return result

    @initialize(target=names)
    def make_account(self):
        self.account = next(ACCOUNT_IDS)
        self.modseq = 0
        self.run(accounts.create, self.account, QUOTA)
        self.boxes = {box.name: Box(box.id, box.uidvalidity) for box in self.run(mailboxes.all, self.account)}
        self.validities = {box.uidvalidity for box in self.boxes.values()}
        assert self.boxes["INBOX"].id == append.INBOX_ID
        return multiple(*self.boxes)

    def used(self) -> int:
        return sum(len(raw) for box in self.boxes.values() for raw, _, _ in box.mail.values())

    @rule(target=names, name=st.sampled_from(["a", "a/b", "ä", "a/b/c", "z"]))
    def create(self, name):
        if name in self.boxes:
            with pytest.raises(MailError) as error:
                self.run(mailboxes.create, self.account, name)
            assert error.value.code is Code.EXISTS
            return name
        self.run(mailboxes.create, self.account, name)
        for box in self.run(mailboxes.all, self.account):
            if box.name not in self.boxes:
                assert box.uidvalidity not in self.validities
                self.validities.add(box.uidvalidity)
                self.boxes[box.name] = Box(box.id, box.uidvalidity)
        assert name in self.boxes
        return name

    @rule(name=names)
    def delete(self, name):
        if name not in self.boxes or name in dict(mailboxes.DEFAULT_MAILBOXES):
            return
        if any(other.startswith(name + "/") for other in self.boxes):
            with pytest.raises(MailError) as error:
                self.run(mailboxes.delete, self.account, name)
            assert error.value.code is Code.NOT_EMPTY
            return
        self.run(mailboxes.delete, self.account, name)
        del self.boxes[name]

    @rule(target=names, old=names, new=st.sampled_from(["r", "r/s", "a"]))
    def rename(self, old, new):
        if old not in self.boxes:
            return new
        impossible = new in self.boxes or new.startswith(old + "/")
        try:
            self.run(mailboxes.rename, self.account, old, new)
        except MailError as error:
            assert error.code in (Code.EXISTS, Code.BAD_NAME)
            assert impossible
            return new
        assert not impossible
        present = {box.name: box for box in self.run(mailboxes.all, self.account)}
        if old == "INBOX":
            moved = sorted(self.boxes["INBOX"].mail.items())
            self.boxes["INBOX"].mail = {}
            for name in present.keys() - self.boxes.keys():
                self.boxes[name] = Box(present[name].id, present[name].uidvalidity)
            self.boxes[new].mail = {n: mail for n, (_, mail) in enumerate(moved, 1)}
            self.boxes[new].uidnext = len(moved) + 1
            return new
        for name in [name for name in self.boxes if name == old or name.startswith(old + "/")]:
            self.boxes[new + name[len(old) :]] = self.boxes.pop(name)
        for name in present.keys() - self.boxes.keys():
            self.boxes[name] = Box(present[name].id, present[name].uidvalidity)
        return new

    @rule(items=st.lists(st.tuples(names, bodies, bits, words), min_size=1, max_size=4))
    def deliver(self, items):
        incoming = [
            append.Incoming(
                self.account, self.boxes[name].id if name in self.boxes else 999_999, raw, mime.parse(raw), mask, keys
            )
            for name, raw, mask, keys in items
        ]
        used = self.used()
        results = self.run(append.append, incoming)
        for (name, raw, mask, keys), result in zip(items, results, strict=True):
            if name not in self.boxes:
                assert isinstance(result, MailError)
                assert result.code is Code.NOT_FOUND
            elif used + len(raw) > QUOTA:
                assert isinstance(result, MailError)
                assert result.code is Code.OVER_QUOTA
            else:
                used += len(raw)
                box = self.boxes[name]
                assert (result.uid, result.uidvalidity) == (box.uidnext, box.uidvalidity)
                box.mail[result.uid] = (raw, mask, lower(keys))
                box.uidnext += 1

    def pick(self, box: Box, some: set[int]) -> list[int]:
        """UIDs of a mailbox, and some that it does not have."""
        return sorted({uid for uid in box.mail if uid % 7 in some} | {box.uidnext + 5})

    @rule(
        name=names,
        some=st.sets(st.integers(0, 6)),
        op=st.sampled_from("+-="),
        mask=bits,
        keys=words,
        rows=st.booleans(),
    )
    def store(self, name, some, op, mask, keys, rows):
        if (box := self.boxes.get(name)) is None:
            return
        uids = self.pick(box, some)
        before = dict(box.mail)
        for uid in set(uids) & set(box.mail):
            raw, now, have = box.mail[uid]
            new = lower(keys)
            after = {"+": (now | mask, have | new), "-": (now & ~mask, have - new), "=": (mask, new)}[op]
            box.mail[uid] = (raw, *after)
        stored = self.run(flags.store, self.account, box.id, uids, op, mask, keys, rows=rows)
        assert stored.found == len([uid for uid in uids if uid in box.mail])
        assert bool(stored.modseq) == (before != box.mail)
        if not rows and not keys:
            assert stored.changed == []
            return
        assert {uid: (mask, lower(keys)) for uid, _, mask, keys in stored.changed} == {
            uid: box.mail[uid][1:] for uid in uids if uid in box.mail
        }

    @rule(name=names, some=st.sets(st.integers(0, 6)), since=st.integers(0, 60))
    def store_unless_changed(self, name, some, since):
        if (box := self.boxes.get(name)) is None:
            return
        rows = {uid: modseq for uid, modseq, _, _ in self.run(fetch.flags, self.account, box.id, 1, fetch.MAX_UID)}
        uids = self.pick(box, some)
        stored = self.run(flags.store, self.account, box.id, uids, "+", flags.FLAGGED, (), since)
        assert stored.modified == [uid for uid in uids if rows.get(uid, 0) > since]
        for uid in set(uids) & set(box.mail) - set(stored.modified):
            raw, mask, keys = box.mail[uid]
            box.mail[uid] = (raw, mask | flags.FLAGGED, keys)

    @rule(source=names, to=names, some=st.sets(st.integers(0, 6)), moving=st.booleans())
    def transfer(self, source, to, some, moving):
        if source not in self.boxes or to not in self.boxes:
            return
        here, there = self.boxes[source], self.boxes[to]
        uids = [uid for uid in self.pick(here, some) if uid in here.mail]
        size = sum(len(here.mail[uid][0]) for uid in uids)
        verb = transfer.move if moving else transfer.copy
        if not moving and uids and self.used() + size > QUOTA:
            with pytest.raises(MailError) as error:
                self.run(verb, self.account, here.id, self.pick(here, some), there.id)
            assert error.value.code is Code.OVER_QUOTA
            return
        done = self.run(verb, self.account, here.id, self.pick(here, some), there.id)
        assert done.source_uids == uids
        assert done.target_uids == list(range(there.uidnext, there.uidnext + len(uids)))
        taken = [here.mail.pop(uid) if moving else here.mail[uid] for uid in uids]
        there.mail.update(zip(done.target_uids, taken, strict=True))
        there.uidnext += len(uids)

    @rule(name=names, some=st.sets(st.integers(0, 6)), how=st.sampled_from(["all", "some deleted", "some"]))
    def expunge(self, name, some, how):
        if (box := self.boxes.get(name)) is None:
            return
        uids = None if how == "all" else self.pick(box, some)
        gone = self.run(expunge.expunge, self.account, box.id, uids, deleted_only=how != "some")
        expected = [
            uid
            for uid, (_, mask, _) in sorted(box.mail.items())
            if (uids is None or uid in uids) and (how == "some" or mask & flags.DELETED)
        ]
        assert gone.uids == expected
        for uid in expected:
            del box.mail[uid]

    @rule(target=sessions, name=names)
    def open(self, name):
        return Session(self.boxes[name].id if name in self.boxes else 0)

    @rule(session=sessions)
    def synchronise(self, session):
        """What QRESYNC and IDLE live by: the changes since a modseq lead to the present state."""
        box = next((box for box in self.boxes.values() if box.id == session.mailbox_id), None)
        if box is None:
            with pytest.raises(MailError) as error:
                self.run(changes.mailbox, self.account, session.mailbox_id, session.modseq)
            assert error.value.code is Code.NOT_FOUND
            return
        seen = self.run(changes.mailbox, self.account, box.id, session.modseq)
        rows = self.run(fetch.flags, self.account, box.id, 1, fetch.MAX_UID)
        assert [row[:2] for row in seen.changed] == [row[:2] for row in rows if row[1] > session.modseq]
        newer = self.run(changes.emails, self.account, session.modseq, 1000)
        for other in self.boxes.values():
            columns = ("uid", "modseq", "message_id")
            for _, modseq, message_id in self.run(fetch.rows, self.account, other.id, 1, fetch.MAX_UID, columns):
                assert modseq <= session.modseq or message_id in newer.created + newer.updated
        assert (seen.uidnext, seen.messages) == (box.uidnext, len(box.mail))
        assert not set(seen.vanished) & set(box.mail)
        for uid in seen.vanished:
            session.known.pop(uid, None)
        for uid, _, mask, keys in seen.changed:
            session.known[uid] = (mask, lower(keys))
        session.modseq = seen.modseq
        assert session.known == {uid: (mask, keys) for uid, (_, mask, keys) in box.mail.items()}

    @rule()
    def forget_where_flags_changed(self):
        self.run(housekeeping.flag_changes, days=-1)

    @precondition(lambda self: any(box.mail for box in self.boxes.values()))
    @rule(mask=bits)
    def find_by_flag(self, mask):
        for box in self.boxes.values():
            found = self.run(search.uids, self.account, box.id, search.Flag(mask))
            assert [uid for uid, _ in found] == [
                uid for uid, mail in sorted(box.mail.items()) if mail[1] & mask == mask
            ]

    @invariant()
    def counters_equal_a_recount(self):
        assert self.run(quota.recount, self.account) == []
        assert self.run(quota.get, self.account).bytes == self.used()
        for box in self.run(mailboxes.all, self.account):
            mine = self.boxes[box.name]
            assert (box.id, box.uidvalidity, box.uidnext) == (mine.id, mine.uidvalidity, mine.uidnext)
            assert box.messages == len(mine.mail)
            assert box.unseen == sum(1 for _, mask, _ in mine.mail.values() if not mask & flags.SEEN)

    def teardown(self):
        """Bytes come back exactly, and each UID list is complete."""
        for box in getattr(self, "boxes", {}).values():
            assert list(self.run(fetch.uids, self.account, box.id)) == sorted(box.mail)
            for uid, message_id in self.run(fetch.rows, self.account, box.id, 1, fetch.MAX_UID, ("uid", "message_id")):
                assert self.run(fetch.raw, self.account, message_id) == box.mail[uid][0]


@pytest.mark.django_db
def test_the_store_does_what_the_model_does():
    run_state_machine_as_test(
        StoreMachine,
        settings=settings(
            max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
