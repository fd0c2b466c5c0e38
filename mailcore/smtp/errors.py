"""The one place where errors of the store, of delivery and of login become SMTP replies (RFC 5321 §4.2, RFC 5248)."""

from __future__ import annotations

import logging
from typing import NamedTuple

from mailcore.errors import Code, MailError
from mailcore.wire.smtp.reply import reply

log = logging.getLogger(__name__)


class Row(NamedTuple):
    """Reply codes for one error: to another server, to a person who submits mail, and to AUTH."""

    mx: tuple[int, str]
    submission: tuple[int, str]
    auth: tuple[int, str] = (454, "4.7.0")


def _both(code: int, status: str) -> Row:
    return Row((code, status), (code, status))


TABLE: dict[Code, Row] = {
    Code.NOT_FOUND: _both(550, "5.1.1"),
    Code.EXISTS: _both(554, "5.3.0"),
    Code.BAD_NAME: _both(553, "5.1.3"),
    Code.BAD_VALUE: _both(554, "5.6.0"),
    # A server tries again for days while the owner makes room; a person is told at once.
    Code.OVER_QUOTA: Row((452, "4.2.2"), (552, "5.2.2")),
    Code.TOO_BIG: _both(552, "5.3.4"),
    Code.TOO_MANY: _both(450, "4.7.1"),
    Code.NO_PERMISSION: _both(550, "5.7.1"),
    Code.NOT_EMPTY: _both(554, "5.3.0"),
    Code.AUTH_FAILED: Row((535, "5.7.8"), (535, "5.7.8"), (535, "5.7.8")),
    Code.NO_SUCH_USER: _both(550, "5.1.1"),
    Code.DISABLED: Row((550, "5.2.1"), (550, "5.2.1"), (525, "5.7.13")),
    Code.STATE_MISMATCH: _both(451, "4.3.0"),
    Code.UNAVAILABLE: _both(451, "4.3.0"),
    Code.LOOP: _both(554, "5.4.6"),
    # Our own fault is never the message's: the sender keeps it and tries again.
    Code.INTERNAL: _both(451, "4.3.0"),
}


def reply_for(error: MailError, *, submission: bool) -> bytes:
    """The reply to an error during a mail transaction."""
    row = TABLE[error.code]
    code, status = row.submission if submission else row.mx
    return _reply(error, code, status)


def auth_reply(error: MailError) -> bytes:
    """The reply to an error of AUTH."""
    return _reply(error, *TABLE[error.code].auth)


def _reply(error: MailError, code: int, status: str) -> bytes:
    if code < 500 and error.private:
        log.warning("%s: %s", error.text, error.private)
    return reply(code, status, error.text[:1].upper() + error.text[1:])
