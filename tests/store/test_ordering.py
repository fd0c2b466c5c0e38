"""What messages are sorted and threaded by, as it is made at delivery (RFC 5256 §2.1, §3; RFC 5957)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailcore import mime
from mailcore.store import ordering


def summary(**fields: str) -> mime.Summary:
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return mime.parse(f"{head}\r\nx\r\n".encode()).summary


def keys(**fields: str) -> dict[str, str]:
    return dict(zip(ordering.PARTS, ordering.sort_keys(summary(**fields)).split(ordering.SEPARATOR), strict=True))


def test_addresses_sort_by_local_part_and_by_what_is_displayed():
    assert keys(From='"Ünal, Zoë" <Zoe@example.org>', To="b@x.org, a@y.org", Cc="c") == {
        "from": "ZOE",
        "to": "B",
        "cc": "C",
        "displayfrom": "U\u0308NAL, ZOE\u0308",
        "displayto": "B@X.ORG",
    }
    assert set(keys().values()) == {""}


def test_no_name_can_shift_the_other_keys():
    assert keys(From="=?utf-8?q?a=01b?= <x@y>", To="t@u")["to"] == "T"


@pytest.mark.parametrize(
    ("subject", "reply"),
    [
        ("Lunch", False),
        ("Re: Lunch", True),
        ("[list] Lunch", False),
        ("[list] fwd[2]: Lunch", True),
        ("Lunch (fwd)", True),
        ("[Fwd: Lunch]", True),
        ("Lunch: today", False),
    ],
)
def test_replies_and_forwards_are_known_by_their_subject(subject, reply):
    assert ordering.unpack(ordering.ancestry(summary(Subject=subject)))[0] is reply


def test_references_or_else_the_first_in_reply_to():
    def ids(**fields):
        _, own, references = ordering.unpack(ordering.ancestry(summary(**fields)))
        return own, references

    a, _ = ids(Message_ID="<a@x>")
    b, _ = ids(Message_ID="<b@x>")
    assert a and b and a != b
    assert ids(References="<a@x> <b@x>", In_Reply_To="<c@x>") == (0, (a, b))
    assert ids(In_Reply_To="<b@x> <a@x>") == (0, (b,))
    assert ids(References="nonsense", In_Reply_To="<b@x>") == (0, (b,))
    assert ids(Message_ID='<"a"@x>') == (a, ())
    _, many = ids(References=" ".join(f"<{n}@x>" for n in range(500)))
    assert len(many) == ordering.MAX_REFERENCES


@given(st.binary(max_size=300))
def test_any_message_has_keys(raw):
    found = mime.parse(b"From: " + raw).summary
    assert ordering.sort_keys(found).count(ordering.SEPARATOR) == len(ordering.PARTS) - 1
    ordering.unpack(ordering.ancestry(found))
