"""Other mail servers, Exim and OpenSMTPD, in both directions with and without TLS; other submission clients.

Postfix is the far side of test_inbound and test_outbound; here it speaks SMTPUTF8.
"""

from __future__ import annotations

import email
import email.policy
import re
import smtplib
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests import peers
from tests.e2e import letters
from tests.e2e.world import ANN, BOB, PASSWORD, World, command, trace_id
from tests.peers import Peer
from tests.waiting import until

pytestmark = [pytest.mark.programs("postfix", "dnsmasq", ".debian/usr/sbin/exim4", ".debian/usr/sbin/smtpd")]

SERVERS = {"exim": (peers.exim, "exim.example"), "opensmtpd": (peers.opensmtpd, "open.example")}


@dataclass(frozen=True, slots=True)
class Other:
    """A server at the other end: its name, its domain, and whether TLS is used."""

    name: str
    domain: str
    tls: bool
    peer: Peer


@pytest.fixture(scope="module", params=["exim-tls", "exim-plain", "opensmtpd-tls", "opensmtpd-plain"])
def other(request: pytest.FixtureRequest, world: World) -> Iterator[Other]:
    name, _, how = request.param.partition("-")
    start, domain = SERVERS[name]
    folder, port, home = world.folder / request.param, world.postfix.port, world.made.ports["SMTP"]
    with start(folder, domain, world.address_of(domain), port, home, tls=how == "tls") as peer:
        yield Other(name, domain, how == "tls", peer)


def body(raw: bytes) -> bytes:
    return raw.partition(b"\r\n\r\n")[2]


def hand_in(other: Other, sender: str, recipient: str, message: bytes, *options: str) -> None:
    """Give the other server a message for us."""
    with smtplib.SMTP(other.peer.address, other.peer.port, "client.example", timeout=60) as client:
        client.sendmail(sender, recipient, message, mail_options=options)


@pytest.mark.parametrize("name", ["plain", "accents", "attachment"])
def test_what_the_other_server_hands_on_arrives_as_it_was_written(world: World, other: Other, name: str) -> None:
    message_id = f"<{name}.{other.peer.root.name}@{other.domain}>".encode()
    message = re.sub(rb"(?m)^Message-ID: [^\r\n]*", b"Message-ID: " + message_id, letters.ALL[name])
    # OpenSMTPD takes no lines of more than 998 octets with their CRLF.
    message = message.replace(b"x" * 998, b"x" * 900)
    sender = f"writer@{other.domain}"
    hand_in(other, sender, ANN, message, "BODY=8BITMIME")
    raw = world.await_message(ANN, lambda each: message_id in each)
    assert body(raw) == body(message)
    assert raw.startswith(b"Return-Path: <" + sender.encode() + b">\r\n")
    received = email.message_from_bytes(raw).get_all("Received", [])[0]
    assert ("ESMTPS" in received) == other.tls, received
    assert ("TLSv1.3" in received) == other.tls, received


def test_mail_of_ours_arrives_there_signed_and_the_trace_has_its_words(world: World, other: Other) -> None:
    name = f"out.{other.peer.root.name}"
    message = letters.ALL["attachment"].replace(b"carol@far.example", ANN.encode())
    message = re.sub(rb"(?m)^Message-ID: [^\r\n]*", f"Message-ID: <{name}@home.example>".encode(), message)
    done = world.submit(message, f"reader@{other.domain}")
    assert done.returncode == 0, done.stderr
    raw = other.peer.await_mail(f"<{name}@home.example>".encode())
    assert body(raw).rstrip() == body(message).rstrip()
    assert raw.count(b"DKIM-Signature:") == 2
    steps = world.await_steps(trace_id(done.stderr), "delivered")
    detail = next(step["detail"] for step in steps if step["step"] == "delivered")
    assert detail["host"].startswith(f"mx.{other.domain} [127.0.0.")
    if other.name == "exim":
        assert bool(detail.get("tls")) == other.tls
    elif other.tls:  # its handshake breaks off: the mail goes in the clear then, and the trace says so
        (attempt,) = [step["detail"] for step in steps if step["step"] == "attempt"]
        assert "tls" in str(attempt).lower() and not detail.get("tls")


def test_whom_the_other_server_refuses_comes_back_to_the_writer(world: World, other: Other) -> None:
    name = f"refused.{other.peer.root.name}"
    message = (
        f"From: {BOB}\r\nSubject: nobody\r\nMessage-ID: <{name}@home.example>\r\n\r\nIs anybody there?\r\n".encode()
    )
    done = world.submit(message, f"nobody@{other.domain}", sender=BOB)
    assert done.returncode == 0, done.stderr
    raw = world.await_message(BOB, lambda each: b"multipart/report" in each and name.encode() in each)
    assert f"Final-Recipient: rfc822; nobody@{other.domain}".encode() in raw
    assert re.search(rb"Action: failed\r\n", raw) and re.search(rb"Diagnostic-Code: smtp; 55\d", raw)


# This OpenSMTPD knows none of PIPELINING, CHUNKING and SMTPUTF8.
@pytest.mark.parametrize("other", ["exim-tls", "exim-plain"], indirect=True)
def test_exim_pipelines_and_sends_in_chunks(world: World, other: Other) -> None:
    hand_in(other, f"chunks@{other.domain}", BOB, b"Subject: in chunks\r\n\r\nIn chunks.\r\n")
    world.await_message(BOB, lambda each: f"chunks@{other.domain}".encode() in each)

    def handed_over() -> list[str]:
        return [line for line in other.peer.log().splitlines() if "=> " + BOB in line and "chunks@" in line]

    until(handed_over, story=other.peer.log)  # it writes that when it has our answer
    (line,) = handed_over()
    assert " K " in line and " L" in line, line  # Exim's marks for CHUNKING and PIPELINING


