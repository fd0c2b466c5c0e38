"""What strangers write: messages that must come through unchanged, octet by octet."""

from __future__ import annotations

import base64
import random


def _lines(*lines: str) -> bytes:
    return "".join(line + "\r\n" for line in lines).encode()


def plain() -> bytes:
    """Dots where SMTP has a use for them, blanks at line ends, the longest line there may be, From at a line start."""
    return _lines(
        "From: Carol <carol@far.example>",
        "To: ann@home.example",
        "Subject: plain\twith  odd   blanks ",
        "Message-ID: <plain@far.example>",
        "Date: Sun, 22 Nov 2026 07:00:00 +0000",
        "X-Folded: one",
        "\ttwo",
        "  three ",
        "",
        ".",
        "..two dots",
        "From the start of a line",
        "trailing blanks   \t",
        "x" * 998,
        "",
        "",
    )


def accents() -> bytes:
    """UTF-8 in the header, encoded words beside it, and a body in which UTF-8 and Latin-1 are mixed up."""
    header = _lines(
        "From: =?utf-8?Q?K=C3=A4the?= <carol@far.example>",
        "To: Ännchen <ann@home.example>",
        "Subject: Grüße aus Köln ✉",
        "Message-ID: <accents@far.example>",
        "Date: Sun, 22 Nov 2026 07:00:01 +0000",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 8bit",
        "",
    )
    return header + "Wörter\r\n".encode() + "Wörter\r\n".encode("latin-1") + b"\x01\x7f\x80\xfe\xff\r\n"


def attachment() -> bytes:
    """A picture of random octets with a name beyond ASCII; 300 kB, so that it comes in many pieces."""
    octets = random.Random(1).randbytes(220_000)
    encoded = base64.encodebytes(octets).replace(b"\n", b"\r\n")
    header = _lines(
        "From: carol@far.example",
        "To: ann@home.example",
        "Subject: =?utf-8?B?8J+TjiBBbmhhbmc=?=",
        "Message-ID: <attachment@far.example>",
        "Date: Sun, 22 Nov 2026 07:00:02 +0000",
        "MIME-Version: 1.0",
        'Content-Type: multipart/mixed; boundary="=_cut here"',
        "",
        "A preamble that nobody reads.",
        "--=_cut here",
        "Content-Type: text/plain; charset=us-ascii",
        "",
        "See the picture.",
        "--=_cut here",
        "Content-Type: image/png",
        "Content-Disposition: attachment; filename*=utf-8''%F0%9F%93%8E%20Bild.png",
        "Content-Transfer-Encoding: base64",
        "",
    )
    return header + encoded + _lines("--=_cut here--", "an epilogue")


def broken() -> bytes:
    """Parts that never begin, a charset that nobody knows, base64 that is none, a date that is no date."""
    return _lines(
        "From carol@far.example Sun Nov 22 07:00:00 2026",
        "From: <<carol@far.example>, undisclosed (",
        "To: ",
        "Subject: =?no-such-charset?Q?=ZZ?= =?utf-8?B?!!!?=",
        "Message-ID: <broken@far.example",
        "Date: the day before yesterday",
        "Content-Type: multipart/mixed; boundary=nowhere; boundary=elsewhere",
        "Content-Transfer-Encoding: base64",
        "no colon in this line",
        "",
        "--somewhere",
        "Content-Type: message/rfc822",
        "",
        "%%%",
    )


def bare() -> bytes:
    """No header at all."""
    return b"\r\nonly a body\r\n"


ALL = {made.__name__: made() for made in (plain, accents, attachment, broken, bare)}


def dot_stuffed(message: bytes) -> bytes:
    """As it goes over the wire, up to the dot that ends it (RFC 5321 §4.5.2)."""
    stuffed = message.replace(b"\r\n.", b"\r\n..")
    return (b"." if stuffed.startswith(b".") else b"") + stuffed + b"."
