"""What people read and search: bodies and attachments, decoding, text of HTML, previews, the fold."""

from __future__ import annotations

import base64
import quopri

import pytest

from mailcore import mime


def parts_of(raw: str) -> tuple[bytes, list[mime.Part]]:
    octets = raw.replace("\n", "\r\n").encode()
    return octets, mime.unpack_parts(mime.parse(octets).parts)


def multipart(subtype: str, *children: str, boundary: str = "b") -> str:
    inner = "".join(f"\n--{boundary}\n{child}" for child in children)
    return f"Content-Type: multipart/{subtype}; boundary={boundary}\n{inner}\n--{boundary}--\n"


def leaf(kind: str, more: str = "") -> str:
    return f"Content-Type: {kind}\n{more}\nx"


def test_body_parts_of_the_example_of_rfc_8621() -> None:
    """Section 4.1.4: a mailing list's footer around an alternative of text and HTML with pictures, and attachments."""
    raw = multipart(
        "mixed",
        leaf("text/plain", "Content-Disposition: inline\n"),  # A
        multipart(
            "mixed",
            multipart(
                "alternative",
                multipart(
                    "mixed",
                    leaf("text/plain", "Content-Disposition: inline\n"),  # B
                    leaf("image/jpeg", "Content-Disposition: inline\n"),  # C
                    leaf("text/plain", "Content-Disposition: inline\n"),  # D
                    boundary="d",
                ),
                multipart(
                    "related",
                    leaf("text/html"),  # E
                    leaf("image/jpeg"),  # F
                    boundary="e",
                ),
                boundary="c2",
            ),
            leaf("image/jpeg", "Content-Disposition: attachment\n"),  # G
            leaf("application/x-excel"),  # H
            leaf("message/rfc822"),  # J
            boundary="c",
        ),
        leaf("text/plain", "Content-Disposition: inline\n"),  # K
    )
    _, parts = parts_of(raw)
    names = dict(zip([p.id for p in parts if p.type != "multipart"][:11], "ABCDEFGHJ_K", strict=False))
    text, html, attachments = mime.body_parts(parts)
    assert "".join(names[parts[row].id] for row in text) == "ABCDK"
    assert "".join(names[parts[row].id] for row in html) == "AEK"
    assert "".join(names[parts[row].id] for row in attachments) == "CFGHJ"


def test_html_alone_is_the_text_body_too() -> None:
    _, parts = parts_of(multipart("alternative", leaf("text/html")))
    text, html, attachments = mime.body_parts(parts)
    assert text == html == [1] and attachments == []


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (leaf("text/plain"), False),
        (leaf("application/pdf"), True),
        (leaf("text/plain", "Content-Disposition: attachment\n"), True),
        (multipart("mixed", leaf("text/plain"), leaf("application/pdf")), True),
        (multipart("mixed", leaf("text/plain"), leaf("text/plain; name=a.txt")), True),
        (multipart("mixed", leaf("text/plain"), leaf("text/plain")), False),
        (multipart("mixed", leaf("text/plain"), leaf("message/rfc822")), True),
        (multipart("mixed", leaf("text/plain"), leaf("image/png; name=photo.png")), True),
        (multipart("related", leaf("text/html"), leaf("image/png", "Content-ID: <a>\n")), False),
        (multipart("related", leaf("text/html"), leaf("image/png; name=a.png", "Content-ID: <a>\n")), False),
        (
            multipart("mixed", leaf("text/html"), leaf("image/png", "Content-ID: <a>\nContent-Disposition: inline\n")),
            False,
        ),
        (multipart("signed", leaf("text/plain"), leaf("application/pgp-signature; name=s.asc")), False),
        (multipart("encrypted", leaf("application/pgp-encrypted"), leaf("application/octet-stream")), False),
        (multipart("alternative", leaf("text/plain"), leaf("text/calendar")), False),
        (multipart("report", leaf("text/plain"), leaf("message/delivery-status"), leaf("message/rfc822")), False),
        (multipart("digest", leaf("message/rfc822")), False),
    ],
)
def test_has_attachment(raw: str, expected: bool) -> None:
    assert mime.parse(raw.replace("\n", "\r\n").encode()).has_attachment is expected


