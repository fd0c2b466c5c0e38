"""Metadata has limits, goes with its mailbox and with its reader, and belongs to whom it says."""

from __future__ import annotations

import pytest

from mailcore import db
from mailcore.errors import Code, MailError
from mailcore.store import accounts, mailboxes, metadata

pytestmark = pytest.mark.django_db
ALICE, BOB = 901, 902


@pytest.fixture
def inbox() -> int:
    with db.django_transaction() as tx:
        for account_id in (ALICE, BOB):
            db.run_sync(accounts.create(tx, account_id))
        return db.run_sync(mailboxes.by_name(tx, ALICE, "INBOX")).id


def put(mailbox_id: int, entries: dict[str, bytes | None], reader: int = ALICE, account: int = ALICE) -> None:
    with db.django_transaction() as tx:
        db.run_sync(metadata.put(tx, account, mailbox_id, reader, entries))


def get(mailbox_id: int, reader: int = ALICE) -> dict[str, bytes]:
    with db.django_transaction() as tx:
        return db.run_sync(metadata.get(tx, ALICE, [mailbox_id], reader)).get(mailbox_id, {})


def refused(mailbox_id: int, entries: dict[str, bytes | None]) -> Code:
    with pytest.raises(MailError) as refusal:
        put(mailbox_id, entries)
    return refusal.value.code


def test_private_entries_are_seen_by_their_reader_and_shared_ones_by_all(inbox: int) -> None:
    put(inbox, {"/private/a": b"alice", "/shared/a": b"both"})
    put(inbox, {"/private/a": b"bob"}, reader=BOB)
    assert get(inbox) == {"/private/a": b"alice", "/shared/a": b"both"}
    assert get(inbox, BOB) == {"/private/a": b"bob", "/shared/a": b"both"}


def test_too_large_a_value_or_too_many_entries_change_nothing(inbox: int) -> None:
    put(inbox, {"/private/a": b"x" * metadata.MAX_VALUE})
    assert refused(inbox, {"/private/a": None, "/private/b": b"x" * (metadata.MAX_VALUE + 1)}) is Code.TOO_BIG
    assert list(get(inbox)) == ["/private/a"]
    many = {f"/private/{n}": b"x" for n in range(metadata.MAX_ENTRIES)}
    assert refused(inbox, {"/private/a": None, **many, "/private/b": b"x"}) is Code.TOO_MANY
    assert list(get(inbox)) == ["/private/a"]
    put(inbox, {"/private/a": None, **many})
    assert len(get(inbox)) == metadata.MAX_ENTRIES
    put(inbox, {"/private/0": b"changed"})
    assert refused(inbox, {"/private/b": b"x"}) is Code.TOO_MANY
    assert refused(metadata.SERVER, {"/private/b": b"x"}) is Code.TOO_MANY
    put(inbox, {"/shared/b": b"x"})  # which others may set, so it is counted apart


def test_so_many_octets_and_no_more(inbox: int) -> None:
    count = metadata.MAX_OCTETS // metadata.MAX_VALUE
    for n in range(count):
        put(inbox, {f"/shared/{n}": b"x" * metadata.MAX_VALUE})
    assert refused(inbox, {"/shared/more": b"x"}) is Code.TOO_MANY


def test_a_mailbox_takes_its_metadata_along_when_it_goes(inbox: int) -> None:
    with db.django_transaction() as tx:
        box = db.run_sync(mailboxes.create(tx, ALICE, "Box")).id
    put(box, {"/private/a": b"x", "/shared/a": b"x"})
    with db.django_transaction() as tx:
        db.run_sync(mailboxes.delete(tx, ALICE, "Box"))
    assert get(box) == {}
    assert refused(box, {"/private/a": b"x"}) is Code.NOT_FOUND


def test_an_account_that_goes_leaves_nothing_beside_the_mailboxes_of_others(inbox: int) -> None:
    put(inbox, {"/private/a": b"bob", "/shared/a": b"stays"}, reader=BOB)
    with db.django_transaction() as tx:
        db.run_sync(accounts.remove(tx, BOB))
    assert get(inbox, BOB) == {"/shared/a": b"stays"}
