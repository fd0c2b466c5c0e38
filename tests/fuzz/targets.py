"""What is fuzzed: each target takes any octets and fails (AssertionError, or any exception) where a promise is broken.

They need no Django, no database and no network, so that thousands run in a second.
"""

from __future__ import annotations

import itertools
import random
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path

from accounts import addresses
from accounts.errors import AddressError
from mailcore import mime
from mailcore.delivery import outcome
from mailcore.mime import charset, decode, params
from mailcore.wire import sasl
from mailcore.wire.imap import mailbox_name, parse, response, url
from mailcore.wire.imap.errors import ImapSyntaxError
from mailcore.wire.imap.frames import Event, Frame, Line, LiteralOffer, Rejected
from mailcore.wire.smtp import command, data, path
from mailcore.wire.smtp import params as smtp_params
from mailcore.wire.smtp.reply import CommandError
from tests.mime.test_properties import check_everything
from tests.wire.imap.driving import ROOMY, TIGHT, by_size, bytewise, events_of, keep
from tests.wire.imap.test_frames import settled

TESTS = Path(__file__).resolve().parent.parent
CORPUS = Path(__file__).resolve().parent / "corpus"


@dataclass(frozen=True, slots=True)
class Target:
    """`check` fails where a promise is broken, `seeds` are the inputs to begin with; no input is longer than `size`."""

    check: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]
    size: int = 4096


def chunked(octets: bytes) -> list[bytes]:
    """The octets in pieces whose sizes depend on nothing but the octets."""
    chance = random.Random(zlib.crc32(octets))
    cuts = sorted(chance.randrange(len(octets) + 1) for _ in range(chance.randrange(1, 12)))
    return [octets[a:b] for a, b in itertools.pairwise([0, *cuts, len(octets)])]


# IMAP: frames do not depend on how octets arrive; what they hold is a command or a syntax error that can be answered.


def imap(octets: bytes) -> None:
    for limits in (TIGHT, ROOMY):
        whole = settled(events_of([octets], limits, by_size))
        assert settled(events_of(chunked(octets), limits, by_size)) == whole
        if len(octets) <= 60:
            assert settled(events_of(bytewise(octets), limits, by_size)) == whole
    for event in events_of([octets], ROOMY, keep):
        _imap_event(event)


def _imap_event(event: Event) -> None:
    match event:
        case Frame():
            parse.command_name(event)
            for utf8 in (False, True):
                try:
                    parsed = parse.parse_command(event, utf8=utf8)
                except ImapSyntaxError as error:
                    line = response.status_line(event.tag, error.status, error.text, error.code)
                    assert line.count(b"\r\n") == 1 and len(line) < 2000
                else:
                    _imap_arguments(parsed.args, utf8)
        case LiteralOffer():
            for utf8 in (False, True):
                try:
                    parse.parse_append_head(event.pieces, utf8=utf8)
                except ImapSyntaxError:
                    pass
        case Line():
            _sasl(event.data)
        case Rejected():
            line = response.status_line(event.tag, event.status, event.text, event.code)
            assert line.count(b"\r\n") == 1


def _imap_arguments(args: object, utf8: bool) -> None:
    name = getattr(args, "mailbox", None)
    if isinstance(name, str):
        assert mailbox_name.decode_utf7(mailbox_name.encode_utf7(name)) == name
        response.mailbox(name, utf8=utf8)
    for pattern in getattr(args, "patterns", ()):
        mailbox_name.matches(pattern, "INBOX/a/b")
    initial = getattr(args, "initial", None)
    if isinstance(initial, bytes):
        _sasl(initial)
    for word in getattr(args, "entries", ()):
        assert word == word.lower()


def _sasl(line: bytes) -> None:
    try:
        answer = sasl.decode_response(line)
        for name in sasl.MECHANISMS:
            exchange = sasl.start(name, answer, {"tls-server-end-point": b"x"})
            if isinstance(exchange.step, sasl.Challenge):
                exchange.respond(answer)
    except sasl.SaslError as error:
        response.status_line("a", "BAD", error.text)


