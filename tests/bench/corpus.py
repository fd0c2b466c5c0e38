"""Mail to measure with: message `n` depends on `n` alone. 70 % of about 4 KB, 25 % of 30 KB, 5 % of 500 KB.

Words planted for searches: RARE in one body of a thousand, COMMON in nearly all; "rossi" among the senders, "invoice"
among the subjects.
"""

from __future__ import annotations

import base64
import random
from datetime import UTC, datetime, timedelta
from email.header import Header
from email.utils import format_datetime

SEED = 7_130_521
RARE = "quixotrope"
COMMON = "agenda"

_WORDS = """
agenda minutes draft budget supplier contract deadline release harbour window kitchen monday thursday please find
attached the and with from about which their there could after before thanks regards question answer version
naïve Grüße élève São façade Übung smørrebrød review travel hotel ticket payment number station river garden
""".split()
_NAMES = """
Ada Bruno Chloé Dario Esra Finn Giulia Håkon Inés Jörg Kaja Liam Mira Noor Oskar Petra Rossi Sanna Timo Vera
""".split()
_TOPICS = (
    "Invoice {n}",
    "Minutes of the meeting {n}",
    "Réunion {n}",
    "Besprechung {n}",
    "Trip to the harbour {n}",
    "会議 {n}",
)
_NOISE = random.Random(SEED).randbytes(600_000)
_START = datetime(2025, 2, 3, 7, 30, tzinfo=UTC)


def _text(chance: random.Random, octets: int, n: int) -> str:
    words = [COMMON, *chance.choices(_WORDS, k=max(10, octets // 7))]
    if n % 1000 == 7:
        words[len(words) // 2] = RARE
    return "\r\n".join(" ".join(words[at : at + 11]) for at in range(0, len(words), 11)) + "\r\n"


def _base64(data: bytes) -> str:
    text = base64.b64encode(data).decode()
    return "\r\n".join(text[at : at + 76] for at in range(0, len(text), 76)) + "\r\n"


def _html(text: str) -> str:
    lines = "".join(f"<p>{line}</p>\r\n" for line in text.split("\r\n") if line)
    return f"<html><head><style>p{{margin:0}}</style></head><body>\r\n{lines}</body></html>\r\n"


def _person(number: int) -> str:
    name = f"{_NAMES[number % len(_NAMES)]} {_NAMES[number // len(_NAMES) % len(_NAMES)]}"
    return f"{Header(name, 'utf-8').encode() if not name.isascii() else name} <p{number}@bench.example>"


def note(n: int) -> bytes:
    """The n-th small message, about 1.2 KB, of a mailbox with very many."""
    chance = random.Random(SEED * 1_000_033 + n)
    head = (
        f"From: {_person(chance.randrange(400))}\r\nTo: Reader <reader@bench.test>\r\n"
        f"Subject: {_TOPICS[n % 2].format(n=n)}\r\n"
        f"Date: {format_datetime(_START + timedelta(minutes=n))}\r\nMessage-ID: <note{n}.{SEED}@bench.example>\r\n"
        "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    )
    return (head + _text(chance, 800, n)).encode()


def message(n: int) -> bytes:
    """The n-th message, with CRLF line ends."""
    chance = random.Random(SEED * 1_000_003 + n)
    kind = n * 37 % 100
    root = n - n % 5 if chance.random() < 0.6 else n
    subject = ("Re: " if root != n else "") + _TOPICS[root % len(_TOPICS)].format(n=root)
    date = format_datetime(_START + timedelta(minutes=11 * n))
    mark = f"=_{n:08d}"
    head = [
        *(
            f"Received: from hop{k}.bench.example by hop{k + 1}.bench.example with ESMTPS id {n}{k}; {date}"
            for k in range(3)
        ),
        f"DKIM-Signature: v=1; a=rsa-sha256; d=bench.example; s=k;\r\n\tb={_base64(_NOISE[:120])[:150]}",
        f"From: {_person(chance.randrange(400))}",
        f"To: Reader <reader@bench.test>, {_person(chance.randrange(400))}",
        "Subject: " + (subject if subject.isascii() else Header(subject, "utf-8").encode(linesep="\r\n")),
        f"Date: {date}",
        f"Message-ID: <{n}.{SEED}@bench.example>",
        *(
            [f"In-Reply-To: <{root}.{SEED}@bench.example>", f"References: <{root}.{SEED}@bench.example>"]
            if root != n
            else []
        ),
        "MIME-Version: 1.0",
        "User-Agent: bench/1.0",
    ]
    text = _text(chance, 700 if kind < 70 else 5000, n)
    plain = f"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n{text}"
    html = "Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    html += _base64(_html(text).encode())
    alternative = f"--{mark}a\r\n{plain}--{mark}a\r\n{html}--{mark}a--\r\n"
    if kind < 70:
        head.append(f'Content-Type: multipart/alternative; boundary="{mark}a"')
        body = alternative
    else:
        size = 9_000 if kind < 95 else 340_000
        at = chance.randrange(200_000)
        head.append(f'Content-Type: multipart/mixed; boundary="{mark}m"')
        body = (
            f'--{mark}m\r\nContent-Type: multipart/alternative; boundary="{mark}a"\r\n\r\n{alternative}'
            f"--{mark}m\r\nContent-Type: application/pdf; name=report.pdf\r\nContent-Transfer-Encoding: base64\r\n"
            f"Content-Disposition: attachment; filename=report.pdf\r\n\r\n"
            f"{_base64(_NOISE[at : at + size])}--{mark}m--\r\n"
        )
    return ("\r\n".join(head) + "\r\n\r\n" + body).encode()


def mail(count: int, start: int = 0) -> list[bytes]:
    return [message(n) for n in range(start, start + count)]
