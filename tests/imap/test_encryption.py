"""Passwords in clear text, STARTTLS that fails, and many small pieces of input."""

from __future__ import annotations

import dataclasses
import imaplib
import socket
import ssl
from contextlib import closing

import pytest

from mailcore.conf import conf
from mailcore.imap import offers
from tests.imap.conftest import Person
from tests.imap.running import HOST, Running
from tests.imap.test_limits import Wire
from tests.waiting import until


def test_without_tls_no_password_is_taken_when_the_operator_says_so(
    imap: Running, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offers, "conf", dataclasses.replace(conf, plaintext_auth="never"))
    with closing(Wire(imap)) as wire:
        greeting = wire.line()
        assert b" LOGINDISABLED]" in greeting
        assert b"AUTH=" not in greeting
        assert b" STARTTLS " in greeting
        assert wire.say(f'a LOGIN {alice.address} "{alice.password}"').startswith(b"a NO [PRIVACYREQUIRED] ")
        assert wire.say("b AUTHENTICATE PLAIN").startswith(b"b NO [PRIVACYREQUIRED] ")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with imaplib.IMAP4(HOST, imap.port) as client:
        client.starttls(context)
        assert client.login(alice.address, alice.password)[0] == "OK"


def test_only_loopback_may_log_in_in_clear_by_default(
    imap: Running, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offers, "conf", dataclasses.replace(conf, plaintext_auth="loopback"))
    with closing(Wire(imap)) as wire:
        assert b"AUTH=PLAIN" in wire.line()
        until(lambda: len(imap.server.connections) == 1)  # those of the tests before may still be leaving
        (connection,) = imap.server.connections
        connection.remote, before = "192.0.2.1", connection.remote
        assert wire.say(f'a LOGIN {alice.address} "{alice.password}"').startswith(b"a NO [PRIVACYREQUIRED] ")
        connection.remote = before
        assert wire.say(f'b LOGIN {alice.address} "{alice.password}"').startswith(b"b OK")


def test_a_handshake_that_fails_ends_the_connection_and_nothing_else(imap: Running, alice: Person) -> None:
    with closing(Wire(imap)) as wire:
        wire.line()
        assert wire.say("a STARTTLS").startswith(b"a OK")
        wire.socket.sendall(b"b LOGIN in the clear\r\n" * 100)
        try:
            while wire.socket.recv(4096):
                pass
        except ConnectionError:
            pass
    until(lambda: not imap.server.connections)
    with closing(Wire(imap)) as wire:
        assert wire.log_in(alice).startswith(b"a OK")


def test_a_whole_session_sent_byte_by_byte(imap: Running, alice: Person) -> None:
    script = (
        f'a LOGIN {alice.address} "{alice.password}"\r\n'
        "b APPEND INBOX {19+}\r\nSubject: x\r\n\r\nbody!\r\n"
        "c SELECT {5+}\r\nINBOX\r\n"
        "d FETCH 1 BODY.PEEK[TEXT]\r\n"
        "e IDLE\r\nDONE\r\n"
        "f LOGOUT\r\n"
    ).encode()
    with closing(socket.create_connection((HOST, imap.port), 60)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in script:
            connection.sendall(bytes([octet]))
        received = b""
        while data := connection.recv(65536):
            received += data
    for answer in (b"a OK ", b"b OK [APPENDUID ", b"c OK ", b"BODY[TEXT] {5}\r\nbody!)", b"d OK ", b"e OK ", b"f OK "):
        assert answer in received


def test_pipelined_commands_are_answered_in_order(imap: Running, alice: Person) -> None:
    commands = [f'a0 LOGIN {alice.address} "{alice.password}"', "a1 SELECT INBOX"]
    commands += [f"a{n} APPEND INBOX {{13+}}\r\nSubject: {n:02d}\r\n" for n in range(2, 60)]
    commands += ["a60 SEARCH ALL", "a61 STORE 1:* +FLAGS.SILENT (\\Seen)", "a62 SEARCH UNSEEN", "a63 LOGOUT"]
    with closing(socket.create_connection((HOST, imap.port), 60)) as connection:
        connection.sendall("\r\n".join(commands).encode() + b"\r\n")
        received = b""
        while data := connection.recv(65536):
            received += data
    tagged = [line.split()[0] for line in received.split(b"\r\n") if line.startswith(b"a")]
    assert tagged == [b"a%d" % n for n in range(64)]
    assert b"* SEARCH " + b" ".join(b"%d" % n for n in range(1, 59)) + b"\r\n" in received
    assert b"* SEARCH\r\n" in received