@pytest.mark.parametrize("size", [0, 1, 2, 3, 56, 57, 58, 5_000, 100_000])
@pytest.mark.parametrize("encoding", ["base64", "quoted-printable", "8bit"])
def test_decoded_part_and_its_size(size: int, encoding: str) -> None:
    content = bytes(i * 7 % 256 for i in range(size))
    if encoding == "8bit":
        content = content.replace(b"\r", b"_")
    encoded = {
        "base64": base64.encodebytes(content).replace(b"\n", b"\r\n"),
        "quoted-printable": quopri.encodestring(content, quotetabs=True).replace(b"\n", b"=0A=\r\n")
        if b"\n" not in content
        else b"".join(b"=%02X" % c + (b"=\r\n" if i % 20 == 19 else b"") for i, c in enumerate(content)),
        "8bit": content,
    }[encoding]
    raw = b"Content-Type: application/x\r\nContent-Transfer-Encoding: %s\r\n\r\n" % encoding.encode() + encoded
    (part,) = mime.unpack_parts(mime.parse(raw).parts)
    assert mime.decode_part(raw, part, 1 << 20) == content
    assert part.size == len(content)
    for limit in (0, 1, 10, 1_000):
        assert mime.decode_part(raw, part, limit) == content[:limit]


def test_decode_text_is_bounded_in_characters() -> None:
    raw = b"Content-Type: text/plain; charset=utf-8\r\n\r\n" + "日本語".encode() * 1_000
    (part,) = mime.unpack_parts(mime.parse(raw).parts)
    assert mime.decode_text(raw, part, 7) == "日本語日本語日"


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>one</p><p>two</p>", "one two"),
        ("o<b>n</b>e <a href='x>y'>two</a>", "one two"),
        ("one<br>two", "one two"),
        ("<td>one</td><td>two</td>", "one two"),
        ("<style>p { x: '</p>' }</style>one<script>if (a < b) {}</script>two", "one two"),
        ("<STYLE>x</STYLE >one<!-- <p>no</p> -- > -->two", "one two"),
        ("<title>no</title>one", "one"),
        ("a &amp; b &lt;c&gt; &#228; &#xE4; &eacute; &nbsp;x", "a & b <c> ä ä é x"),
        ("&#x80; &#0; &#xD800; &#x110000; &unknown; &", "€ � � � &unknown; &"),
        ("1 < 2 and 3 > 2", "1 < 2 and 3 > 2"),
        ('<img alt="a > b">one', "one"),
        ("one<script>never closed", "one"),
        ("one<!-- never closed", "one"),
        ("<o:p>&nbsp;</o:p>one<wbr>two", "onetwo"),
        ("", ""),
        ("no markup", "no markup"),
    ],
)
def test_text_of_html(html: str, text: str) -> None:
    assert " ".join(mime.text_of_html(html).split()) == text


def preview(body: str, kind: str = "text/plain; charset=utf-8") -> str:
    return mime.parse(f"Content-Type: {kind}\r\n\r\n".encode() + body.replace("\n", "\r\n").encode()).preview


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("one\n\n  two\tthree\n", "one two three"),
        ("> quoted\n\nanswer\n", "answer"),
        ("On Tue, Ben wrote:\n> quoted\n> more\n\nanswer\n", "answer"),
        ("Am 4. März 2025 schrieb Ben:\n> zitiert\n\nAntwort\n", "Antwort"),
        ("answer\n-- \nAnna\n", "answer"),
        ("answer\n\n-----Original Message-----\nFrom: Ben\nquoted\n", "answer"),
        ("-- \nonly a signature\n", "-- only a signature"),
        ("> only a quote\n", "> only a quote"),
        ("on foot > by car\n", "on foot > by car"),
        ("x" * 300, "x" * 256),
        ("", ""),
    ],
)
def test_preview_of_text(body: str, expected: str) -> None:
    assert preview(body) == expected


