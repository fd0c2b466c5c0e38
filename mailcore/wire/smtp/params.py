"""ESMTP parameters of MAIL and RCPT (RFC 5321 §4.1.2; RFC 1870, 2852, 6152, 3030, 6531, 3461, 4954, 4865,
6710, 8689).

Which keywords are open to the client is the caller's: what was not offered in EHLO is refused with 555, as it must be.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime

from mailcore.wire.smtp.reply import CommandError

_PARAM = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]{0,31})(?:=([!-<>-~\u0080-\U0010ffff]+))?")
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")
# What is decoded ends up in reports and headers: nothing that ends a line or a string may be hidden in it.
_HIDDEN = re.compile(r"\+(?:[01][0-9A-F]|7F)|\\x\{0*(?:[01]?[0-9A-F]|7F|8[0-9A-F]|9[0-9A-F]|202[89])\}")
_UNITEXT = re.compile(r"[\u0080-\U0010ffff]|\\x\{(?:10|[1-9A-F])?[0-9A-F]{2,4}\}")
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)
_BY = re.compile(r"([-+]?)([0-9]{1,9});([NR]T?)", re.IGNORECASE)
_PRIORITY = re.compile(r"-?[1-9]|0")
_ADDRESS_TYPE = re.compile(r"[A-Za-z0-9-]{1,64}")

MAX_ENVID = 100
MAX_ORCPT = 500


@dataclass(frozen=True, slots=True)
class By:
    """BY of DELIVERBY (RFC 2852 §4): within how many seconds, and what if not; they may be over in mode N.

    `mode` is R (return) or N (notify), with T behind it when each relay is to be told of.
    """

    seconds: int
    mode: str

    @property
    def returns(self) -> bool:
        """What is late comes back; else its sender is told and delivery goes on."""
        return self.mode.startswith("R")

    @property
    def traces(self) -> bool:
        return self.mode.endswith("T")

    def __str__(self) -> str:
        return f"{self.seconds};{self.mode}"


@dataclass(frozen=True, slots=True)
class MailParams:
    """Parameters of MAIL; ENVID is kept in its xtext form, ready to be passed on."""

    size: int | None = None
    body: str = "7BIT"
    smtputf8: bool = False
    ret: str | None = None
    envid: str | None = None
    auth: str | None = None
    requiretls: bool = False
    hold_for: int | None = None
    """Seconds (RFC 4865)."""
    hold_until: int | None = None
    """Seconds since 1970, UTC (RFC 4865)."""
    by: By | None = None
    priority: int = 0
    """-9 to 9 (RFC 6710)."""


@dataclass(frozen=True, slots=True)
class RcptParams:
    """Parameters of RCPT; NOTIFY upper case with commas, ORCPT as it stood on the wire."""

    notify: str | None = None
    orcpt: str | None = None


def _bad(keyword: str, text: str) -> CommandError:
    return CommandError(501, "5.5.4", f"{keyword}: {text}")


def _size(value: str) -> int:
    if not (value.isascii() and value.isdigit()) or len(value) > 20:
        raise _bad("SIZE", "a number of octets is wanted")
    return int(value)


def _seconds(value: str) -> int:
    if not (value.isascii() and value.isdigit()) or len(value) > 9:
        raise _bad("HOLDFOR", "a number of seconds is wanted")
    return int(value)


def _moment(value: str) -> int:
    """A date-time of RFC 3339, with its zone."""
    if not _DATE_TIME.fullmatch(value):
        raise _bad("HOLDUNTIL", "a moment such as 2030-01-31T08:00:00Z is wanted")
    try:
        return math.ceil(datetime.fromisoformat(value.upper()).timestamp())
    except (ValueError, OverflowError):
        raise _bad("HOLDUNTIL", "there is no such moment") from None


def _by(value: str) -> By:
    match = _BY.fullmatch(value)
    if match is None:
        raise _bad("BY", "seconds;R or seconds;N is wanted, with T behind it or without")
    by = By(int(match[1] + match[2]), match[3].upper())
    if by.returns and by.seconds <= 0:
        raise _bad("BY", "mail cannot be returned at a time that is over")
    return by


def _priority(value: str) -> int:
    if not _PRIORITY.fullmatch(value):
        raise _bad("MT-PRIORITY", "a number from -9 to 9 is wanted")
    return int(value)


def _one_of(keyword: str, *choices: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value.upper() not in choices:
            raise _bad(keyword, "must be " + " or ".join(choices))
        return value.upper()

    return parse


def _xtext(keyword: str, limit: int) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if len(value) > limit or not _XTEXT.fullmatch(value):
            raise _bad(keyword, f"xtext of at most {limit} characters is wanted")
        if _HIDDEN.search(value):
            raise _bad(keyword, "control characters cannot be part of it")
        return value

    return parse


def _notify(value: str) -> str:
    words = value.upper().split(",")
    if words != ["NEVER"] and (not set(words) <= {"SUCCESS", "FAILURE", "DELAY"} or len(set(words)) != len(words)):
        raise _bad("NOTIFY", "must be NEVER, or a list of SUCCESS, FAILURE and DELAY")
    return ",".join(words)


def _orcpt(value: str) -> str:
    kind, semicolon, address = value.partition(";")
    plain = address
    if kind.lower() == "utf-8":
        # RFC 6533 §3: xtext with other characters besides, where a backslash begins the number of one.
        plain = _UNITEXT.sub("", address)
        if "\\" in plain:
            raise _bad("ORCPT", "a character's number is written \\x{20AC}")
    if not (semicolon and address) or not _ADDRESS_TYPE.fullmatch(kind):
        raise _bad("ORCPT", "address-type;address is wanted")
    if len(value) > MAX_ORCPT or not _XTEXT.fullmatch(plain):
        raise _bad("ORCPT", f"xtext of at most {MAX_ORCPT} characters is wanted")
    if _HIDDEN.search(value):
        raise _bad("ORCPT", "control characters cannot be part of it")
    return value


_Value = int | str | By
# keyword: attribute, parser of the value (None = takes no value)
_Table = dict[str, tuple[str, Callable[[str], _Value] | None]]

_MAIL: _Table = {
    "SIZE": ("size", _size),
    "BODY": ("body", _one_of("BODY", "7BIT", "8BITMIME", "BINARYMIME")),
    "SMTPUTF8": ("smtputf8", None),
    "RET": ("ret", _one_of("RET", "FULL", "HDRS")),
    "ENVID": ("envid", _xtext("ENVID", MAX_ENVID)),
    "AUTH": ("auth", _xtext("AUTH", 500)),
    "REQUIRETLS": ("requiretls", None),
    "HOLDFOR": ("hold_for", _seconds),
    "HOLDUNTIL": ("hold_until", _moment),
    "BY": ("by", _by),
    "MT-PRIORITY": ("priority", _priority),
}
_RCPT: _Table = {
    "NOTIFY": ("notify", _notify),
    "ORCPT": ("orcpt", _orcpt),
}


def parse_mail_params(text: str, allowed: Collection[str]) -> MailParams:
    """Parameters of MAIL, of which those in `allowed` are open to this client. Raises CommandError (501, 555)."""
    if not text:
        return _NO_MAIL_PARAMS
    values = _parse(text, allowed, _MAIL)
    return MailParams(**values)  # type: ignore[arg-type]  # the table gives each attribute its type


def parse_rcpt_params(text: str, allowed: Collection[str]) -> RcptParams:
    """Parameters of RCPT. Raises CommandError (501, 555)."""
    if not text:
        return _NO_RCPT_PARAMS
    values = _parse(text, allowed, _RCPT)
    return RcptParams(**values)  # type: ignore[arg-type]  # the table gives each attribute its type


_NO_MAIL_PARAMS = MailParams()
_NO_RCPT_PARAMS = RcptParams()


def _parse(text: str, allowed: Collection[str], table: _Table) -> dict[str, _Value]:
    values: dict[str, _Value] = {}
    for word in text.split(" "):
        if not word:
            continue
        match = _PARAM.fullmatch(word)
        if match is None:
            raise CommandError(501, "5.5.4", "A parameter is malformed")
        keyword, value = match.group(1).upper(), match.group(2)
        if keyword not in allowed or keyword not in table:
            raise CommandError(555, "5.5.4", f"{keyword} is not a parameter here")
        name, parse = table[keyword]
        if name in values:
            raise _bad(keyword, "given twice")
        if parse is None:
            if value is not None:
                raise _bad(keyword, "takes no value")
            values[name] = True
        elif value is None:
            raise _bad(keyword, "wants a value")
        else:
            values[name] = parse(value)
    return values
