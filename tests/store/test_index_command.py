"""`manage.py reindex`, as an administrator uses it."""

from __future__ import annotations

import io

import pytest
from django.core.management import CommandError, call_command

from mailcore import db, mime, provision
from mailcore.store import append, index_build, search

pytestmark = pytest.mark.django_db(transaction=True)
ANN, BOB = "ann@example.test", "bob@example.test"


@pytest.fixture
def accounts() -> list[int]:
    provision.add_domain("example.test")
    found = [provision.add_account(address).pk for address in (ANN, BOB)]
    raw = b"Subject: hello\r\n\r\nwonderful\r\n"
    with db.django_transaction() as tx:
        db.run_sync(append.append(tx, [append.Incoming(found[0], 0, raw, mime.parse(raw))] * 3))
        db.run_sync(tx.execute("UPDATE message_text SET text = 'lost', body_at = 3"))
    return found


def reindex(*arguments: str) -> str:
    out = io.StringIO()
    call_command("reindex", *arguments, stdout=out, stderr=out)
    return out.getvalue()


def found(account_id: int) -> int:
    with db.django_transaction() as tx:
        return len(db.run_sync(search.uids(tx, account_id, append.INBOX_ID, search.Text("body", "wonderful"))))


def test_texts_and_index_are_made_anew(accounts: list[int]) -> None:
    assert found(accounts[0]) == 0
    assert reindex("--index-only", ANN).startswith(f"{ANN}: 3 messages in ")
    assert found(accounts[0]) == 0
    said = reindex("--all")
    assert [line.split(" in ")[0] for line in said.splitlines()] == [f"{ANN}: 3 messages", f"{BOB}: 0 messages"]
    assert found(accounts[0]) == 3


def test_what_cannot_be_done_is_said(accounts: list[int]) -> None:
    for arguments in ((), ("--all", ANN)):
        with pytest.raises(CommandError, match="Say which"):
            reindex(*arguments)
    with pytest.raises(CommandError, match=r"There is no account nobody@example\.test"):
        reindex(ANN, "nobody@example.test")
    with db.django_transaction() as tx:
        db.run_sync(index_build.claim(tx, accounts[0]))
    with pytest.raises(CommandError, match=f"being built right now: {ANN}"):
        reindex("--all")
