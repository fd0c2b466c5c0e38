"""ESMTP parameters of MAIL and RCPT (RFC 5321 §4.1.2; RFC 1870, 6152, 6531, 3461, 4954, 8689).

Which keywords are open to the client is the caller's: what was not offered in EHLO is refused with 555, as it must be.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

from mailcore.wire.smtp.reply import CommandError

_PARAM = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]{0,31})(?:=([!-<>-~\u0080-\U0010ffff]+))?")
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")
_ADDRESS_TYPE = re.compile(r"[A-Za-z0-9-]{1,64}")

MAX_ENVID = 100
MAX_ORCPT = 500


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
        return value

    return parse


def _notify(value: str) -> str:
    words = value.upper().split(",")
    if words != ["NEVER"] and (not set(words) <= {"SUCCESS", "FAILURE", "DELAY"} or len(set(words)) != len(words)):
        raise _bad("NOTIFY", "must be NEVER, or a list of SUCCESS, FAILURE and DELAY")
    return ",".join(words)


def _orcpt(value: str) -> str:
    kind, semicolon, address = value.partition(";")
    # utf-8 addresses (RFC 6533) are xtext with other characters besides.
    plain = re.sub(r"[\u0080-\U0010ffff]|\\x\{[0-9A-F]{2,6}\}", "", address) if kind.lower() == "utf-8" else address
    if not (semicolon and address) or not _ADDRESS_TYPE.fullmatch(kind):
        raise _bad("ORCPT", "address-type;address is wanted")
    if len(value) > MAX_ORCPT or not _XTEXT.fullmatch(plain):
        raise _bad("ORCPT", f"xtext of at most {MAX_ORCPT} characters is wanted")
    return value


# keyword: attribute, parser of the value (None = takes no value)
_MAIL: dict[str, tuple[str, Callable[[str], int | str] | None]] = {
    "SIZE": ("size", _size),
    "BODY": ("body", _one_of("BODY", "7BIT", "8BITMIME")),
    "SMTPUTF8": ("smtputf8", None),
    "RET": ("ret", _one_of("RET", "FULL", "HDRS")),
    "ENVID": ("envid", _xtext("ENVID", MAX_ENVID)),
    "AUTH": ("auth", _xtext("AUTH", 500)),
    "REQUIRETLS": ("requiretls", None),
}
_RCPT: dict[str, tuple[str, Callable[[str], int | str] | None]] = {
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


def _parse(
    text: str, allowed: Collection[str], table: dict[str, tuple[str, Callable[[str], int | str] | None]]
) -> dict[str, int | str | bool]:
    values: dict[str, int | str | bool] = {}
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
