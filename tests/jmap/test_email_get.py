"""Email/get (RFC 8621 §4.1, §4.2)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from mailcore.jmap import limits
from mailcore.store import flags
from tests.jmap.world import SIMPLE, World

pytestmark = pytest.mark.django_db(transaction=True)

RICH = """Received: from x by y; Mon, 02 Mar 2026 09:59:59 +0000
From: =?utf-8?q?Zo=C3=AB?= <zoe@far.example>, Second <two@far.example>
Sender: zoe@far.example
Reply-To: list@far.example
To: Friends: "Last, First" <a@x.example>, b@x.example;, alice@example.org
Cc: =?utf-8?b?w5xtbGF1dA==?= <c@x.example>
Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=
Date: Mon, 02 Mar 2026 10:00:00 +0530
Message-ID: <one@far.example>
In-Reply-To: <zero@far.example>
References: <nil@far.example>
 <zero@far.example>
List-Unsubscribe: <https://far.example/u?x=1>, <mailto:u@far.example>
X-Twice: first
X-Twice: =?utf-8?q?sec=C3=B6nd?=
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=outer

--outer
Content-Type: multipart/alternative; boundary=inner

--inner
Content-Type: text/plain; charset=iso-8859-1
Content-Transfer-Encoding: quoted-printable
X-Part: of the text

Gr=FC=DFe
--inner
Content-Type: multipart/related; boundary=related

--related
Content-Type: text/html; charset=utf-8

<p>Grüße <img src="cid:pic@x"></p>
--related
Content-Type: image/png; name=pic.png
Content-Transfer-Encoding: base64
Content-ID: <pic@x>
Content-Disposition: inline; filename=pic.png
Content-Language: en, de
Content-Location: pics/pic.png

iVBORw0KGgo=
--related--
--inner--
--outer
Content-Type: message/rfc822

Subject: inner
Content-Type: multipart/mixed; boundary=deep

--deep

Deep text.
--deep--
--outer
Content-Type: application/pdf
Content-Disposition: attachment; filename*=utf-8''%C3%BC.pdf
Content-Transfer-Encoding: base64

