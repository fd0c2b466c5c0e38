"""SRS, the Sender Rewriting Scheme: mail that we forward comes from an address of ours, so that SPF holds for it.

    SRS0=hash=time=domain=local@ours    of local@domain
    SRS1=hash=first==hash=time=domain=local@ours    of an SRS0 address of `first`: bounces go straight back there

A bounce to such an address is sent on to the sender it stands for, when the hash is ours and not too old: nobody can
make us send mail to an address by making one up. What does not fit into 64 octets stands in the database under a token,
in the place of `local`, with `.` for the domain. Hashes and times survive servers that change the case of letters.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import time
from dataclasses import dataclass

from accounts.addresses import MAX_ADDRESS, MAX_LOCAL, parse_address, quote_local
from accounts.errors import AddressError
from accounts.secrets import key_for, keys_for
from mailcore.errors import Code, MailError

VALID_DAYS = 30  # as long as a server may keep trying, and some more
_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_DAYS = 1024  # then the two letters of the time begin anew
_HASH = 8  # letters, five bits each
_TOKEN = 26
_PURPOSE = "srs"

_SHAPE = re.compile(r"srs[01][-+=]", re.I)
_SRS0 = re.compile(r"srs0[-+=]([a-z2-7]{8})=([a-z2-7]{2})=([^=]+)=(.+)", re.I | re.S)
_SRS1 = re.compile(r"srs1[-+=]([a-z2-7]{8})=([^=]+)=(.+)", re.I | re.S)
# Addresses of other forwarders: their hash and time are theirs to read.
_THEIR_SRS0 = re.compile(r"srs0([-+=].+)", re.I | re.S)
_THEIR_SRS1 = re.compile(r"srs1[-+=][^=]+=([^=]+)=(.+)", re.I | re.S)


@dataclass(frozen=True, slots=True)
class Original:
    """Whom an SRS address stands for: an address, or the token of one in the database."""

    address: str = ""
    token: str = ""


def is_shaped(local: str) -> bool:
    """Whether a local part looks like one of SRS."""
    return _SHAPE.match(local) is not None


def token(sender: str) -> str:
    """The name under which a sender that is too long is kept."""
    return _letters(hashlib.sha256(sender.encode()).digest(), _TOKEN)


def rewrite(sender: str, domain: str, *, now: float | None = None) -> str | None:
    """The address of ours, at `domain`, that stands for a sender; None when it would be too long: see `short`."""
    parsed = parse_address(sender)
    if parsed.is_literal:
        return None
    if their := _THEIR_SRS1.fullmatch(parsed.local):
        return _srs1(their[1].lower(), their[2], domain)
    if their := _THEIR_SRS0.fullmatch(parsed.local):
        return _srs1(parsed.domain, their[1], domain)
    return _srs0(parsed.domain, parsed.local, domain, now)


def short(sender: str, domain: str, *, now: float | None = None) -> str:
    """As `rewrite`, for a sender that is kept under its token."""
    found = _srs0(".", token(sender), domain, now)
    if found is None:
        raise MailError(Code.BAD_VALUE, "the domain is too long for a forwarded sender")
    return found


def reverse(local: str, *, now: float | None = None) -> Original:
    """Whom a local part of ours stands for. Raises NO_SUCH_USER when we did not make it, or too long ago."""
    if found := _SRS0.fullmatch(local):
        made, stamp, domain, name = found[1].lower(), found[2].lower(), found[3].lower(), found[4]
        _require(made, f"{stamp}={domain}={name}")
        if (_day(now) - _number(stamp)) % _DAYS > VALID_DAYS:
            raise MailError(Code.NO_SUCH_USER, "This address for bounces is no longer valid")
        return Original(token=name.lower()) if domain == "." else Original(_address(name, domain))
    if found := _SRS1.fullmatch(local):
        made, first, rest = found[1].lower(), found[2].lower(), found[3]
        _require(made, f"{first}={rest}")
        return Original(_address(f"SRS0{rest}", first))
    raise _forged()


def _srs0(of: str, local: str, domain: str, now: float | None) -> str | None:
    stamp = _stamp(_day(now))
    return _made(f"SRS0={_hash(f'{stamp}={of}={local}')}={stamp}={of}={local}", domain)


def _srs1(first: str, rest: str, domain: str) -> str | None:
    return _made(f"SRS1={_hash(f'{first}={rest}')}={first}={rest}", domain)


def _made(local: str, domain: str) -> str | None:
    address = f"{quote_local(local)}@{domain}"
    return address if len(local.encode()) <= MAX_LOCAL and len(address.encode()) <= MAX_ADDRESS else None


def _address(local: str, domain: str) -> str:
    try:
        return str(parse_address(f"{quote_local(local)}@{domain}", literal=False))
    except AddressError:
        raise _forged() from None


def _require(made: str, text: str) -> None:
    if not any(hmac.compare_digest(made.encode(), _keyed(text, key).encode()) for key in keys_for(_PURPOSE)):
        raise _forged()


def _forged() -> MailError:
    return MailError(Code.NO_SUCH_USER, "This address for bounces is not one of ours")


def _hash(text: str) -> str:
    return _keyed(text, key_for(_PURPOSE))


def _keyed(text: str, key: bytes) -> str:
    return _letters(hmac.digest(key, text.lower().encode(), "sha256"), _HASH)


def _letters(octets: bytes, count: int) -> str:
    return base64.b32encode(octets).decode().lower()[:count]


def _day(now: float | None) -> int:
    return int((time.time() if now is None else now) // 86_400) % _DAYS


def _stamp(day: int) -> str:
    return _ALPHABET[day >> 5] + _ALPHABET[day & 31]


def _number(stamp: str) -> int:
    return (_ALPHABET.index(stamp[0]) << 5) + _ALPHABET.index(stamp[1])
