"""Search finds what a plain scan finds, for every criterion and any combination of them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailcore import db, mime
from mailcore.errors import Code, MailError
from mailcore.store import accounts, append, fetch, search, transfer

pytestmark = pytest.mark.django_db
ACCOUNT = 77


def run(verb, *args, **kwargs):
    with db.django_transaction() as tx:
        return db.run_sync(verb(tx, *args, **kwargs))


def raw(subject="Hello", sender="Ann <ann@example.org>", to="bob@example.net", body="text", **more) -> bytes:
    headers = {"From": sender, "To": to, "Subject": subject, "Content-Type": "text/plain; charset=utf-8", **more}
    return (
        "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items()) + f"\r\n{body}\r\n"
    ).encode()


def put(*messages: bytes, mailbox_id=0, **fields) -> list[append.Appended]:
    return run(append.append, [append.Incoming(ACCOUNT, mailbox_id, m, mime.parse(m), **fields) for m in messages])


@pytest.fixture
def account(db):
    run(accounts.create, ACCOUNT)


def found(criterion, sort=()) -> list[int]:
    return [uid for uid, _ in run(search.uids, ACCOUNT, append.INBOX_ID, criterion, sort)]


def test_words_are_substrings_of_decoded_text_in_any_case(account):
    put(raw(subject="=?utf-8?q?Gr=C3=BC=C3=9Fe?=", body="Die STRASSE ist naß"), raw(body="strasse"), raw(body="x"))
    assert found(search.Text("subject", "GRÜSSE")) == [1]
    assert found(search.Text("body", "straße")) == [1, 2]
    assert found(search.Text("body", "rass")) == [1, 2]
    assert found(search.Text("body", "ann@")) == []
    assert found(search.Text("text", "ANN@example")) == [1, 2, 3]


def test_percent_signs_quotes_and_backslashes_are_just_characters(account):
    put(raw(subject="100% \\ 'sure'"), raw(subject="100 sure"))
    for words in ("100%", "\\", "'sure'", "% \\"):
        assert found(search.Text("subject", words)) == [1]


def test_any_header_can_be_searched_and_its_presence(account):
    put(raw(X_Spam="yes (a.b)"), raw(X_Spamx="yes"), raw(X_Other="x-spam: yes"))
    assert found(search.Text("header:x-spam", "YES")) == [1]
    assert found(search.Text("header:X-Spam", "a.b")) == [1]
    assert found(search.Text("header:X-Spam", "a?b")) == []
    assert found(search.Text("header:x-spam", "")) == [1]
    assert found(search.Text("header:subject", "hello")) == [1, 2, 3]


def test_dates_compare_days(account):
    noon = datetime(2026, 3, 10, 12, tzinfo=UTC)
    for n in range(3):
        put(raw(Date=f"{9 + n} Mar 2026 23:30:00 -0500"), internal_date=noon + timedelta(days=n))
    assert found(search.Date("internal", "=", date(2026, 3, 11))) == [2]
    assert found(search.Date("internal", "<", date(2026, 3, 11))) == [1]
    assert found(search.Date("internal", ">=", date(2026, 3, 11))) == [2, 3]
    assert found(search.Date("internal", "<", noon)) == []
    assert found(search.Date("sent", "=", date(2026, 3, 10))) == [2], "the day as the sender wrote it"


def test_sorting(account):
    put(raw(subject="Re: b", sender="z@x"), raw(subject="A", sender="y@x"), raw(subject="c", sender="a@x" * 3))
    assert found(search.All(), [("subject", False)]) == [2, 1, 3]
    assert found(search.All(), [("subject", True)]) == [3, 1, 2]
    assert found(search.All(), [("from", False)]) == [3, 2, 1]


def test_conversations_are_listed_once_newest_first(account):
    first = raw(subject="Plan", Message_ID="<1@x>")
    other = raw(subject="Else", Message_ID="<2@x>")
    reply = raw(subject="Re: Plan", Message_ID="<3@x>", In_Reply_To="<1@x>", References="<1@x>")
    again = raw(subject="Another subject", Message_ID="<4@x>", References="<1@x>")
    start = datetime(2026, 1, 1, tzinfo=UTC)
    stored = [put(m, internal_date=start + timedelta(hours=n))[0] for n, m in enumerate([first, other, reply, again])]
    assert [s.thread_id for s in stored] == [1, 2, 1, 4], "a new subject is a new conversation"
    inbox = search.InMailbox((append.INBOX_ID,))
    assert run(search.emails, ACCOUNT, inbox, collapse_threads=True) == ([(4, 4), (3, 1), (2, 2)], 3)
    assert run(search.emails, ACCOUNT, inbox, limit=1, offset=1) == ([(3, 1)], 4)
    assert run(search.emails, ACCOUNT, search.And((inbox, search.Text("subject", "plan")))) == ([(3, 1), (1, 1)], 2)
    assert run(fetch.threads, ACCOUNT, [1]) == {1: [1, 3]}


def test_an_email_in_two_mailboxes_is_one_email(account):
    put(raw())
    run(transfer.copy, ACCOUNT, append.INBOX_ID, [1], 4)
    assert run(search.emails, ACCOUNT, search.All()) == ([(1, 1)], 1)
    assert run(search.emails, ACCOUNT, search.InMailbox((append.INBOX_ID,), other=True)) == ([(1, 1)], 1)
    assert run(search.emails, ACCOUNT, search.Not(search.InMailbox((4,)))) == ([], 0)


def test_a_tree_of_terms_without_end_is_refused(account):
    deep = search.All()
    for _ in range(100):
        deep = search.Not(deep)
    for criterion in (deep, search.And((search.All(),) * 2000)):
        with pytest.raises(MailError) as error:
            found(criterion)
        assert error.value.code is Code.TOO_MANY


leaves = st.one_of(
    st.builds(search.Flag, st.integers(0, 31), st.booleans()),
    st.builds(search.Keyword, st.sampled_from(["work", "$X", "none"]), st.booleans()),
    st.builds(
        search.Text, st.sampled_from(["subject", "body", "text", "from"]), st.sampled_from(["", "a", "AB", "ä", "b a"])
    ),
    st.builds(search.Size, st.sampled_from("<>"), st.integers(100, 200)),
    st.builds(lambda lo, n: search.Uids(((lo, lo + n), (lo + 20, lo + 21))), st.integers(1, 30), st.integers(0, 5)),
    st.builds(lambda lo, n: search.Uids(((lo, lo + n), (lo + n + 2, 9_999))), st.integers(1, 30), st.integers(0, 5)),
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(search.And, st.lists(inner, max_size=3).map(tuple)),
        st.builds(search.Or, st.lists(inner, max_size=3).map(tuple)),
        st.builds(search.Not, inner),
    ),
    max_leaves=8,
)


def matches(criterion, uid, message, bits, keywords) -> bool:
    """The plain scan."""
    match criterion:
        case search.And(terms):
            return all(matches(term, uid, message, bits, keywords) for term in terms)
        case search.Or(terms):
            return any(matches(term, uid, message, bits, keywords) for term in terms)
        case search.Not(term):
            return not matches(term, uid, message, bits, keywords)
        case search.Flag(mask, on):
            return bits & mask == mask if on else bits & mask != mask
        case search.Keyword(word, on):
            return (word.lower() in {k.lower() for k in keywords}) == on
        case search.Size(op, value):
            return len(message) < value if op == "<" else len(message) > value
        case search.Uids(ranges):
            return any(lo <= uid <= hi for lo, hi in ranges)
        case search.Text(name, words):
            text = mime.parse(message).text
            where = {
                "subject": text.subject,
                "from": text.from_,
                "body": text.body,
                "text": f"{text.header}\x01{text.body}",
            }
            return mime.fold(words) in where[name]
    raise AssertionError(criterion)


@given(trees)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_combination_finds_what_a_scan_finds(account, tree):
    if not found(search.All()):
        for n, (subject, body) in enumerate([(s, b) for s in ("a", "ÄB", "b a") for b in ("ab", "b  A", "Ä", "")] * 2):
            put(
                raw(subject=subject, body=body * (n // 4)),
                flags=n * 7 % 32,
                keywords=("Work",) if n % 3 else ("$x", "y"),
            )
    rows = run(fetch.rows, ACCOUNT, append.INBOX_ID, 1, fetch.MAX_UID, ("uid", "message_id", "flags", "keywords"))
    raws = run(fetch.raws, ACCOUNT, [row[1] for row in rows])
    expected = [uid for uid, message_id, bits, words in rows if matches(tree, uid, raws[message_id], bits, words or ())]
    assert found(tree) == expected
