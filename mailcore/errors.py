"""Protocol-neutral errors of the store and of delivery; each protocol turns `code` into its own words in one table.

`text` is for the person at the other end, `private` for our own log only.
"""

from __future__ import annotations

from enum import Enum


class Code(Enum):
    """What went wrong, in terms that SMTP, IMAP, POP3 and JMAP can all express."""

    NOT_FOUND = "not found"  # mailbox, message, account: missing, or somebody else's
    EXISTS = "exists"  # a mailbox or address of that name is there already
    BAD_NAME = "bad name"  # a name that cannot be used
    BAD_VALUE = "bad value"  # an argument out of range or not understood
    OVER_QUOTA = "over quota"
    TOO_BIG = "too big"  # a message above the size limit
    TOO_MANY = "too many"  # any other limit of count or rate
    NO_PERMISSION = "no permission"
    NOT_EMPTY = "not empty"  # a mailbox with children, a domain with accounts
    AUTH_FAILED = "authentication failed"
    NO_SUCH_USER = "no such user"  # recipient unknown here
    DISABLED = "disabled"  # account or domain switched off
    STATE_MISMATCH = "state mismatch"  # conditional change lost: UNCHANGEDSINCE, ifInState
    UNAVAILABLE = "temporarily unavailable"  # database away, time out: try again
    LOOP = "loop"  # mail or alias loop
    INTERNAL = "internal error"


class MailError(Exception):
    """An operation that could not be done: `code` for the protocol, `text` for the person, `private` for the log."""

    def __init__(self, code: Code, text: str, private: str | None = None) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.private = private

    def __repr__(self) -> str:
        return f"MailError({self.code.name}, {self.text!r}, private={self.private!r})"


class ConfigError(Exception):
    """A setting cannot be used; the text says which and why, in one line for the operator."""
