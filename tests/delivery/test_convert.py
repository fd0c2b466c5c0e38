"""Mail in eight bits and in binary, for hosts that take it and hosts that do not."""

from __future__ import annotations

import base64
from email import message_from_bytes, policy

import dkim
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailcore import db
from mailcore.delivery import convert
from mailcore.delivery import dkim as keys
from mailcore.delivery.outcome import Undeliverable
from tests.delivery.sink import EXTENSIONS
from tests.delivery.world import BOB, World

OLD = tuple(each for each in EXTENSIONS if each not in ("8BITMIME", "SMTPUTF8"))
BINARY = (*EXTENSIONS, "CHUNKING", "BINARYMIME")

HEAD = b"From: Ann <ann@example.test>\r\nTo: bob@far.example\r\nSubject: hi\r\nMIME-Version: 1.0\r\n"
TEXT = (
    HEAD + "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGrüße\r\n.\r\n".encode()
)
MIXED = (
    HEAD
    + (
        "Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        "--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding:\r\n 8bit\r\n\r\nGrüße an alle\r\n"
        "--b\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\nas it was \r\n"
        "--b\r\nContent-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        "Subject: inner\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
        "Content-Transfer-Encoding: 8bit\r\n\r\nинтерьер\r\n"
        "--b--\r\n"
    ).encode()
)
SIGNED = (
    HEAD
    + (
        "Content-Type: multipart/signed; protocol=x/y; boundary=b\r\n\r\n"
        "--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGrüße\r\n"
        "--b\r\nContent-Type: x/y\r\n\r\nsignature\r\n--b--\r\n"
    ).encode()
)
OCTETS = bytes(range(256)) * 3 + b"\n\r.\n\r\n.\r\nend"
IN_BINARY = (
    HEAD
    + b"Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: binary\r\n\r\n"
    + b"--b\r\nContent-Type: text/plain\r\n\r\nplain\r\n"
    + b"--b\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n\r\n"
    + OCTETS
    + b"\r\n--b--\r\n"
)


@pytest.fixture
def far(here: World) -> World:
    here.names.host("far.example", (10, "mx.far.example", "127.0.0.1"))
    return here


def texts(raw: bytes) -> list[bytes]:
    """The decoded octets of all single parts."""
    message = message_from_bytes(raw, policy=policy.default)
    return [part.get_payload(decode=True) for part in message.walk() if not part.is_multipart()]


@pytest.mark.parametrize("raw", [TEXT, MIXED], ids=["text", "mixed"])
def test_eight_bits_become_seven_and_say_the_same(raw: bytes) -> None:
    converted = convert.to_seven_bit(raw)
    assert converted.isascii()
    assert [each.rstrip(b"\r\n") for each in texts(converted)] == [each.rstrip(b"\r\n") for each in texts(raw)]
    assert b"8bit" not in converted
    assert converted.startswith(HEAD)
    assert convert.to_seven_bit(converted) == converted, "what needs nothing is not touched"


def test_parts_that_are_ascii_stay_octet_by_octet() -> None:
    kept = b"--b\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\nas it was \r\n--b\r\n"
    assert kept in MIXED
    assert kept in convert.to_seven_bit(MIXED)


def test_what_stood_outside_of_mime_becomes_unknown_8bit() -> None:
    converted = convert.to_seven_bit(b"Subject: x\r\n\r\nGr\xfc\xdfe\r\n")
    message = message_from_bytes(converted)
    assert (message["MIME-Version"], message.get_content_charset()) == ("1.0", "unknown-8bit")
    assert message.get_payload(decode=True) == b"Gr\xfc\xdfe\r\n"


@pytest.mark.parametrize(
    "raw",
    [
        SIGNED,
        TEXT.replace(b"Subject: hi", "Subject: Grüße".encode()),
        MIXED.replace(b"--b--\r\n", "--b--\r\nGrüße\r\n".encode()),
        TEXT.replace(b"text/plain; charset=utf-8", b"message/partial; id=x; number=1"),
    ],
    ids=["signed", "header", "epilogue", "partial"],
)
def test_what_cannot_be_converted_is_refused(raw: bytes) -> None:
    with pytest.raises(Undeliverable) as refused:
        convert.to_seven_bit(raw)
    assert refused.value.outcome.status == "5.6.3"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=600), st.sampled_from(["text/plain", "application/x"]), st.sampled_from(["8bit", "binary"]))
def test_any_octets_survive(body: bytes, kind: str, encoding: str) -> None:
    raw = (
        HEAD
        + b"Content-Type: multipart/mixed; boundary=QQQ\r\n\r\n--QQQ\r\n"
        + f"Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode()
        + body
        + b"\r\n--QQQ--\r\n"
    )
    if b"--QQQ" in body:
        return
    for change in (convert.to_seven_bit, convert.to_text):
        converted = change(raw)
        assert b"\n" not in converted.replace(b"\r\n", b"")
        (found,) = texts(converted)
        assert found == body


