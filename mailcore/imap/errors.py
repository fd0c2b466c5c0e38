"""From the store's errors to IMAP's answers: the one table of status and response code (RFC 9051 §7.1)."""

from __future__ import annotations

from collections.abc import Mapping

from mailcore.errors import Code, MailError
from mailcore.wire.imap.errors import ImapSyntaxError


class Refused(Exception):
    """A command ends with NO or BAD: `text` for the person, `code` without brackets."""

    def __init__(self, status: str, text: str, code: bytes | str | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.code = code


class Gone(Exception):
    """The session cannot go on: `text` is said in a BYE, after `answer` to the running command if there is one."""

    def __init__(self, text: str, *, answer: MailError | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.answer = answer


def no(text: str, code: bytes | str | None = None) -> Refused:
    """The tagged NO."""
    return Refused("NO", text, code)


def bad(text: str, code: bytes | str | None = None) -> Refused:
    """The tagged BAD."""
    return Refused("BAD", text, code)


ANSWERS: Mapping[Code, tuple[str, str | None]] = {
    Code.NOT_FOUND: ("NO", "NONEXISTENT"),
    Code.EXISTS: ("NO", "ALREADYEXISTS"),
    Code.BAD_NAME: ("NO", "CANNOT"),
    Code.BAD_VALUE: ("NO", "CANNOT"),
    Code.OVER_QUOTA: ("NO", "OVERQUOTA"),
    Code.TOO_BIG: ("NO", "TOOBIG"),
    Code.TOO_MANY: ("NO", "LIMIT"),
    Code.NO_PERMISSION: ("NO", "NOPERM"),
    Code.NOT_EMPTY: ("NO", "HASCHILDREN"),
    Code.AUTH_FAILED: ("NO", "AUTHENTICATIONFAILED"),
    Code.NO_SUCH_USER: ("NO", "NONEXISTENT"),
    Code.DISABLED: ("NO", "AUTHORIZATIONFAILED"),
    Code.STATE_MISMATCH: ("NO", "EXPUNGEISSUED"),
    Code.UNAVAILABLE: ("NO", "UNAVAILABLE"),
    Code.LOOP: ("NO", "CANNOT"),
    Code.INTERNAL: ("NO", "SERVERBUG"),
}


def refusal(error: Refused | MailError | ImapSyntaxError) -> Refused:
    """The answer to whatever a command raised."""
    if isinstance(error, MailError):
        status, code = ANSWERS[error.code]
        return Refused(status, _sentence(error.text), code)
    if isinstance(error, ImapSyntaxError):
        return Refused(error.status, error.text, error.code)
    return error


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
