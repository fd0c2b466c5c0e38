"""JMAPACCESS (RFC 9698): told only when the address is known, and with the ids that JMAP uses."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from ipaddress import ip_network

import pytest

from mailcore.conf import conf
from mailcore.imap.capabilities import jmap_url
from tests.imap.conftest import Person
from tests.imap.running import Running
from tests.imap.test_limits import Wire


@pytest.mark.parametrize(
    ("changes", "url"),
    [
        ({"bind": "127.0.0.1", "http_port": 8000}, "http://127.0.0.1:8000/.well-known/jmap"),
        ({"bind": "::1", "http_port": 80}, "http://[::1]:80/.well-known/jmap"),
        ({"bind": "localhost", "http_port": 8000}, "http://localhost:8000/.well-known/jmap"),
        (
            {"bind": "0.0.0.0", "hostname": "mail.example.org", "proxies": (ip_network("10.0.0.0/8"),)},
            "https://mail.example.org/.well-known/jmap",
        ),
        ({"bind": "0.0.0.0"}, None),
        ({"bind": "some.name.example"}, None),
    ],
)
def test_the_address_follows_from_the_settings(changes: dict[str, object], url: str | None) -> None:
    assert jmap_url(dataclasses.replace(conf, **{"proxies": (), **changes})) == url


def test_the_address_is_told_to_who_has_logged_in(
    imap: Running, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imap.server, "jmap_url", "https://mail.example.org/.well-known/jmap")
    with closing(Wire(imap)) as wire:
        assert b"JMAPACCESS" not in wire.line()
        assert wire.say("a GETJMAPACCESS").startswith(b"a BAD ")
        said = wire.say(f'b LOGIN {alice.address} "{alice.password}"')
        assert b" JMAPACCESS]" in said
        assert b" OBJECTID " in said
        wire.file.write(b"c GETJMAPACCESS\r\n")
        wire.file.flush()
        assert wire.line() == b'* JMAPACCESS "https://mail.example.org/.well-known/jmap"\r\n'
        assert wire.line() == b"c OK GETJMAPACCESS completed\r\n"
        assert wire.say("d GETJMAPACCESS now").startswith(b"d BAD ")


def test_without_an_address_nothing_is_announced(imap: Running, alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imap.server, "jmap_url", None)
    with closing(Wire(imap)) as wire:
        wire.line()
        assert b"JMAPACCESS" not in wire.say(f'a LOGIN {alice.address} "{alice.password}"')
        assert wire.say("b GETJMAPACCESS").startswith(b"b BAD There is no JMAP address to tell")
