"""A whole installation gets its certificate from Pebble: worker, web and mail process, each for its part."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509

from mailcore.certificates import material
from tests.certificates.pebble import pebble
from tests.certificates.test_serving import certificate, shown, until
from tests.delivery.nameserver import NameServer
from tests.ops.installation import ROOT, Installation

HOST = "mail.example.test"


@contextlib.contextmanager
def nameserver() -> Iterator[NameServer]:
    """Names of example.test that lead to loopback, answered by a thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(NameServer().start(), loop).result(60)
    server.add(HOST, "A", "127.0.0.1")
    server.add("mta-sts.example.test", "CNAME", f"{HOST}.")
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(60)
        loop.close()


@pytest.mark.programs("pebble")
def test_the_worker_has_it_issued_and_the_mail_process_shows_it(tmp_path: Path, program: Callable[[str], str]) -> None:
    with contextlib.ExitStack() as closing:
        names = closing.enter_context(nameserver())
        made = Installation(tmp_path / "data", MAILSTEAD_DNS=f"127.0.0.1:{names.port}")
        closing.callback(made.destroy)
        authority = closing.enter_context(pebble(program("pebble"), tmp_path, dns=names.port, http=made.ports["HTTP"]))
        tmp_path.chmod(0o755)
        made.environ |= {"MAILSTEAD_ACME": authority.directory, "MAILSTEAD_TLS_CA": str(authority.trust)}
        made.start()
        made.wait_ready()
        assert shown(made) == f"{HOST}+localhost", "self-signed"
        # What beat does every few minutes.
        call = [sys.executable, "-m", "celery", "-A", "mailcore.celery", "--quiet", "call", "mailcore.certificates"]
        subprocess.run(call, cwd=ROOT, env=made.environ, check=True, capture_output=True, timeout=60)
        until(lambda: shown(made) == HOST, 60)
        until(lambda: shown(made, name="mta-sts.example.test") == "mta-sts.example.test", 60)
        issuer = certificate(made, "SMTP", HOST).issuer
        assert issuer.rfc4514_string().startswith("CN=Pebble Intermediate")
        _, *issued = json.loads(made.run("certificate", "list", "--json").stdout)
        assert {each["name"]: each["names"] for each in issued} == {
            "example.test": ["mta-sts.example.test"],
            HOST: [HOST],
        }
        assert x509.load_pem_x509_certificate(authority.root()).subject != issuer
        records = [
            each["value"] for each in json.loads(made.run("certificate", "show", HOST, "--json").stdout)["records"]
        ]
        assert records[0] == f"3 1 1 {material.spki_digest(certificate(made, 'SMTP', HOST))}"
        done = made.run("certificate", "renew", HOST, "--next-key")
        assert done.returncode == 0, done.stderr
        until(lambda: records[1] == f"3 1 1 {material.spki_digest(certificate(made, 'IMAPS', HOST))}", 60)
        done = made.run("certificate", "issue", "example.test", "--json")
        assert json.loads(done.stdout) == [{"name": "example.test", "names": ["mta-sts.example.test"], "error": ""}]
        findings = json.loads(made.run("doctor", "--json").stdout)
        mine = [each for each in findings if each["check"] == "certificate"]
        assert [each["level"] for each in mine] == ["ok"], mine
