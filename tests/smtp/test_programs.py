"""Real programs as clients: swaks in plain text (TLS would want another package of Perl), curl and smtplib over TLS."""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from pathlib import Path

import pytest
from django.db import connection

from accounts import people
from tests.smtp.world import ANN, PASSWORD, Village, body_of, running, untrusting

pytestmark = [pytest.mark.django_db(transaction=True)]

MESSAGE = (
    "From: Ann <ann@example.org>\r\nDate: x\r\nMessage-ID: <1@x>\r\nSubject: Grüße\r\n\r\n.dot\r\nÄ €\r\n".encode()
)


async def run(*command: str, stdin: bytes = b"") -> tuple[int, str]:
    program = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await asyncio.wait_for(program.communicate(stdin), 60)
    assert program.returncode is not None
    return program.returncode, out.decode(errors="replace")


@pytest.mark.programs("swaks")
async def test_swaks_delivers_and_submits(village: Village, tmp_path: Path) -> None:
    letter = tmp_path / "letter"
    letter.write_bytes(MESSAGE.replace(b"\r\n", b"\n"))
    login = ("--auth-user", ANN, "--auth-password", PASSWORD)
    ways = {
        "mx": [(), ("--pipeline",), ("--helo", "[127.0.0.1]", "--protocol", "SMTP")],
        "submission": [(*login, "--auth", "PLAIN"), (*login, "--auth", "LOGIN")],
    }
    async with running(tmp_path) as world:
        count = 0
        for name, variants in ways.items():
            for extra in variants:
                count += 1
                command = [
                    "swaks",
                    "--server",
                    "127.0.0.1",
                    "--port",
                    str(world.ports[name]),
                    "--ehlo",
                    "client.example",
                ]
                command += ["--from", ANN, "--to", "bob@example.org", "--data", f"@{letter}", *extra]
                code, said = await run(*command)
                assert code == 0, said
                assert "250 2.0.0 Ok: id " in said
        stored = await world.mail(village.bob)
        assert [body_of(each) for each in stored] == [MESSAGE + b"\r\n"] * count  # swaks ends with a line of its own
        code, said = await run(
            *("swaks", "--server", f"127.0.0.1:{world.ports['mx']}", "--from", ANN, "--to", "victim@elsewhere.example")
        )
        assert code == 24
        assert "550 5.7.1 Relay access denied" in said


@pytest.mark.programs("curl")
async def test_curl_submits(village: Village, tmp_path: Path) -> None:
    letter = tmp_path / "letter"
    letter.write_bytes(MESSAGE)
    async with running(tmp_path) as world:
        for scheme, name, extra in (("smtps", "submissions", ()), ("smtp", "submission", ("--ssl-reqd",))):
            code, said = await run(
                *(
                    "curl",
                    "-sSk",
                    f"{scheme}://localhost:{world.ports[name]}/client.example",
                    "--mail-from",
                    ANN,
                    *extra,
                ),
                *("--mail-rcpt", "bob@example.org", "--user", f"{ANN}:{PASSWORD}", "-T", str(letter)),
            )
            assert code == 0, said
        assert [body_of(each) for each in await world.mail(village.bob)] == [MESSAGE, MESSAGE]
        code, said = await run(
            *("curl", "-sSk", f"smtps://localhost:{world.ports['submissions']}", "--mail-from", ANN),
            *("--mail-rcpt", "bob@example.org", "--user", f"{ANN}:wrong", "-T", str(letter)),
        )
        assert code == 67, said


async def test_smtplib_submits(village: Village, tmp_path: Path) -> None:
    def send(port: int, context: ssl.SSLContext) -> None:
        with smtplib.SMTP("127.0.0.1", port, local_hostname="client.example", timeout=60) as client:
            client.starttls(context=context)
            client.login(ANN, PASSWORD)
            refused = client.sendmail(
                ANN, ["bob@example.org", "nobody@example.org"], MESSAGE, mail_options=["BODY=8BITMIME", "SMTPUTF8"]
            )
            assert refused["nobody@example.org"][0] == 550

    async with running(tmp_path) as world:
        await asyncio.to_thread(send, world.ports["submission"], untrusting())
        (stored,) = await world.mail(village.bob)
        assert body_of(stored) == MESSAGE
        assert b"with UTF8SMTPSA id" in stored


@pytest.mark.programs("msmtp")
async def test_msmtp_logs_in_with_scram_and_an_app_password(village: Village, tmp_path: Path) -> None:
    """Left to itself (`on`) it takes PLAIN over TLS, so that an account's own password works while SCRAM is offered."""

    def make() -> str:
        try:
            return people.add_app_password(people.get_account(ANN), "msmtp")
        finally:
            connection.close()

    secret = await asyncio.to_thread(make)
    letter = MESSAGE.replace(b"\r\n", b"\n")
    async with running(tmp_path, scram=True) as world:

        async def msmtp(auth: str, password: str) -> tuple[int, str]:
            settings = tmp_path / "msmtprc"
            settings.write_text(
                f"account default\nhost 127.0.0.1\nport {world.ports['submissions']}\ntls on\ntls_starttls off\n"
                f"tls_certcheck off\nfrom {ANN}\nauth {auth}\nuser {ANN}\npassword {password}\n"
            )
            settings.chmod(0o600)
            return await run("msmtp", "-C", str(settings), "bob@example.org", stdin=letter)

        for auth, password, works in (
            *(("scram-sha-256", secret, True), ("on", secret, True), ("plain", secret, True)),
            *(("plain", PASSWORD, True), ("scram-sha-256", PASSWORD, False), ("on", PASSWORD, True)),
        ):
            code, said = await msmtp(auth, password)
            assert (code == 0) is works, (auth, said)
            assert works or "535 5.7.8" in said
        assert len(await world.mail(village.bob)) == 5


@pytest.mark.programs("mutt")
async def test_mutt_takes_scram_by_itself_and_tries_nothing_else(village: Village, tmp_path: Path) -> None:
    """Why SCRAM is off unless it is asked for: with an account's own password such programs could not log in."""

    async def mutt(port: int) -> int:
        settings = tmp_path / "muttrc"
        settings.write_text(
            f'set smtp_url="smtp://ann%40example.org@127.0.0.1:{port}/"\nset smtp_pass="{PASSWORD}"\n'
            f'set ssl_starttls=no\nset ssl_force_tls=no\nset from="{ANN}"\nset copy=no\nset record=""\n'
        )
        return (await run("mutt", "-F", str(settings), "-s", "Hello", "bob@example.org", stdin=b"Hello\n"))[0]

    for scram in (True, False):
        async with running(tmp_path, scram=scram) as world:
            assert (await mutt(world.ports["submission"]) == 0) is not scram
