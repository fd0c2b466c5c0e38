"""A command line: its verb and its argument (RFC 5321 §4.1.1), and the arguments that are not paths."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

from mailcore.wire.smtp.reply import CommandError

LINE = 510
"""Octets of a command line without CRLF (RFC 5321 §4.5.3.1.4)."""
LINE_WITH_PARAMETERS = 2_046
"""MAIL and RCPT: 512 and what SIZE, SMTPUTF8, AUTH, ENVID, ORCPT add (RFC 1870, 6531, 4954, 3461)."""
LINE_AUTH = 12_288 + 32
"""AUTH with an initial response (RFC 4954 §4)."""

_LIMITS = {"MAIL": LINE_WITH_PARAMETERS, "RCPT": LINE_WITH_PARAMETERS, "AUTH": LINE_AUTH}

_VERB = re.compile(rb"[A-Za-z]{1,12}")
_HELO = re.compile(r"[!-~]{1,255}")
_DOMAIN = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")
_BDAT = re.compile(rb"([0-9]{1,15})(?: +(LAST))?", re.IGNORECASE)
_NOT_IN_HEADER = re.compile(r"[^A-Za-z0-9_.:\[\]-]")


class Command(NamedTuple):
    """`verb` in upper case, `argument` as received without the white space around it."""

    verb: str
    argument: bytes


def parse_command(line: bytes) -> Command:
    """Split a command line (without its CRLF). Raises CommandError for what cannot be a command, and for length."""
    match = _VERB.match(line)
    if match is None or (match.end() < len(line) and line[match.end()] != 0x20):
        raise CommandError(500, "5.5.2", "Not a command")
    verb = match.group().decode("ascii").upper()
    if len(line) > _LIMITS.get(verb, LINE):
        raise CommandError(500, "5.5.2", "Line too long")
    if b"\0" in line:
        raise CommandError(500, "5.5.2", "NUL in a command")
    return Command(verb, line[match.end() :].strip(b" \t"))


def parse_helo(argument: bytes) -> str:
    """The client's name in HELO and EHLO: any word of printable ASCII, since clients send what their machine is called.

    Nothing is decided by it; see `header_safe` for the form that goes into Received. Raises CommandError.
    """
    name = argument.decode("latin-1")
    if not _HELO.fullmatch(name):
        raise CommandError(501, "5.5.4", "Say HELO or EHLO with your host name")
    return name


def is_host_name(name: str) -> bool:
    """A domain or an address literal (RFC 5321 §4.1.1.1)."""
    if not name.startswith("["):
        return _DOMAIN.fullmatch(name) is not None and ".." not in name
    inner = name[1:-1]
    if not name.endswith("]") or "%" in inner:
        return False
    try:
        ipaddress.ip_address(inner[5:] if inner[:5].lower() == "ipv6:" else inner)
    except ValueError:
        return False
    return True


def header_safe(name: str) -> str:
    """`name` as it may stand in a Received field: anything that could end the clause or open a comment becomes `?`."""
    return _NOT_IN_HEADER.sub("?", name)


def parse_bdat(argument: bytes) -> tuple[int, bool]:
    """`chunk-size [LAST]` (RFC 3030 §2). Raises CommandError: then the size of what follows is unknown."""
    match = _BDAT.fullmatch(argument)
    if match is None:
        raise CommandError(501, "5.5.4", "Syntax: BDAT chunk-size [LAST]")
    return int(match.group(1)), match.group(2) is not None


def no_argument(verb: str, argument: bytes) -> None:
    """Raise CommandError when there is an argument where none belongs."""
    if argument:
        raise CommandError(501, "5.5.4", f"{verb} takes no argument")
