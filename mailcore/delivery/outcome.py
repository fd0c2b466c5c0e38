"""The one place that decides what a remote's reply, or the lack of one, means for a recipient.

Everything else only carries outcomes about. The rule for doubt: mail is tried again rather than returned, and returned
rather than forgotten; it counts as delivered only after a 2xx to the end of its data.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from mailcore.errors import Code, MailError


class Stage(Enum):
    """The step in which a delivery ended; the words go into the trace."""

    QUEUE = "the queue"  # nobody was asked: a rule, an administrator, or the time decided
    ROUTE = "finding the mail host"
    CONNECT = "connecting"
    GREETING = "greeting"
    HELLO = "EHLO"
    TLS = "STARTTLS"
    AUTH = "AUTH"
    MAIL = "MAIL FROM"
    RCPT = "RCPT TO"
    DATA = "DATA"
    CONTENT = "end of data"
    LOCAL = "local delivery"


class Verdict(Enum):
    """What to do next."""

    DELIVERED = "delivered"
    FAILED = "failed"
    LATER = "later"
    NEXT_HOST = "next host"  # the next host at once; when there is none, later
    HELD = "held"  # until an administrator releases it
    DISCARDED = "discarded"  # as an administrator's rule says; nobody is told
    PLAIN = "without TLS"  # the same host again on a new connection, without STARTTLS


@dataclass(frozen=True, slots=True)
class Reply:
    """An SMTP reply: `status` is its enhanced status code (RFC 3463) or "", `text` the rest, lines joined."""

    code: int
    status: str
    text: str

    def __str__(self) -> str:
        return " ".join(part for part in (str(self.code), self.status, self.text) if part)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one recipient. `code` is the remote's (None = ours), `status` always set, `text` for people.

    `remote`: the text is the remote's reply (Diagnostic-Code of a DSN), not ours.
    """

    verdict: Verdict
    stage: Stage
    status: str
    text: str
    code: int | None = None
    remote: bool = False

    @property
    def is_final(self) -> bool:
        return self.verdict in (Verdict.DELIVERED, Verdict.FAILED, Verdict.HELD, Verdict.DISCARDED)