@pytest.mark.parametrize("other", ["exim-tls", "exim-plain"], indirect=True)
def test_addresses_beyond_ascii_pass_between_exim_and_us(world: World, other: Other) -> None:
    sender = f"käthe@{other.domain}"
    message = (
        f"From: {sender}\r\nSubject: Grüße von Exim\r\nMessage-ID: <utf8.{other.tls}@{other.domain}>\r\n\r\nGrüße\r\n"
    )
    hand_in(other, sender, ANN, message.encode(), "SMTPUTF8", "BODY=8BITMIME")
    raw = world.await_message(ANN, lambda each: f"<utf8.{other.tls}@".encode() in each)
    assert raw.startswith(f"Return-Path: <{sender}>\r\n".encode())
    received = email.message_from_bytes(raw).get_all("Received", [])[0]
    assert ("UTF8SMTPS" if other.tls else "UTF8SMTP ") in received, received

    reader = f"grüße@{other.domain}"
    header = f"From: {ANN}\r\nTo: {reader}\r\nSubject: Grüße zurück\r\nMessage-ID: <back.{other.tls}@home.example>\r\n"
    submit_utf8(world, ANN, reader, f"{header}\r\nÄ\r\n".encode())
    assert body(other.peer.await_mail(f"<back.{other.tls}@home".encode())).rstrip() == "Ä".encode()


def submit_utf8(world: World, sender: str, recipient: str, message: bytes) -> None:
    trust = ssl.create_default_context(cafile=world.made.data / "tls" / "cert.pem")
    trust.check_hostname = False
    port = world.made.ports["SUBMISSIONS"]
    with smtplib.SMTP_SSL("127.0.0.1", port, "client.example", timeout=60, context=trust) as client:
        client.login(sender, PASSWORD)
        client.sendmail(sender, recipient, message, mail_options=("SMTPUTF8", "BODY=8BITMIME"))


def test_postfix_hands_us_an_address_beyond_ascii(world: World) -> None:
    message = "From: käthe@far.example\r\nSubject: Grüße von Postfix\r\nMessage-ID: <utf8@far.example>\r\n\r\nGrüße\r\n"
    with smtplib.SMTP("127.0.0.1", world.postfix.port, "client.example", timeout=60) as client:
        client.sendmail("käthe@far.example", ANN, message.encode(), mail_options=("SMTPUTF8", "BODY=8BITMIME"))
    raw = world.await_message(ANN, lambda each: b"<utf8@far.example>" in each)
    assert raw.startswith("Return-Path: <käthe@far.example>\r\n".encode())


@pytest.mark.programs("msmtp")
@pytest.mark.parametrize("how", ["tls-plain", "tls-login", "starttls-plain"])
def test_msmtp_submits_what_bob_wrote(world: World, how: str) -> None:
    start, _, mechanism = how.partition("-")
    port = world.made.ports["SUBMISSIONS" if start == "tls" else "SUBMISSION"]
    rc = world.folder / "msmtprc"
    rc.write_text(
        f"account home\nhost localhost\nport {port}\nfrom {BOB}\nauth {mechanism}\nuser {BOB}\npassword {PASSWORD}\n"
        f"tls on\ntls_starttls {'off' if start == 'tls' else 'on'}\ntls_certcheck off\ndomain client.example\n"
        "account default : home\n"
    )
    rc.chmod(0o600)
    message = f"From: Bob <{BOB}>\nTo: {ANN}\nBcc: {BOB}\nSubject: by msmtp, {how}\n\nLines with LF.\n.dot\n"
    done = world.run(world.find("msmtp"), "-C", rc, "--read-envelope-from", "-t", feed=message.encode())
    assert done.returncode == 0, done.stderr
    raw = world.await_message(ANN, lambda each: f"by msmtp, {how}".encode() in each)
    assert body(raw) == b"Lines with LF.\r\n.dot\r\n"
    assert b"Bcc" not in raw and re.search(rb"(?m)^Message-ID: <", raw)


@pytest.mark.programs("msmtp")
def test_msmtp_is_told_why_it_may_not_send(world: World) -> None:
    rc = world.folder / "msmtprc-wrong"
    rc.write_text(
        f"account default\nhost localhost\nport {world.made.ports['SUBMISSIONS']}\nfrom {ANN}\nauth plain\nuser {BOB}\n"
        f"password {PASSWORD}\ntls on\ntls_starttls off\ntls_certcheck off\n"
    )
    rc.chmod(0o600)
    done = world.run(world.find("msmtp"), "-C", rc, BOB, feed=b"Subject: not mine\n\nx\n")
    assert done.returncode != 0
    assert b"550" in done.stderr or b"553" in done.stderr, done.stderr


def test_curl_submits_with_a_login_of_an_application(world: World) -> None:
    made = command(world.made, "apppassword", "add", BOB, "--label", "curl").split()
    secret = made[-1]
    url = f"smtps://127.0.0.1:{world.made.ports['SUBMISSIONS']}/client.home.example"
    mail = ("--mail-from", BOB, "--mail-rcpt", ANN, "-T", "-")
    text = f"From: {BOB}\r\nSubject: by curl with an app password\r\n\r\nhello\r\n".encode()
    for mechanism in ("PLAIN", "LOGIN"):
        login = ("--user", f"{BOB}:{secret}", "--login-options", f"AUTH={mechanism}")
        done = world.run(world.find("curl"), "-sSkv", "--url", url, *login, *mail, feed=text)
        assert done.returncode == 0, done.stderr
        assert [step["step"] for step in world.await_steps(trace_id(done.stderr), "stored")] == ["accepted", "stored"]
