"""What a process serves: chosen by name, changed while it runs, cheap for a thousand domains."""

from __future__ import annotations

import asyncio
import hashlib
import resource
import ssl
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from accounts import secrets
from mailcore import tls
from mailcore.certificates import material
from mailcore.conf import Conf, conf
from mailcore.delivery import connect
from mailcore.entrance import Door
from mailcore.errors import ConfigError
from tests.delivery.authority import Authority, Issued

HOST = "mx.example.test"


@pytest.fixture
def ours(tmp_path: Path) -> Conf:
    made = replace(conf, data=tmp_path, hostname=HOST)
    tls.ensure_certificate(made)
    return made


def key_of(issued: Issued) -> bytes:
    return issued.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def pair(issued: Issued) -> tls.Pair:
    key = key_of(issued)
    return tls.Pair(issued.pem(), lambda: key, tuple(tls.names(issued.certificate)))


def handshake(
    served: tls.Certificates,
    name: str | None,
    session: ssl.SSLSession | None = None,
    version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    context: ssl.SSLContext | None = None,
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Client and server after a handshake without a network, and an octet each way."""
    if context is None:
        context = client_context(version)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(down, up, server_hostname=name, session=session)
    server = served.context.wrap_bio(up, down, server_side=True)
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass
    server.write(b"x")
    assert client.read(1) == b"x"
    return client, server


def client_context(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    return context


def test_a_login_is_bound_to_the_certificate_that_its_client_was_shown(ours: Conf) -> None:
    served = tls.Certificates(ours)
    served.take([pair(Authority().issue("mail.one.test"))])
    seen = set()
    for name in (None, HOST, "mail.one.test", "MAIL.ONE.TEST", "other.test"):
        client, server = handshake(served, name)
        digest = hashlib.sha256(client.getpeercert(True) or b"").digest()
        assert tls.bindings(server) == {"tls-server-end-point": digest}
        assert tls.asked_name(server) == name
        seen.add(digest)
    assert len(seen) == 2


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_ticket_of_before_a_renewal_brings_nobody_back_to_the_old_certificate(
    ours: Conf, version: ssl.TLSVersion
) -> None:
    served = tls.Certificates(ours)
    authority = Authority()
    served.take([pair(authority.issue("mail.one.test"))])
    context = client_context(version)
    first, _ = handshake(served, "mail.one.test", context=context)
    again, _ = handshake(served, "mail.one.test", first.session, context=context)
    assert again.session_reused
    renewed = authority.issue("mail.one.test")
    served.take([pair(renewed)])
    after, server = handshake(served, "mail.one.test", again.session, context=context)
    assert not after.session_reused
    assert after.getpeercert(True) == renewed.der()
    assert tls.bindings(server) == {"tls-server-end-point": hashlib.sha256(renewed.der()).digest()}


def test_old_versions_and_weak_ciphers_are_not_spoken(ours: Conf) -> None:
    served = tls.Certificates(ours)
    for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context = client_context(version)
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises(ssl.SSLError):
            handshake(served, None, context=context)
    context = client_context(ssl.TLSVersion.TLSv1_2)
    for cipher in ("aNULL", "eNULL", "RC4-SHA", "DES-CBC3-SHA", "AES128-SHA", "AES256-GCM-SHA384"):
        try:
            context.set_ciphers(f"{cipher}:@SECLEVEL=0")
        except ssl.SSLError:
            continue  # this OpenSSL does not have it at all
        with pytest.raises(ssl.SSLError):
            handshake(served, None, context=context)
    for each in (served.context, connect.tls_context(), connect.tls_context(True), tls.trusting(None)):
        assert each.minimum_version == ssl.TLSVersion.TLSv1_2
        assert min(int(cipher["strength_bits"]) for cipher in each.get_ciphers()) >= 128
        assert each.options & ssl.OP_NO_COMPRESSION


async def test_renewals_under_load_break_no_handshake(ours: Conf) -> None:
    """Every client sees one of the certificates whole, while they change as fast as they can."""
    served = tls.Certificates(ours)
    authority = Authority()
    issued = [authority.issue("mail.one.test") for _ in range(4)]
    served.take([pair(issued[0])])
    allowed = {each.der() for each in issued}

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    def protocol(_source: str | None) -> asyncio.Protocol:
        return asyncio.StreamReaderProtocol(asyncio.StreamReader(), serve)

    seen = set()
    door = Door(protocol, _admitted, served)
    server = await asyncio.get_running_loop().create_server(door.protocol, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    context = client_context()

    async def connect_often() -> None:
        for _ in range(10):
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="mail.one.test")
            seen.add(writer.get_extra_info("ssl_object").getpeercert(True))
            writer.close()

    clients = asyncio.gather(*(connect_often() for _ in range(8)))
    number = 0
    while not clients.done():
        number += 1
        served.take([pair(issued[number % 4])])
        await asyncio.sleep(0.002)
    await clients
    server.close()
    assert seen <= allowed and len(seen) > 1


def _admitted(_address: str) -> Callable[[], None]:
    return lambda: None


def test_ticket_keys_do_not_live_for_ever(ours: Conf, monkeypatch: pytest.MonkeyPatch) -> None:
    served = tls.Certificates(ours)
    context = served.context
    assert served.context is context
    monkeypatch.setattr(tls, "TICKET_SECONDS", -1.0)
    assert served.context is not context


def test_a_key_that_cannot_be_opened_leaves_the_default(ours: Conf) -> None:
    """As after a change of the installation key."""
    served = tls.Certificates(ours)
    issued = Authority().issue("mail.one.test", HOST)
    sealed = secrets.seal(key_of(issued))[:-1] + b"?"
    served.take([tls.Pair(issued.pem(), lambda: material.unsealed(sealed), ("mail.one.test", HOST))])
    for name in (None, "mail.one.test"):
        client, _ = handshake(served, name)
        assert client.getpeercert(True) != issued.der()


def test_your_own_file_counts_for_its_names(ours: Conf, tmp_path: Path) -> None:
    authority = Authority()
    mine, other = authority.issue("mx.example.test", "mail.one.test"), authority.issue("mail.one.test", "mail.two.test")
    (tmp_path / "mine.pem").write_bytes(mine.pem())
    (tmp_path / "mine.key").write_bytes(key_of(mine))
    served = tls.Certificates(replace(ours, tls_cert=tmp_path / "mine.pem", tls_key=tmp_path / "mine.key"))
    served.take([pair(other), pair(authority.issue(HOST))])
    for name, wanted in ((None, mine), (HOST, mine), ("mail.one.test", mine), ("mail.two.test", other)):
        client, _ = handshake(served, name)
        assert client.getpeercert(True) == wanted.der(), name


def test_a_key_with_a_password_is_refused_and_nobody_is_asked_for_it(ours: Conf, tmp_path: Path) -> None:
    issued = Authority().issue(HOST)
    (tmp_path / "mine.pem").write_bytes(issued.pem())
    (tmp_path / "mine.key").write_bytes(
        issued.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(ConfigError, match="cannot be used"):
        tls.Certificates(replace(ours, tls_cert=tmp_path / "mine.pem", tls_key=tmp_path / "mine.key"))


def test_a_thousand_domains_take_little_memory(ours: Conf) -> None:
    authority = Authority()
    issued = authority.issue("mail.example.test")
    sealed = secrets.seal(key_of(issued))
    chain = issued.pem() * 3
    served = tls.Certificates(ours)
    before = _resident()
    served.take(
        [
            tls.Pair(bytes(bytearray(chain)), lambda: material.unsealed(sealed), (f"mail.d{number}.test",))
            for number in range(1000)
        ]
    )
    assert _resident() - before < 8 * 1024
    for number in range(3 * tls.CONTEXTS):
        client, _ = handshake(served, f"mail.d{number}.test")
        assert client.getpeercert(True) == issued.der()
    assert len(served._ready) <= tls.CONTEXTS
    assert _resident() - before < 32 * 1024, "contexts that are not used any more go"


def _resident() -> int:
    """KB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 1024