def test_preview_of_html_skips_quotes_and_invisible_padding() -> None:
    html = "text/html; charset=utf-8"
    assert preview("<p>new</p><blockquote>old</blockquote>", html) == "new"
    assert preview("<blockquote>old</blockquote>", html) == "old"
    assert preview("offer &zwnj; &zwnj; &#847;&shy;&#8203; end", html) == "offer end"
    assert preview("می‌خواهم", html) == "می‌خواهم"  # a single joiner belongs to the word
    assert preview("👩‍👧", html) == "👩‍👧"


def test_preview_takes_html_when_the_text_is_empty() -> None:
    raw = multipart("alternative", "Content-Type: text/plain\n\n \n", "Content-Type: text/html\n\n<p>shown</p>")
    assert mime.parse(raw.replace("\n", "\r\n").encode()).preview == "shown"


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("One  TWO\n\tthree ", "one two three"),
        ("Straße STRASSE", "strasse strasse"),
        ("ÄÖÜ äöü", "äöü äöü"),
        ("ﬁne ＦＵＬＬ ²", "fine full 2"),
        ("A\u0308", "ä"),
        ("a\xa0b\u2003c\u2028d", "a b c d"),
        ("wait…", "wait..."),
        ("ΣΊΣΥΦΟΣ σίσυφος", "σίσυφοσ σίσυφοσ"),
        ("a\0b\ud800c", "abc"),
        ("½ µ ¼", "1⁄2 μ 1⁄4"),
        ("ταΐζω ΤΑ\u03aa\u0301ΖΩ J\u030c", "ταΐζω ταΐζω ǰ"),
        ("日本 語", "日本 語"),
        ("", ""),
    ],
)
def test_fold(text: str, folded: str) -> None:
    assert mime.fold(text) == folded
    assert mime.fold(folded) == folded


def test_search_finds_what_is_inside_every_part() -> None:
    raw = (
        multipart(
            "mixed",
            "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\n\n"
            + base64.b64encode("Grüße".encode()).decode(),
            "Content-Type: text/html\n\n<p>Q<i>uar</i>terly</p>",
            "Content-Type: text/csv\nContent-Disposition: attachment\n\nname;NUMBER",
            "Content-Type: message/rfc822\n\nSubject: =?utf-8?q?Caf=C3=A9?=\n\nInner Text",
            "Content-Type: message/delivery-status\n\nFinal-Recipient: rfc822; gone@example.org",
            "Content-Type: application/pdf\n\nNot Text",
        )
        .replace("\n", "\r\n")
        .encode()
    )
    body = mime.parse(raw).text.body
    for word in ("grüsse", "quarterly", "name;number", "subject: café", "inner text", "gone@example.org"):
        assert mime.fold(word) in body
    assert "not text" not in body


def test_search_text_of_the_header() -> None:
    raw = b"From: =?utf-8?q?Zo=C3=AB?= <z@A>\r\nTO:one@b,\r\n two@b\r\nSubject: A\r\n B\r\nX-Any: Thing\r\n\r\n"
    text = mime.parse(raw).text
    assert text.header.split("\n") == ["from: zoë <z@a>", "to: one@b, two@b", "subject: a b", "x-any: thing"]
    assert (text.from_, text.to, text.subject) == ("zoë <z@a>", "one@b, two@b", "a b")


def test_the_html_form_of_the_same_text_is_not_kept_twice() -> None:
    raw = multipart("alternative", "Content-Type: text/plain\n\nthe same", "Content-Type: text/html\n\n<p>the same</p>")
    assert mime.parse(raw.replace("\n", "\r\n").encode()).text.body == "the same"
