"""The Date field: RFC 5322 §3.3 with the obsolete forms of §4.3, and the deviations that real mail shows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from functools import lru_cache

_MONTHS = {name: i for i, name in enumerate(b"jan feb mar apr may jun jul aug sep oct nov dec".split(), 1)}

_ZONES = {
    b"ut": 0, b"utc": 0, b"gmt": 0, b"z": 0, b"est": -300, b"edt": -240, b"cst": -360, b"cdt": -300, b"mst": -420,
    b"mdt": -360, b"pst": -480, b"pdt": -420, b"bst": 60, b"cet": 60, b"cest": 120, b"met": 60, b"mest": 120,
    b"eet": 120, b"eest": 180, b"msk": 180, b"jst": 540, b"wet": 0, b"west": 60,
}  # fmt: skip

_TIME = rb"(\d{1,2})\s*[:.]\s*(\d{1,2})(?:\s*[:.]\s*(\d{1,2})(?:\.\d{1,9})?)?"
_ZONE = rb"\s*([+-]\d{2}:?\d{2}|[A-Za-z]{1,5}(?![A-Za-z]))?(?:\s*([+-]\d{4}))?"
# As nearly everybody writes it: Mon, 03 Feb 2025 07:30:00 +0100 (CET)
_USUAL = re.compile(
    rb" ?(?:[A-Z][a-z]{2}, )?(\d{1,2}) ([A-Z][a-z]{2}) (\d{4}) (\d\d):(\d\d):(\d\d) ([+-]\d{4}|GMT|UTC)(?=\s*(?:\Z|\())"
)
_RFC5322 = re.compile(
    rb"\s*(?:[A-Za-z]{2,9}\s*[,.]?\s*)?(\d{1,2})[\s-]\s*([A-Za-z]{3})[a-z]{0,6}[.,]?[\s-]\s*(\d{2,4})[\s,]\s*"
    + _TIME
    + _ZONE
)
_ASCTIME = re.compile(  # Mon Jan  6 08:00:44 2025
    rb"\s*[A-Za-z]{3,9},?\s+([A-Za-z]{3})[a-z]{0,6}\s+(\d{1,2}),?\s+" + _TIME + _ZONE + rb"\s+(\d{4})" + _ZONE
)
_ISO = re.compile(rb"\s*(\d{4})-(\d{2})-(\d{2})[T\s]\s*" + _TIME + _ZONE)
_COMMENT = re.compile(rb"\((?:[^()\\]|\\.){0,200}\)", re.S)


def parse_date(value: bytes) -> datetime | None:
    """The moment a Date field names, with the offset it was written in; None when it names none.

    A missing or unknown zone (also military ones, RFC 5322 §4.3) counts as UTC. Never raises.
    """
    value = value[:256]
    if match := _USUAL.match(value):
        day, month, year, hour, minute, second, where = match.groups()
        return _moment(year, _MONTHS.get(month.lower(), 0), day, hour, minute, second, (where, None))
    if match := _RFC5322.match(value):
        day, month, year, hour, minute, second, *zone = match.groups()
        return _moment(year, _MONTHS.get(month.lower(), 0), day, hour, minute, second, zone)
    if b"(" in value:
        return parse_date(_COMMENT.sub(b" ", value).replace(b"(", b" "))
    if match := _ASCTIME.match(value):
        month, day, hour, minute, second, zone1, offset1, year, zone2, offset2 = match.groups()
        zone = [zone1 or zone2, offset1 or offset2]
        return _moment(year, _MONTHS.get(month.lower(), 0), day, hour, minute, second, zone)
    if match := _ISO.match(value):
        year, month, day, hour, minute, second, *zone = match.groups()
        return _moment(year, int(month), day, hour, minute, second, zone)
    return None


def _moment(
    year: bytes, month: int, day: bytes, hour: bytes, minute: bytes, second: bytes | None, zone: Sequence[bytes | None]
) -> datetime | None:
    y = int(year)
    if len(year) < 4:  # RFC 5322 §4.3
        y += 2000 if len(year) == 2 and y < 50 else 1900
    if not 1900 <= y <= 9998:  # leaves room to convert to any zone
        return None
    try:
        return datetime(y, month, int(day), int(hour), int(minute), min(int(second or 0), 59), 0, _zone(*zone))
    except ValueError:
        return None


def _offset(zone: bytes, numeric: bytes | None) -> int:
    """Minutes east of UTC. "GMT+0200" counts as +0200."""
    if numeric:
        zone = numeric
    if zone[:1] in (b"+", b"-"):
        digits = zone[1:].replace(b":", b"")
        minutes = int(digits[:2]) * 60 + int(digits[2:])
        if minutes >= 24 * 60:
            return 0
        return -minutes if zone[:1] == b"-" else minutes
    return _ZONES.get(zone.lower(), 0)


@lru_cache(maxsize=256)
def _zone(zone: bytes | None, numeric: bytes | None) -> timezone:
    return timezone(timedelta(minutes=_offset(zone or b"", numeric)))
