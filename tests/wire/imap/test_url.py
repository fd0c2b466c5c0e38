"""IMAP URLs of messages and their parts (RFC 5092)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailcore.wire.imap.fetch_item import FetchBody, Section
from mailcore.wire.imap.url import MessageUrl, UrlError, parse_url

WHOLE = FetchBody(Section(), peek=True)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (";UID=20", MessageUrl(None, None, None, None, 20, WHOLE)),
        ("/Drafts;UIDVALIDITY=385759045/;UID=20", MessageUrl(None, None, "Drafts", 385759045, 20, WHOLE)),
        (
            "/Drafts;UIDVALIDITY=385759045/;uid=20/;section=HEADER",
            MessageUrl(None, None, "Drafts", 385759045, 20, FetchBody(Section((), "HEADER"), peek=True)),
        ),
        (
            "imap://fred@example.com/inbox/;uid=20/;section=1.2.MIME/;partial=0.1024",
            MessageUrl("fred", "example.com", "INBOX", None, 20, FetchBody(Section((1, 2), "MIME"), True, (0, 1024))),
        ),
        (
            "IMAP://fred%40example.com;AUTH=*@mail.example.com:1430/Projects/%E6%97%A5/;UID=1/;PARTIAL=7",
            MessageUrl(
                "fred@example.com",
                "mail.example.com",
                "Projects/日",
                None,
                1,
                FetchBody(Section(), True, (7, 0x7FFF_FFFF_FFFF_FFFF)),
            ),
        ),
        (
            "/x/;UID=3/;SECTION=2.HEADER.FIELDS%20(Subject%20From)",
            MessageUrl(
                None, None, "x", None, 3, FetchBody(Section((2,), "HEADER.FIELDS", ("Subject", "From")), peek=True)
            ),
        ),
    ],
)
def test_urls_of_messages(url: str, expected: MessageUrl) -> None:
    assert parse_url(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/",
        "/Drafts",
        "/Drafts/;UID=0",
        "/Drafts/;UID=99999999999",
        "/Drafts/;UID=4294967296",
        "/Drafts/;UID=1/;SECTION=",
        "/Drafts/;UID=1/;SECTION=1.NONSENSE",
        "/Drafts/;UID=1/;SECTION=HEADER]<0.1",
        "/Drafts/;UID=1/;SECTION=MIME",
        "/Drafts/;UID=1/;PARTIAL=1.0",
        "/Drafts/;UID=1/;PARTIAL=-1",
        "/Drafts/;UID=1;URLAUTH=anonymous",
        "/Drafts/;UID=1;EXPIRE=2030-01-01T00:00:00Z;URLAUTH=anonymous:internal:00",
        "imap://example.com/;UID=1",
        "imaps://example.com/Drafts/;UID=1",
        "http://example.com/Drafts/;UID=1",
        "imap:///Drafts/;UID=1",
        "/%FF/;UID=1",
        "/a%00b/;UID=1",
        "/a%0D%0Ab/;UID=1",
        "/;UID=1",
        "/Drafts/;UID=1\n",
        "/Drafts/;UID=１",
    ],
)
def test_what_is_no_url_of_a_message(url: str) -> None:
    with pytest.raises(UrlError):
        parse_url(url)


@given(st.text(max_size=60) | st.from_regex(r"(imap://[a-z@;:]*)?/?.{0,20};UID=[0-9]{1,3}(/;.{0,20}){0,3}"))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_url(text)
    except UrlError as error:
        assert str(error)
