"""An independent, strict reader of what IMAP's grammar (RFC 9051 §9) allows in ENVELOPE, BODYSTRUCTURE and BODY."""

from __future__ import annotations

import re
from typing import Any

_QUOTED = re.compile(rb'"((?:[^\x00-\x08\x0a-\x1f\x7f-\xff"\\]|\\["\\])*)"')
_LITERAL = re.compile(rb"\{(0|[1-9][0-9]*)\}\r\n")
_NUMBER = re.compile(rb"0|[1-9][0-9]*")

Item = Any  # bytes: string; int: number; None: NIL; list


def read(data: bytes) -> Item:
    """The value of one parenthesised list; fails when anything is left over, or a separator is missing or too much."""
    value, end = _item(data, 0)
    assert end == len(data), data[end : end + 40]
    return value


def _item(data: bytes, at: int) -> tuple[Item, int]:
    stack: list[list[Item]] = []
    while True:
        if data[at : at + 1] == b"(":
            stack.append([])
            at += 1
            continue
        value: Item
        if data[at : at + 1] == b")":
            value = stack.pop()
            at += 1
        elif match := _QUOTED.match(data, at):
            value = re.sub(rb"\\(.)", rb"\1", match.group(1))
            at = match.end()
        elif match := _LITERAL.match(data, at):
            at = match.end() + int(match.group(1))
            value = data[match.end() : at]
            assert len(value) == int(match.group(1))
            assert b"\0" not in value
        elif data[at : at + 3] == b"NIL":
            value, at = None, at + 3
        else:
            match = _NUMBER.match(data, at)
            assert match, data[max(0, at - 20) : at + 40]
            value, at = int(match.group()), match.end()
        if not stack:
            return value, at
        stack[-1].append(value)
        if data[at : at + 1] == b" ":
            at += 1
            assert data[at : at + 1] not in (b")", b" "), "a space before nothing"
        else:
            # Lists may stand side by side only as the bodies of a multipart and the addresses of a list.
            assert data[at : at + 1] == b")" or (isinstance(value, list) and data[at : at + 1] == b"("), data[at:][:40]


def _is_nstring(value: Item) -> bool:
    return value is None or isinstance(value, bytes)


def check_envelope(value: Item) -> None:
    """env-date SP env-subject SP ... (RFC 9051 §9 envelope)."""
    assert isinstance(value, list) and len(value) == 10, value
    for position in (0, 1, 8, 9):
        assert _is_nstring(value[position])
    for position in range(2, 8):
        addresses = value[position]
        if addresses is None:
            continue
        assert addresses, "an address list is NIL or has members"
        in_group = False
        for address in addresses:
            assert len(address) == 4 and all(map(_is_nstring, address)), address
            _, _, mailbox, host = address
            if host is None:  # a group marker
                assert in_group == (mailbox is None), "groups open and close in turn"
                in_group = not in_group
        assert not in_group


def check_body(value: Item, extended: bool) -> int:
    """The grammar of body, with or without extension data; gives the number of leaves."""
    assert isinstance(value, list), value
    if isinstance(value[0], list):
        count = 0
        at = 0
        while isinstance(value[at], list):
            count += check_body(value[at], extended)
            at += 1
        assert isinstance(value[at], bytes) and value[at], "media-subtype"
        rest = value[at + 1 :]
        if extended:
            assert len(rest) == 4
            _check_params(rest[0])
            _check_disposition(rest[1])
            _check_languages(rest[2])
            assert _is_nstring(rest[3])
        else:
            assert not rest
        return count
    major, minor, params, cid, description, encoding, size = value[:7]
    assert isinstance(major, bytes) and major and isinstance(minor, bytes) and minor
    _check_params(params)
    assert _is_nstring(cid) and _is_nstring(description)
    assert isinstance(encoding, bytes) and encoding
    assert isinstance(size, int)
    rest = value[7:]
    count = 1
    if major.lower() == b"text":
        assert isinstance(rest.pop(0), int), "lines"
    elif major.lower() == b"message" and minor.lower() in (b"rfc822", b"global"):
        check_envelope(rest.pop(0))
        count += check_body(rest.pop(0), extended)
        assert isinstance(rest.pop(0), int), "lines"
    if extended:
        assert len(rest) == 4
        assert _is_nstring(rest[0])
        _check_disposition(rest[1])
        _check_languages(rest[2])
        assert _is_nstring(rest[3])
    else:
        assert not rest
    return count


def _check_params(value: Item) -> None:
    assert value is None or (
        isinstance(value, list) and value and len(value) % 2 == 0 and all(isinstance(v, bytes) for v in value)
    ), value


def _check_disposition(value: Item) -> None:
    if value is not None:
        assert len(value) == 2 and isinstance(value[0], bytes)
        _check_params(value[1])


def _check_languages(value: Item) -> None:
    if isinstance(value, list):
        assert value and all(isinstance(tag, bytes) for tag in value)
    else:
        assert _is_nstring(value)