def transcripts(protocol: str) -> Iterator[bytes]:
    """What clients say in the transcripts, command by command and script by script."""
    for script in sorted((TESTS / "transcripts" / protocol).glob("*.txt")):
        said = []
        for line in script.read_text().splitlines():
            if match := re.match(r"\d>>? (.*)", line):
                said.append(match[1].replace("{{", "{3").replace("}}", "}").encode() + b"\r\n")
        yield from said
        yield from (b"".join(said[at : at + 8]) for at in range(0, len(said), 8))


# MIME: `parse` never raises, and all that it promises holds.


def messages() -> Iterator[bytes]:
    for file in sorted((TESTS / "mime" / "corpus").glob("*.eml")):
        octets = file.read_bytes()
        if len(octets) <= TARGETS["mime"].size:
            yield octets


# Header fields one by one, and the small decoders.


def headers(octets: bytes) -> None:
    texts = [mime.decode_header(octets), *mime.message_ids(octets)]
    texts.append(mime.base_subject(texts[0]))
    for text in texts:
        text.encode("utf-8")
        assert "\0" not in text and "\n" not in text
    for mailbox in mime.parse_addresses(octets):
        assert all(field is None or b"\n" not in field for field in mailbox)
    moment = mime.parse_date(octets)
    assert moment is None or moment.astimezone(UTC) == moment
    mime.header_values(octets, b"subject")
    for name, value in params.parse_params(octets):
        assert isinstance(name, bytes) and isinstance(value, bytes)
    mime.decode_header(params.without_comments(octets))
    params.decode_extended(octets).encode("utf-8")
    label, _, rest = octets.partition(b"\0")
    charset.decode(rest, label.decode("latin-1")).encode("utf-8")
    mime.text_of_html(rest.decode("latin-1")).encode("utf-8")
    for encoding in ("base64", "quoted-printable", "x-uuencode"):
        assert len(decode.decode_transfer(octets, encoding)) <= max(100, 2 * len(octets))
    folded = mime.fold(octets.decode("utf-8", "replace"))
    assert folded == " ".join(folded.split())
    if octets:
        block = octets if octets.endswith(b"\n") else octets + b"\r\n"
        names = frozenset((b"from", b"subject"))
        assert len(mime.header_fields(block, names)) + len(mime.header_fields(block, names, True)) <= len(block) + 4


def fields() -> Iterator[bytes]:
    for octets in messages():
        head = octets.partition(b"\r\n\r\n")[0]
        yield from re.split(rb"\r\n(?![ \t])", head)
        yield from (line.partition(b": ")[2] for line in re.split(rb"\r\n(?![ \t])", head))
    yield from (b"utf-8\0\xc3\xa9", b"iso-2022-jp\0\x1b$B$3", b"utf-7\0+AOk-", b"\0<p>a&amp;b<!-- c --></p>")


# SMTP: commands, paths, parameters, addresses; data whose end does not depend on how it arrives.

_PARAMETERS = frozenset(
    (
        *("SIZE", "BODY", "SMTPUTF8", "RET", "ENVID", "AUTH", "REQUIRETLS", "NOTIFY", "ORCPT"),
        *("HOLDFOR", "HOLDUNTIL", "BY", "MT-PRIORITY"),
    )
)


def smtp(octets: bytes) -> None:
    for line in octets.split(b"\r\n")[:20]:
        try:
            _smtp_line(line)
        except CommandError as error:
            assert error.reply.isascii() and error.reply.count(b"\r\n") == 1 and len(error.reply) <= 512
    _address(octets.decode("utf-8", "surrogateescape"))
    _mail_data(octets)
    try:
        reply = outcome.parse_reply(octets.split(b"\r\n")[:20])
    except outcome.ReplyError:
        pass
    else:
        assert 200 <= reply.code <= 599 and "\n" not in reply.text


def _smtp_line(line: bytes) -> None:
    verb, argument = command.parse_command(line)
    if verb in ("HELO", "EHLO"):
        name = command.parse_helo(argument)
        command.is_host_name(name)
        assert not set(command.header_safe(name)) & set('()<>"\\;\r\n')
    elif verb == "BDAT":
        size, _ = command.parse_bdat(argument)
        assert 0 <= size < 10**15
    elif verb in ("MAIL", "RCPT"):
        inner, rest = path.split_path(verb, argument)
        found = (path.parse_reverse_path if verb == "MAIL" else path.parse_forward_path)(inner)
        if found.parsed is not None:
            assert addresses.parse_address(found.address) == found.parsed, "what is passed on means the same"
            assert not set(found.address) & set("\r\n\0")
        if verb == "MAIL":
            smtp_params.parse_mail_params(rest, _PARAMETERS)
        else:
            smtp_params.parse_rcpt_params(rest, _PARAMETERS)


