"""AUTHENTICATE SCRAM-SHA-256 and -PLUS with app passwords, over the wire."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import ssl
from contextlib import closing

import pytest

from accounts import people as accounts_people
from accounts.models import Account
from mailcore.conf import conf
from mailcore.imap import offers
from tests.imap.conftest import Person
from tests.imap.running import Running
from tests.imap.test_limits import Wire
from tests.scram import ScramClient


@pytest.fixture(autouse=True)
def offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offers, "conf", dataclasses.replace(conf, scram=True))


def app_password(person: Person, scopes: list[str] | None = None, label: str = "phone") -> str:
    return accounts_people.add_app_password(Account.objects.get(pk=person.account_id), label, scopes)


def log_in(wire: Wire, client: ScramClient, mechanism: str = "SCRAM-SHA-256", *, initial: bool = False) -> bytes:
    """The tagged answer; the server's signature is checked on the way."""
    first = base64.b64encode(client.first()).decode()
    if initial:
        said = wire.say(f"a AUTHENTICATE {mechanism} {first}")
    else:
        assert wire.say(f"a AUTHENTICATE {mechanism}") == b"+ \r\n"
        wire.file.write(first.encode() + b"\r\n")
        wire.file.flush()
        said = wire.line()
    if not said.startswith(b"+ "):
        return said
    wire.file.write(base64.b64encode(client.final(base64.b64decode(said[2:]))) + b"\r\n")
    wire.file.flush()
    said = wire.line()
    if not said.startswith(b"+ "):
        return said
    assert client.accepts(base64.b64decode(said[2:]))
    wire.file.write(b"\r\n")
    wire.file.flush()
    return wire.line()


def over_tls(imap: Running) -> tuple[Wire, bytes]:
    """A client with TLS, its greeting read, and the hash of the server's certificate."""
    wire = Wire(imap)
    wire.line()
    assert wire.say("s STARTTLS").startswith(b"s OK")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    encrypted = context.wrap_socket(wire.socket)
    wire.file, wire.socket = encrypted.makefile("rwb"), encrypted
    octets = encrypted.getpeercert(binary_form=True)
    assert octets is not None
    return wire, hashlib.sha256(octets).digest()


@pytest.mark.parametrize("initial", [True, False])
def test_an_app_password_logs_in_without_being_sent(imap: Running, alice: Person, initial: bool) -> None:
    app_password(alice, label="tablet")
    secret = app_password(alice)
    with closing(Wire(imap)) as wire:
        assert b" AUTH=SCRAM-SHA-256 AUTH=PLAIN AUTH=LOGIN]" in wire.line()
        assert log_in(wire, ScramClient(alice.address, secret), initial=initial).startswith(b"a OK [CAPABILITY ")
        assert wire.say("b SELECT INBOX").startswith(b"b OK")


def test_the_login_is_bound_to_the_certificate(imap: Running, alice: Person) -> None:
    secret = app_password(alice)
    header = b"p=tls-server-end-point,,"
    for change, answer in ((b"", b"a OK "), (b"x", b"a BAD SCRAM-SHA-256-PLUS: the channel binding does not fit")):
        wire, certificate = over_tls(imap)
        with closing(wire):
            wire.file.write(b"c CAPABILITY\r\n")
            wire.file.flush()
            assert b" AUTH=SCRAM-SHA-256-PLUS AUTH=SCRAM-SHA-256 AUTH=PLAIN " in wire.line()
            wire.line()
            client = ScramClient(alice.address, secret, header=header, binding=certificate + change)
            assert log_in(wire, client, "SCRAM-SHA-256-PLUS").startswith(answer)


def test_taking_plus_out_of_what_was_announced_is_noticed(imap: Running, alice: Person) -> None:
    secret = app_password(alice)
    wire, _ = over_tls(imap)
    with closing(wire):
        said = log_in(wire, ScramClient(alice.address, secret, header=b"y,,"))
        assert said.startswith(b"a BAD The server does support channel binding")


def test_wrong_secrets_and_unknown_people_look_alike(imap: Running, alice: Person) -> None:
    app_password(alice)
    answers = set()
    for address, secret in (
        (alice.address, "abcd-efgh-ijkl-mnop-qrst-uvwx-yz23"),
        (alice.address, alice.password),  # the account's own password is not among them
        ("nobody@nowhere.example", "abcd-efgh-ijkl-mnop-qrst-uvwx-yz23"),
        ("no address at all", "x"),
    ):
        with closing(Wire(imap)) as wire:
            wire.line()
            answers.add(log_in(wire, ScramClient(address, secret)))
    assert answers == {b"a NO [AUTHENTICATIONFAILED] The address or the password is not right\r\n"}


def test_an_app_password_for_other_protocols_does_not_log_in(imap: Running, alice: Person) -> None:
    secret = app_password(alice, ["smtp"])
    with closing(Wire(imap)) as wire:
        wire.line()
        assert log_in(wire, ScramClient(alice.address, secret)).startswith(b"a NO [AUTHORIZATIONFAILED] ")


def test_an_app_password_that_was_removed_is_none(imap: Running, alice: Person) -> None:
    secret = app_password(alice)
    accounts_people.remove_app_password(Account.objects.get(pk=alice.account_id), label="phone")
    with closing(Wire(imap)) as wire:
        wire.line()
        assert log_in(wire, ScramClient(alice.address, secret)).startswith(b"a NO [AUTHENTICATIONFAILED] ")


def test_for_somebody_else_nobody_logs_in(imap: Running, alice: Person) -> None:
    secret = app_password(alice)
    with closing(Wire(imap)) as wire:
        wire.line()
        said = log_in(wire, ScramClient(alice.address, secret, header=b"n,a=bob@example.org,"))
        assert said.startswith(b"a NO [AUTHENTICATIONFAILED] Logging in for somebody else")


def test_who_is_not_offered_it_cannot_use_it(imap: Running, alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offers, "conf", conf)
    with closing(Wire(imap)) as wire:
        assert b"SCRAM" not in wire.line()
        assert wire.say("a AUTHENTICATE SCRAM-SHA-256").startswith(b"a NO [CANNOT] ")
    monkeypatch.setattr(offers, "conf", dataclasses.replace(conf, scram=True))
    with closing(Wire(imap)) as wire:
        wire.line()  # without TLS there is nothing to bind to
        assert wire.say("a AUTHENTICATE SCRAM-SHA-256-PLUS").startswith(b"a NO [CANNOT] ")
        assert wire.say("b AUTHENTICATE SCRAM-SHA-256 =").startswith(b"b BAD SCRAM-SHA-256: the client's first")