class Undeliverable(Exception):
    """Delivery cannot go on; carries the outcome for every recipient that has none yet."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.text)
        self.outcome = outcome


class ReplyError(Exception):
    """What a server sent is no SMTP reply (syntax, length)."""


class Dropped(ConnectionError):
    """The server closed the connection."""


# (stage, first digit of the reply) -> what it means; what is missing is a breach of protocol and means NEXT_HOST.
_MEANING: dict[tuple[Stage, int], Verdict] = {
    (Stage.GREETING, 4): Verdict.NEXT_HOST,
    (Stage.GREETING, 5): Verdict.NEXT_HOST,
    (Stage.HELLO, 4): Verdict.NEXT_HOST,
    (Stage.HELLO, 5): Verdict.NEXT_HOST,
    (Stage.TLS, 4): Verdict.PLAIN,
    (Stage.TLS, 5): Verdict.PLAIN,
    # Our own relay does not know us: an administrator can mend that, the sender cannot.
    (Stage.AUTH, 4): Verdict.LATER,
    (Stage.AUTH, 5): Verdict.LATER,
    (Stage.MAIL, 4): Verdict.NEXT_HOST,
    (Stage.MAIL, 5): Verdict.FAILED,
    (Stage.RCPT, 4): Verdict.NEXT_HOST,
    (Stage.RCPT, 5): Verdict.FAILED,
    (Stage.DATA, 4): Verdict.NEXT_HOST,
    (Stage.DATA, 5): Verdict.FAILED,
    (Stage.CONTENT, 2): Verdict.DELIVERED,
    (Stage.CONTENT, 4): Verdict.NEXT_HOST,
    (Stage.CONTENT, 5): Verdict.FAILED,
}

_DEFAULT_STATUS = {
    Stage.ROUTE: "4.4.3",
    Stage.CONNECT: "4.4.1",
    Stage.GREETING: "4.4.2",
    Stage.HELLO: "4.4.2",
    Stage.TLS: "4.7.5",
    Stage.AUTH: "4.7.8",
    Stage.LOCAL: "4.3.0",
}


def of_reply(stage: Stage, reply: Reply) -> Outcome:
    """What a reply means at a stage (for RCPT: of one recipient; otherwise: for all of them)."""
    first = reply.code // 100
    verdict = _MEANING.get((stage, first))
    if verdict is None:
        return _breach(stage, reply)
    if reply.code == 421:
        verdict = Verdict.NEXT_HOST
    if stage is Stage.RCPT and reply.code == 552 and not reply.status:
        # Old servers mean "too many recipients" (RFC 5321 §4.5.3.1.10); it is treated as the 452 it should have been.
        verdict = Verdict.NEXT_HOST
    status = reply.status if reply.status[:1] == str(first) else f"{first}.0.0"
    return Outcome(verdict, stage, status, str(reply), reply.code, remote=True)


def is_too_many(reply: Reply) -> bool:
    """The server takes no further recipients in this transaction, but may in the next (RFC 5321 §4.5.3.1.10)."""
    return reply.code == 452 or (reply.code == 552 and not reply.status)


def _breach(stage: Stage, reply: Reply) -> Outcome:
    # After the data is sent, a strange answer may still mean that the server has it: not to another host at once.
    verdict = Verdict.LATER if stage is Stage.CONTENT else Verdict.NEXT_HOST
    return Outcome(verdict, stage, "4.5.0", f"unexpected answer to {stage.value}: {reply}", reply.code, remote=True)


def of_error(stage: Stage, error: BaseException) -> Outcome:
    """What a failure without a reply means: a dropped connection, silence, a TLS failure, trouble of our own."""
    status = _DEFAULT_STATUS.get(stage, "4.4.2")
    if isinstance(error, Undeliverable):
        return error.outcome
    if isinstance(error, TimeoutError):
        text = "the server did not answer in time"
    elif isinstance(error, Dropped):
        text = "the server closed the connection"
    elif isinstance(error, ReplyError):
        status, text = "4.5.0", f"the server does not speak SMTP: {error}"
    elif isinstance(error, ssl.SSLError):
        text = f"TLS failed: {getattr(error, 'reason', None) or error}"
    elif isinstance(error, OSError):
        text = (os.strerror(error.errno) if error.errno else str(error) or "no connection").lower()
    elif isinstance(error, MailError):
        return _of_mail_error(stage, error)
    else:
        return Outcome(Verdict.LATER, stage, "4.3.0", f"internal error: {type(error).__name__}")
    if stage is Stage.TLS:
        verdict = Verdict.PLAIN
    elif stage is Stage.CONTENT:
        # The server may have the message (RFC 1047): another host at once would surely make a second copy of it.
        verdict = Verdict.LATER
    else:
        verdict = Verdict.NEXT_HOST
    return Outcome(verdict, stage, status, f"{text} ({stage.value})")


# What the store's errors mean to a recipient here.
_MAIL_ERRORS: dict[Code, tuple[Verdict, str]] = {
    Code.NO_SUCH_USER: (Verdict.FAILED, "5.1.1"),
    Code.DISABLED: (Verdict.FAILED, "5.2.1"),
    Code.LOOP: (Verdict.FAILED, "5.4.6"),
    Code.TOO_BIG: (Verdict.FAILED, "5.3.4"),
    Code.OVER_QUOTA: (Verdict.LATER, "4.2.2"),
    Code.NOT_FOUND: (Verdict.LATER, "4.2.0"),
}


def _of_mail_error(stage: Stage, error: MailError) -> Outcome:
    verdict, status = _MAIL_ERRORS.get(error.code, (Verdict.LATER, "4.3.0"))
    return Outcome(verdict, stage, status, error.text)


def delivered(stage: Stage, text: str) -> Outcome:
    """Delivered without a remote's word: into a mailbox here."""
    return Outcome(Verdict.DELIVERED, stage, "2.0.0", text)


def failed(stage: Stage, status: str, text: str) -> Undeliverable:
    """Our own decision that there is no way."""
    return Undeliverable(Outcome(Verdict.FAILED, stage, status, text))


def later(stage: Stage, status: str, text: str) -> Undeliverable:
    """Our own decision that there is no way now."""
    return Undeliverable(Outcome(Verdict.LATER, stage, status, text))


def after_all(results: Sequence[Outcome]) -> Outcome:
    """What the attempts at all hosts come to: the last one's words; for good, when each of them lacks for good what the
    message needs (REQUIRETLS: RFC 8689 §4.2.1)."""
    last = results[-1]
    if all(not each.remote and each.status.startswith("5") for each in results):
        return replace(last, verdict=Verdict.FAILED)
    return last


_REPLY_LINE = re.compile(rb"[2-5][0-9]{2}(?:[ -].*)?", re.DOTALL)
_STATUS = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?:[ \t]+|$)")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\u00a0-\U0010ffff]")


def parse_reply(lines: list[bytes]) -> Reply:
    """The reply that these lines (without CRLF) make up. Raises ReplyError."""
    texts = []
    status = ""
    code = lines[-1][:3]
    for line in lines:
        if not _REPLY_LINE.fullmatch(line):
            raise ReplyError(_printable(line[:80]))
        if line[:3] != code:
            raise ReplyError("the lines of one reply differ in their code")
        text = _printable(line[4:]).strip()
        if found := _STATUS.match(text):
            if found[1][0] == chr(code[0]):
                status = status or found[1]
                text = text[found.end() :]
        if text:
            texts.append(text)
    return Reply(int(code), status, " ".join(texts))


def _printable(octets: bytes) -> str:
    return _UNPRINTABLE.sub("\ufffd", octets.decode("utf-8", "replace"))
