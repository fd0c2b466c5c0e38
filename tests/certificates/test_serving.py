"""What clients are shown by real mail processes: by name, and a new certificate without a restart."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509

from tests.delivery.authority import Authority, Issued
from tests.ops.installation import Installation, installation
from tests.smtp.world import untrusting
from tests.waiting import until

# The kernel deals connections out to the two processes by chance: how many it takes to have met both.
DRAWS = 30
PROTOCOLS = {"SMTP": "smtp", "SUBMISSION": "smtp", "SUBMISSIONS": None, "IMAP": "imap", "IMAPS": None}


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Installation]:
    """Two mail processes, with a certificate in files."""
    folder = tmp_path_factory.mktemp("serving")
    cert, key = save(authority.issue("mail.example.test"), folder, "default")
    settings = {"MAILSTEAD_TLS_CERT": str(cert), "MAILSTEAD_TLS_KEY": str(key), "MAILSTEAD_PROCESSES": "2"}
    with installation(folder / "data", **settings) as running:
        running.start()
        running.wait_ready()
        yield running


def save(issued: Issued, folder: Path, name: str) -> tuple[Path, Path]:
    """As an ACME client of the administrator's would: new files in the place of the old ones."""
    issued.context(folder)
    for kind in ("pem", "key"):
        path = folder / f"{issued.certificate.serial_number}.{kind}"
        path.chmod(0o644)
        path.replace(folder / f"{name}.{kind}")
    folder.chmod(0o755)
    return folder / f"{name}.pem", folder / f"{name}.key"


def shown(made: Installation, port: str = "IMAPS", name: str | None = None) -> str:
    """The names of the certificate that a client sees."""
    return "+".join(names(certificate(made, port, name)))


def names(certificate: x509.Certificate) -> list[str]:
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return found.value.get_values_for_type(x509.DNSName)


def certificate(made: Installation, port: str, name: str | None) -> x509.Certificate:
    if PROTOCOLS[port] is not None:
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{made.ports[port]}", "-starttls", PROTOCOLS[port]]
        command += ["-servername", name] if name else ["-noservername"]
        done = subprocess.run(command, input=b"", capture_output=True, timeout=60)
        return x509.load_pem_x509_certificate(done.stdout)
    with (
        socket.create_connection(("127.0.0.1", made.ports[port]), timeout=60) as plain,
        untrusting().wrap_socket(plain, server_hostname=name) as client,
    ):
        return x509.load_der_x509_certificate(client.getpeercert(True) or b"")


def always(made: Installation, name: str | None, wanted: str) -> bool:
    """Whether both processes show it."""
    return all(shown(made, name=name) == wanted for _ in range(DRAWS))


def imported(made: Installation, issued: Issued, folder: Path, name: str) -> None:
    cert, key = save(issued, folder, "imported")
    done = made.run("certificate", "import", name, "--cert", str(cert), "--key", str(key))
    assert done.returncode == 0, done.stderr
    key.unlink()


@contextlib.contextmanager
def session(made: Installation, name: str) -> Iterator[Callable[[bytes], bytes]]:
    with (
        socket.create_connection(("127.0.0.1", made.ports["IMAPS"]), timeout=60) as plain,
        untrusting().wrap_socket(plain, server_hostname=name) as client,
        client.makefile("rwb") as stream,
    ):
        assert stream.readline().startswith(b"* OK")

        def ask(command: bytes) -> bytes:
            stream.write(command + b"\r\n")
            stream.flush()
            while (line := stream.readline()).startswith(b"*"):
                pass
            return line

        yield ask


def test_each_name_has_its_certificate_on_every_port(made: Installation, authority: Authority, tmp_path: Path) -> None:
    assert always(made, None, "mail.example.test")
    with session(made, "mail.one.test") as ask:
        imported(made, authority.issue("mail.one.test", "imap.one.test"), tmp_path, "mail.one.test")
        imported(made, authority.issue("*.two.test"), tmp_path, "mail.two.test")
        until(lambda: always(made, "mail.one.test", "mail.one.test+imap.one.test"))
        until(lambda: always(made, "anything.two.test", "*.two.test"))
        assert ask(b"a NOOP").startswith(b"a OK"), "who was there goes on"
    for port in PROTOCOLS:
        assert shown(made, port, "IMAP.one.test") == "mail.one.test+imap.one.test", port
        for other in (None, "mail.example.test", "one.test", "a.b.two.test", "x" * 60 + ".test"):
            assert shown(made, port, other) == "mail.example.test", (port, other)


def test_a_renewed_certificate_is_shown_within_seconds(
    made: Installation, authority: Authority, tmp_path: Path
) -> None:
    issued = [authority.issue("mail.three.test") for _ in range(2)]
    imported(made, issued[0], tmp_path, "mail.three.test")

    def shows(wanted: Issued) -> Callable[[], bool]:
        return lambda: all(certificate(made, "IMAPS", "mail.three.test") == wanted.certificate for _ in range(DRAWS))

    until(shows(issued[0]))
    with session(made, "mail.three.test") as ask:
        imported(made, issued[1], tmp_path, "mail.three.test")
        until(shows(issued[1]))
        assert ask(b"a NOOP").startswith(b"a OK")
    assert made.run("certificate", "remove", "mail.three.test").returncode == 0
    until(lambda: always(made, "mail.three.test", "mail.example.test"))


def test_new_files_are_taken_without_a_restart_and_half_written_ones_are_not(
    made: Installation, authority: Authority
) -> None:
    folder = Path(made.environ["MAILSTEAD_TLS_CERT"]).parent
    before = made.children()
    renewed = authority.issue("mail.example.test", "mx.example.test")
    aside = folder / "aside"
    aside.mkdir(exist_ok=True)
    cert, key = save(renewed, aside, "default")
    cert.replace(folder / "default.pem")  # the key of the former one is still there
    made.wait_for("the former certificate stays in use")
    assert always(made, None, "mail.example.test")
    key.replace(folder / "default.key")
    until(lambda: always(made, None, "mail.example.test+mx.example.test"))
    assert made.children() == before


def test_the_database_gives_the_default_where_no_files_are_named(tmp_path: Path, authority: Authority) -> None:
    with installation(tmp_path / "data") as running:
        running.start()
        running.wait_ready()
        assert shown(running) == "mail.example.test+localhost", "self-signed"
        imported(running, authority.issue("mail.example.test"), tmp_path, "mail.example.test")
        until(lambda: always(running, None, "mail.example.test"))
