"""Reverse-path and forward-path of MAIL and RCPT (RFC 5321 §4.1.2, RFC 6531 §3.3).

The mailbox itself is read by our strict address parser (accounts.addresses). A source route is recognised and
ignored, as RFC 5321 §4.1.1.3 asks: what counts is the mailbox behind it."""

from __future__ import annotations

import re
from typing import NamedTuple

from accounts.addresses import Parsed, parse_address
from accounts.errors import AddressError
from mailcore.wire.smtp.reply import CommandError

POSTMASTER = "postmaster"

_KEYWORD = {"MAIL": "FROM:", "RCPT": "TO:"}
# The text between the brackets; a quoted string may hold brackets. Possessive, so that a line costs linear time.
_PATH = re.compile(r'<((?:[^<>"\\\x00-\x1f\x7f]++|"(?:[^"\\\x00-\x1f\x7f]++|\\[ -~])*")*)>(?: +(.*))?', re.DOTALL)
_SOURCE_ROUTE = re.compile(r"@[^\s,:@<>]++(?:,@[^\s,:@<>]++)*:")


class Path(NamedTuple):
    """A path: `address` is "" for `<>`, "postmaster" for `<postmaster>`, else local@domain in the parser's form.

    `parsed` is None for those two. `utf8`: it was written with other than ASCII characters.
    """

    address: str
    parsed: Parsed | None
    utf8: bool

    @property
    def domain(self) -> str:
        return self.parsed.domain if self.parsed else ""


def split_path(verb: str, argument: bytes) -> tuple[str, str]:
    """Split the argument of MAIL or RCPT into the text in the brackets and the parameters. Raises CommandError."""
    keyword = _KEYWORD[verb]
    try:
        text = argument.decode()
    except UnicodeDecodeError:
        raise CommandError(501, "5.5.2", "The command is not UTF-8") from None
    if text[: len(keyword)].upper() != keyword:
        raise CommandError(501, "5.5.4", f"Syntax: {verb} {keyword}<address>")
    # White space after the colon is out of grammar, and many clients send it.
    match = _PATH.fullmatch(text[len(keyword) :].strip(" "))
    if match is None:
        raise CommandError(501, "5.1.7" if verb == "MAIL" else "5.1.3", f"Syntax: {verb} {keyword}<address>")
    return match.group(1), match.group(2) or ""


def parse_reverse_path(inner: str) -> Path:
    """The sender: a mailbox, or nothing for a bounce. Raises CommandError."""
    if not inner:
        return Path("", None, False)
    return _mailbox(inner, "5.1.7")


def parse_forward_path(inner: str) -> Path:
    """A recipient: a mailbox, or `postmaster` without a domain (RFC 5321 §4.5.1). Raises CommandError."""
    if inner.lower() == POSTMASTER:
        return Path(POSTMASTER, None, False)
    return _mailbox(inner, "5.1.3")


def _mailbox(inner: str, status: str) -> Path:
    if route := _SOURCE_ROUTE.match(inner):
        inner = inner[route.end() :]
    try:
        parsed = parse_address(inner)
    except AddressError as error:
        raise CommandError(501, status, f"Bad address: {error.text}") from None
    return Path(str(parsed), parsed, not inner.isascii())