async def test_a_host_without_8bitmime_gets_seven_bits_signed_as_they_are(far: World) -> None:
    sink = await far.sink(extensions=OLD)
    await far.submit(raw=MIXED, body="8BITMIME")
    await far.deliver()
    (mail,) = sink.mails
    assert mail.data.isascii()
    assert "BODY=" not in mail.mail_line
    async with db.read() as tx:
        records = {each.name: each.value for each in await keys.dns_records(tx, "example.test")}
    signed = dkim.DKIM(mail.data)
    assert signed.verify(dnsfunc=lambda name, timeout=5: records[name.decode().rstrip(".")].encode())


async def test_a_host_with_8bitmime_gets_it_as_it_is(far: World) -> None:
    sink = await far.sink()
    await far.submit(raw=TEXT, body="8BITMIME")
    await far.deliver()
    assert sink.mails[0].data.endswith(TEXT)
    assert "BODY=8BITMIME" in sink.mails[0].mail_line


async def test_signed_parts_are_not_altered_but_returned(far: World) -> None:
    sink = await far.sink(extensions=OLD)
    await far.submit(raw=SIGNED, body="8BITMIME")
    await far.deliver()
    assert not sink.mails
    assert await far.states() == {BOB: "failed"}
    (notice,) = await far.inbox()
    assert b"Status: 5.6.3" in notice


async def test_binary_goes_octet_by_octet_in_a_chunk(far: World) -> None:
    sink = await far.sink(extensions=BINARY)
    await far.submit(raw=IN_BINARY, body="BINARYMIME")
    await far.submit(raw=TEXT, body="8BITMIME")
    await far.deliver()
    first, second = sink.mails
    assert first.data.endswith(IN_BINARY)
    assert "BODY=BINARYMIME" in first.mail_line
    assert [line.split()[0] for line in sink.log if line.startswith(("BDAT", "DATA"))] == ["BDAT", "DATA"]
    assert second.data.endswith(TEXT)


@pytest.mark.parametrize("extensions", [EXTENSIONS, OLD, (*EXTENSIONS, "BINARYMIME")])
async def test_binary_is_encoded_for_a_host_that_takes_text_only(far: World, extensions: tuple[str, ...]) -> None:
    sink = await far.sink(extensions=extensions)
    await far.submit(raw=IN_BINARY, body="BINARYMIME")
    await far.deliver()
    (mail,) = sink.mails
    assert texts(mail.data) == [b"plain", OCTETS]
    assert base64.b64encode(OCTETS)[:40] in mail.data
    assert "BINARYMIME" not in mail.mail_line


async def test_a_notice_about_binary_mail_holds_it_as_text(far: World) -> None:
    sink = await far.sink(extensions=BINARY)
    sink.refuse(("RCPT", "", "550 5.1.1 no"))
    await far.submit(raw=IN_BINARY, body="BINARYMIME")
    await far.deliver()
    (notice,) = await far.inbox()
    assert b"\0" not in notice and b"\n" not in notice.replace(b"\r\n", b"")
    assert OCTETS in texts(notice)


async def test_nobody_gets_a_chunk_when_everybody_is_refused(far: World) -> None:
    sink = await far.sink(extensions=BINARY)
    sink.refuse(("RCPT", "", "550 5.1.1 no"))
    await far.submit(raw=IN_BINARY, body="BINARYMIME")
    await far.deliver()
    assert not any(line.startswith("BDAT") for line in sink.log)
    sink.script = None
    await far.submit("carol@far.example", raw=IN_BINARY, body="BINARYMIME")
    await far.deliver()
    assert await far.states() == {BOB: "failed", "carol@far.example": "delivered"}


async def test_an_address_with_a_foreign_domain_needs_no_smtputf8(far: World) -> None:
    far.names.host("xn--bcher-kva.example", (10, "mx.far.example", "127.0.0.1"))
    sink = await far.sink(extensions=OLD)
    await far.submit("bob@bücher.example", sender="ann@exämple.test", smtputf8=True)
    await far.deliver()
    (mail,) = sink.mails
    assert (mail.sender, mail.recipients) == ("ann@xn--exmple-cua.test", ("bob@xn--bcher-kva.example",))
    assert "SMTPUTF8" not in mail.mail_line


@pytest.mark.parametrize("extensions", [OLD, (*OLD, "8BITMIME")])
async def test_a_foreign_local_part_or_header_is_returned(far: World, extensions: tuple[str, ...]) -> None:
    sink = await far.sink(extensions=extensions)
    await far.submit("zoë@far.example", smtputf8=True)
    await far.submit(BOB, raw=TEXT.replace(b"Subject: hi", "Subject: Grüße".encode()), smtputf8=True, body="8BITMIME")
    await far.deliver()
    assert not sink.mails
    rows = await far.rows()
    assert {row["state"] for row in rows.values()} == {"failed"}
    assert all("SMTPUTF8" in row["last_reply"] for row in rows.values())