def _address(text: str) -> None:
    try:
        parsed = addresses.parse_address(text)
    except AddressError as error:
        assert error.text
        return
    again = addresses.parse_address(str(parsed))
    assert again == parsed
    assert len(str(parsed).encode()) <= addresses.MAX_TEXT
    assert not set(parsed.domain) & set(" <>\r\n\0,;")
    parsed.without_tag()
    addresses.normalise(str(parsed))


def _mail_data(octets: bytes) -> None:
    whole, pieces = data.DotReader(), data.DotReader()
    found = whole.feed(octets)
    got = b""
    for chunk in chunked(octets):
        if pieces.done:
            break
        got += pieces.feed(chunk)
    assert (got, pieces.done, pieces.check.fault, pieces.check.dot_line) == (
        found,
        whole.done,
        whole.check.fault,
        whole.check.dot_line,
    )
    back = data.DotReader()
    message = octets if octets.endswith(b"\r\n") or not octets else octets + b"\r\n"
    if b"\r" not in message.replace(b"\r\n", b"") and b"\n" not in message.replace(b"\r\n", b""):
        assert back.feed(data.dot_stuff(message)) == message and back.done and not back.rest


def smtp_lines() -> Iterator[bytes]:
    yield from transcripts("smtp")
    yield from (
        b"EHLO [IPv6:2001:db8::1]\r\n",
        b"MAIL FROM:<a@b.example> SIZE=1 BODY=8BITMIME RET=HDRS ENVID=a+2Bb SMTPUTF8 AUTH=<>\r\n",
        b'RCPT TO:<"a b\\""@[192.0.2.1]> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a+40b\r\n',
        b"RCPT TO:<@a.example,@b.example:c@d.example>\r\n",
        "MAIL FROM:<größe@bücher.example> SMTPUTF8\r\n".encode(),
        b"BDAT 1000 LAST\r\n",
        b"a\r\n..\r\n.b\r\n.\r\nQUIT\r\n",
        b"250-2.1.5 one\r\n250 2.1.5 two",
        b"ann+tag@example.org",
        "ünï@xn--bcher-kva.example".encode(),
        b'"a\\"b"@example.org',
    )


def imap_lines() -> Iterator[bytes]:
    yield from transcripts("imap")
    yield b"a AUTHENTICATE PLAIN\r\nAGEAYg==\r\n"
    yield b"a AUTHENTICATE SCRAM-SHA-256 biwsbj11c2VyLHI9YWJj\r\n"
    yield b"a APPEND x CATENATE (URL /INBOX;UIDVALIDITY=1/;UID=2/;SECTION=1.MIME TEXT {3+}\r\nabc)\r\n"


def urls(octets: bytes) -> None:
    """IMAP URLs, mailbox names and patterns."""
    text = octets.decode("utf-8", "replace")
    try:
        url.parse_url(text)
    except url.UrlError as error:
        assert str(error)
    try:
        name = mailbox_name.decode_utf7(octets)
    except ImapSyntaxError:
        pass
    else:
        assert mailbox_name.encode_utf7(name) == octets
    mailbox_name.matches(text[:200], text[200:400])


def names() -> Iterator[bytes]:
    yield from (b"imap://a@h:143/INBOX;UIDVALIDITY=1/;UID=2/;SECTION=1.2.MIME/;PARTIAL=0.10", b"/a%20b/;UID=1")
    yield from (b"Entw&APw-rfe", b"&Jjo-!", b"a/b*%", b"&AGE-")


TARGETS = {
    "imap": Target(imap, imap_lines, 2048),
    "names": Target(urls, names, 512),
    "mime": Target(check_everything, messages, 8192),
    "headers": Target(headers, fields, 2048),
    "smtp": Target(smtp, smtp_lines, 2048),
}
