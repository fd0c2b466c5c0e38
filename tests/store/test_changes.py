"""What changed since a modseq is found without an index on it: every answer is compared with the rows themselves."""

from __future__ import annotations

import random
from typing import Any

import pytest

from accounts import people
from mailcore import db, mime, provision
from mailcore.store import changes, expunge, fetch, flags, housekeeping, transfer
from mailcore.store.append import Incoming, append

pytestmark = pytest.mark.django_db

INBOX, ARCHIVE = 1, 4
RAW = b"Subject: hello\r\n\r\nHello\r\n"


def run(verb: Any, *args: Any, **names: Any) -> Any:
    with db.django_transaction() as tx:
        return db.run_sync(verb(tx, *args, **names))


@pytest.fixture
def ann() -> int:
    people.add_domain("example.test")
    account = provision.add_account("ann@example.test").pk
    run(append, [Incoming(account, INBOX, RAW, mime.parse(RAW)) for _ in range(12)])
    return int(account)


def changed(account: int, since: int, mailbox: int = INBOX) -> list[int]:
    return [row[0] for row in run(changes.mailbox, account, mailbox, since).changed]


def test_a_flag_of_old_mail_is_found_below_mail_that_did_not_change(ann: int) -> None:
    since = run(changes.state, ann)
    run(flags.store, ann, INBOX, [2, 3, 7], "+", flags.SEEN, rows=False)
    assert changed(ann, since) == [2, 3, 7]
    later = run(changes.state, ann)
    run(flags.store, ann, INBOX, [3, 12], "+", flags.FLAGGED, ("work",))
    assert changed(ann, later) == [3, 12]
    assert changed(ann, since) == [2, 3, 7, 12]
    run(append, [Incoming(ann, INBOX, RAW, mime.parse(RAW))])
    assert changed(ann, later) == [3, 12, 13]


def test_what_the_notes_have_forgotten_is_found_all_the_same(ann: int) -> None:
    since = run(changes.state, ann)
    run(flags.store, ann, INBOX, [2], "+", flags.SEEN)
    assert run(housekeeping.flag_changes, days=-1) == 1
    later = run(changes.state, ann)
    run(flags.store, ann, INBOX, [5], "+", flags.SEEN)
    assert changed(ann, since) == [2, 5]
    assert changed(ann, later) == [5]


def test_more_ranges_than_are_noted_are_found_as_one(ann: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flags, "MAX_RANGES", 2)
    since = run(changes.state, ann)
    run(flags.store, ann, INBOX, [1, 4, 6, 9], "+", flags.SEEN)
    assert changed(ann, since) == [1, 4, 6, 9]


@pytest.mark.parametrize("seed", range(4))
def test_any_history_from_any_moment(ann: int, seed: int) -> None:
    chance = random.Random(seed)
    moments = [run(changes.state, ann)]
    for _ in range(25):
        box = chance.choice((INBOX, INBOX, ARCHIVE))
        uids = [row[0] for row in run(fetch.flags, ann, box, 1, fetch.MAX_UID)]
        some = sorted(chance.sample(uids, min(len(uids), chance.randint(1, 4))))
        match chance.choice(["flags", "flags", "flags", "words", "move", "expunge", "append", "forget"]):
            case "flags":
                mask = chance.randint(1, flags.ALL_FLAGS)
                run(flags.store, ann, box, some, chance.choice("+-="), mask, rows=chance.random() < 0.5)
            case "words":
                run(flags.store, ann, box, some, "+", 0, (chance.choice("xyz"),))
            case "move" if some:
                run(transfer.move, ann, box, some, INBOX + ARCHIVE - box)
            case "expunge" if len(uids) > 6:
                run(expunge.expunge, ann, box, some[:1], False)
            case "append":
                run(append, [Incoming(ann, box, RAW, mime.parse(RAW))])
            case "forget":
                run(housekeeping.flag_changes, days=-1)
        moments.append(run(changes.state, ann))
        for since in chance.sample(moments, min(len(moments), 3)):
            newer = set()
            for mailbox in (INBOX, ARCHIVE):
                columns = ("uid", "modseq", "message_id")
                rows = [row for row in run(fetch.rows, ann, mailbox, 1, fetch.MAX_UID, columns) if row[1] > since]
                assert changed(ann, since, mailbox) == [row[0] for row in rows]
                newer |= {row[2] for row in rows}
            found = run(changes.emails, ann, since, 1000)
            assert newer == set(found.created) | set(found.updated)