JVBERi0=
--outer--
"""


@pytest.fixture
async def rich(world: World) -> str:
    return await world.deliver(
        world.village.alice,
        RICH,
        flags=flags.SEEN | flags.ANSWERED,
        keywords=("$Forwarded", "work"),
        internal_date=datetime(2026, 3, 2, 5, 0, 1, tzinfo=UTC),
    )


async def test_the_default_properties(world: World, rich: str) -> None:
    email = await world.alice.email(rich)
    assert email["id"] == rich and email["blobId"] and email["threadId"] == "T1"
    assert email["mailboxIds"] == {"F1": True}
    assert email["keywords"] == {"$seen": True, "$answered": True, "$forwarded": True, "work": True}
    assert email["size"] == len(RICH.replace("\n", "\r\n").encode())
    assert email["receivedAt"] == "2026-03-02T05:00:01Z"
    assert email["sentAt"] == "2026-03-02T10:00:00+05:30"
    assert email["subject"] == "Grüße"
    assert email["from"] == [
        {"name": "Zoë", "email": "zoe@far.example"},
        {"name": "Second", "email": "two@far.example"},
    ]
    assert [one["email"] for one in email["to"]] == ["a@x.example", "b@x.example", "alice@example.org"]
    assert email["to"][0]["name"] == "Last, First"
    assert email["cc"] == [{"name": "Ümlaut", "email": "c@x.example"}]
    assert email["bcc"] is None
    assert email["messageId"] == ["one@far.example"]
    assert email["inReplyTo"] == ["zero@far.example"]
    assert email["references"] == ["nil@far.example", "zero@far.example"]
    assert email["hasAttachment"] is True
    assert email["preview"] == "Grüße"
    assert email["bodyValues"] == {}
    assert [part["partId"] for part in email["textBody"]] == ["1.1"]
    assert [part["type"] for part in email["htmlBody"]] == ["text/html"]
    assert [part["type"] for part in email["attachments"]] == ["image/png", "message/rfc822", "application/pdf"]
    assert email["attachments"][2]["name"] == "ü.pdf"
    assert "headers" not in email and "bodyStructure" not in email


async def test_the_structure_is_a_tree_and_stops_at_embedded_messages(world: World, rich: str) -> None:
    email = await world.alice.email(rich, properties=["bodyStructure"], bodyProperties=["type", "partId"])

    def shape(part: Any) -> Any:
        return (part["type"], part["partId"], [shape(child) for child in part.get("subParts", ())])

    related = ("multipart/related", None, [("text/html", "1.2.1", []), ("image/png", "1.2.2", [])])
    assert shape(email["bodyStructure"]) == (
        "multipart/mixed",
        None,
        [
            ("multipart/alternative", None, [("text/plain", "1.1", []), related]),
            ("message/rfc822", "2", []),
            ("application/pdf", "3", []),
        ],
    )
    assert "subParts" not in email["bodyStructure"]["subParts"][1]


async def test_parts_tell_what_they_are(world: World, rich: str) -> None:
    email = await world.alice.email(
        rich, properties=["attachments", "textBody"], bodyProperties=["blobId", "size", "name", "type", "charset",
        "disposition", "cid", "language", "location", "headers", "header:Content-ID:asMessageIds", "header:X-Part"],
    )  # fmt: skip
    image, message, _ = email["attachments"]
    assert (image["cid"], image["disposition"], image["name"]) == ("pic@x", "inline", "pic.png")
    assert (image["language"], image["location"], image["charset"]) == (["en", "de"], "pics/pic.png", None)
    assert image["size"] == 8
    assert image["header:Content-ID:asMessageIds"] == ["pic@x"]
    assert {"name": "Content-Transfer-Encoding", "value": " base64"} in image["headers"]
    assert message["disposition"] is None
    (text,) = email["textBody"]
    assert (text["charset"], text["header:X-Part"]) == ("iso-8859-1", " of the text")


VALUES: list[Any] = [
    ({"fetchTextBodyValues": True}, {"1.1": "Grüße"}),
    ({"fetchHTMLBodyValues": True}, {"1.2.1": '<p>Grüße <img src="cid:pic@x"></p>'}),
    ({"fetchAllBodyValues": True}, {"1.1": "Grüße", "1.2.1": '<p>Grüße <img src="cid:pic@x"></p>'}),
    ({}, {}),
]


async def test_body_values(world: World, rich: str) -> None:
    for fetch, values in VALUES:
        email = await world.alice.email(rich, properties=["bodyValues"], **fetch)
        assert {key: value["value"] for key, value in email["bodyValues"].items()} == values
        assert not any(v["isTruncated"] or v["isEncodingProblem"] for v in email["bodyValues"].values())


async def test_body_values_are_cut_between_characters_and_outside_of_tags(world: World, rich: str) -> None:
    async def cut(most: int) -> dict[str, str]:
        email = await world.alice.email(
            rich, properties=["bodyValues"], fetchAllBodyValues=True, maxBodyValueBytes=most
        )
        assert all(value["isTruncated"] for value in email["bodyValues"].values())
        return {key: value["value"] for key, value in email["bodyValues"].items()}

    assert await cut(3) == {"1.1": "Gr", "1.2.1": "<p>"}
    assert await cut(4) == {"1.1": "Grü", "1.2.1": "<p>G"}
    assert (await cut(6))["1.1"] == "Grüß"[:4]


async def test_a_long_body_is_cut_where_the_limit_is(world: World) -> None:
    body = "".join(f"line {n}\n" for n in range(60_000))
    email_id = await world.deliver(world.village.alice, SIMPLE.format(subject="Long") + body)
    email = await world.alice.email(email_id, fetchTextBodyValues=True)
    assert email["bodyValues"]["1"] == {
        "value": "Hello Alice.\n" + body, "isEncodingProblem": False, "isTruncated": False
    }  # fmt: skip
    email = await world.alice.email(email_id, fetchTextBodyValues=True, maxBodyValueBytes=1000)
    assert email["bodyValues"]["1"]["value"] == ("Hello Alice.\n" + body)[:1000]
    assert email["bodyValues"]["1"]["isTruncated"] is True


async def test_unknown_charsets_and_broken_text_are_admitted(world: World) -> None:
    for charset, octets in (("x-nonsense", b"abc"), ("utf-8", b"a\xff\xfeb")):
        raw = f"Subject: x\r\nContent-Type: text/plain; charset={charset}\r\n\r\n".encode() + octets
        email = await world.alice.email(await world.deliver(world.village.alice, raw), fetchTextBodyValues=True)
        if charset == "x-nonsense":
            assert email["bodyValues"]["1"]["isEncodingProblem"] is True
        assert email["bodyValues"]["1"]["value"].startswith("a")


FORMS: list[Any] = [
    ("header:Subject", " =?utf-8?q?Gr=C3=BC=C3=9Fe?="),
    ("header:subject:asText", "Grüße"),
    (
        "header:From:asAddresses",
        [{"name": "Zoë", "email": "zoe@far.example"}, {"name": "Second", "email": "two@far.example"}],
    ),
    (
        "header:To:asGroupedAddresses",
        [
            {
                "name": "Friends",
                "addresses": [{"name": "Last, First", "email": "a@x.example"}, {"name": None, "email": "b@x.example"}],
            },
            {"name": None, "addresses": [{"name": None, "email": "alice@example.org"}]},
        ],
    ),
    ("header:References:asMessageIds", ["nil@far.example", "zero@far.example"]),
    ("header:References", " <nil@far.example>\r\n <zero@far.example>"),
    ("header:Date:asDate", "2026-03-02T10:00:00+05:30"),
    ("header:List-Unsubscribe:asURLs", ["https://far.example/u?x=1", "mailto:u@far.example"]),
    ("header:X-Twice", " =?utf-8?q?sec=C3=B6nd?="),
    ("header:X-Twice:asText:all", ["first", "secönd"]),
    ("header:X-None", None),
    ("header:X-None:asDate:all", []),
    ("header:X-Twice:asDate", None),
    ("header:Content-Type", " multipart/mixed; boundary=outer"),
]


async def test_header_forms(world: World, rich: str) -> None:
    for prop, value in FORMS:
        assert (await world.alice.email(rich, properties=[prop])) == {"id": rich, prop: value}


NO_FORMS: list[Any] = [
    "header:",
    "header:Subject:asAddresses",
    "header:From:asText",
    "header:X:asNonsense",
    "header:X:all:all",
    "header:a b",
    "header:Received:asText",
    "header:Date:asMessageIds",
    "colour",
]


async def test_forms_that_a_field_does_not_have_are_refused(world: World) -> None:
    for prop in NO_FORMS:
        assert await world.alice.error("Email/get", ids=[], properties=[prop]) == "invalidArguments"
        if prop.startswith("header"):
            assert await world.alice.error("Email/get", ids=[], bodyProperties=[prop]) == "invalidArguments"


async def test_headers_lists_them_all_in_order(world: World, rich: str) -> None:
    email = await world.alice.email(rich, properties=["headers"])
    names = [field["name"] for field in email["headers"]]
    assert names[:3] == ["Received", "From", "Sender"] and names.count("X-Twice") == 2
    assert email["headers"][-1] == {"name": "Content-Type", "value": " multipart/mixed; boundary=outer"}


async def test_order_and_repetition_of_ids(world: World) -> None:
    alice = world.alice
    made = [await world.deliver(alice.account, SIMPLE.format(subject=f"S{n}")) for n in range(3)]
    answer = await alice.call("Email/get", ids=[made[2], "M99", made[0], made[2], "nonsense"], properties=["subject"])
    assert [email["subject"] for email in answer["list"]] == ["S2", "S0"]
    assert sorted(answer["notFound"]) == ["M99", "nonsense"]
    assert await alice.error("Email/get", ids=None) == "requestTooLarge"


async def test_in_several_mailboxes_it_is_read_when_it_is_read_everywhere(world: World, rich: str) -> None:
    alice = world.alice
    await alice.call("Email/set", update={rich: {"mailboxIds/F4": True}})
    email = await alice.email(rich, properties=["mailboxIds", "keywords"])
    assert email["mailboxIds"] == {"F1": True, "F4": True} and email["keywords"]["$seen"]
    from mailcore import db

    async with db.transaction() as tx:
        await flags.store(tx, alice.account, 4, [1], "-", flags.SEEN)
        await flags.store(tx, alice.account, 4, [1], "+", flags.FLAGGED)
    keywords = (await alice.email(rich, properties=["keywords"]))["keywords"]
    assert "$seen" not in keywords and keywords["$flagged"]


async def test_more_body_than_fits_into_an_answer_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    email = await world.deliver(world.village.alice, SIMPLE.format(subject="x") + "word " * 1000)
    monkeypatch.setattr(limits, "MAX_BODY_OCTETS", 1000)
    assert await world.alice.error("Email/get", ids=[email], fetchAllBodyValues=True) == "requestTooLarge"
    assert await world.alice.email(email, fetchAllBodyValues=True, properties=["subject"])


async def test_hostile_mail_is_an_email_like_any_other(world: World) -> None:
    deep = b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n" * 300
    for raw in (b"", b"\r\n", b"\0\0\0", b"Subject", b"From: \r\n\r\n", b"=?x?", deep, b"A: b\r\n" * 20_000):
        email_id = await world.deliver(world.village.alice, raw)
        everything = [
            "headers",
            "bodyStructure",
            "subject",
            "from",
            "sentAt",
            "textBody",
            "htmlBody",
            "attachments",
            "bodyValues",
            "preview",
            "header:From:asAddresses",
            "header:X:asGroupedAddresses:all",
        ]
        email = await world.alice.email(
            email_id, properties=everything, fetchAllBodyValues=True, bodyProperties=["partId", "headers", "subParts"]
        )
        assert set(email) == {"id", *everything}
