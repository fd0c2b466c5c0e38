"""`manage.py certificate`, and the page that an authority asks for."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client

from mailcore import db, tls
from mailcore.conf import conf
from mailcore.management.commands import certificate
from mailcore.store import certificates
from tests.certificates.test_tls import key_of
from tests.delivery.authority import Authority, Issued

pytestmark = pytest.mark.django_db

HOST = "mail.example.test"
Files = Callable[[Issued], tuple[str, str]]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    ours = replace(conf, data=tmp_path)
    tls.ensure_certificate(ours)
    monkeypatch.setattr(certificate, "conf", ours)

    def write(issued: Issued) -> tuple[str, str]:
        (tmp_path / "cert").write_bytes(issued.pem())
        (tmp_path / "key").write_bytes(key_of(issued))
        return str(tmp_path / "cert"), str(tmp_path / "key")

    return write


def run(*arguments: str) -> str:
    output = StringIO()
    call_command("certificate", *arguments, stdout=output, stderr=StringIO())
    return output.getvalue()


def refused(*arguments: str) -> str:
    with pytest.raises(CommandError) as caught:
        run(*arguments)
    return str(caught.value)


def test_a_certificate_is_imported_shown_exported_and_removed(files: Files, tmp_path: Path) -> None:
    issued = Authority().issue(HOST, "imap.example.test")
    cert, key = files(issued)
    run("import", HOST, "--cert", cert, "--key", key)
    default, mine = json.loads(run("list", "--json"))
    assert default["source"] == "self-signed"
    assert mine["name"] == HOST and mine["names"] == [HOST, "imap.example.test"] and mine["source"] == "imported"
    shown = json.loads(run("show", HOST, "--json"))
    assert [record["name"] for record in shown["records"]] == [f"_25._tcp.{HOST}", "_25._tcp.imap.example.test"]
    assert "PRIVATE" not in json.dumps(shown) and "PRIVATE" not in run("show", HOST)
    run("export", HOST, "--cert", str(tmp_path / "out.pem"), "--key", str(tmp_path / "out.key"))
    assert (tmp_path / "out.pem").read_bytes() == issued.pem()
    assert (tmp_path / "out.key").read_bytes() == key_of(issued)
    assert stat.S_IMODE((tmp_path / "out.key").stat().st_mode) == 0o600
    run("remove", HOST)
    assert len(json.loads(run("list", "--json"))) == 1


def test_what_cannot_be_used_is_refused_in_one_line(files: Files, tmp_path: Path) -> None:
    authority = Authority()
    cert, key = files(authority.issue(HOST))
    assert "is not for other.test, only for mail.example.test" in refused(
        "import", "other.test", "--cert", cert, "--key", key
    )
    assert "No such file" in refused("import", HOST, "--cert", cert + "?", "--key", key)
    (tmp_path / "other").write_bytes(key_of(authority.issue(HOST)))
    assert "does not belong" in refused("import", HOST, "--cert", cert, "--key", str(tmp_path / "other"))
    cert, key = files(authority.issue(HOST, days=-1))
    assert "expired" in refused("import", HOST, "--cert", cert, "--key", key)
    (tmp_path / "cert").write_bytes(b"x" * 300_000)
    assert "too large" in refused("import", HOST, "--cert", cert, "--key", key)
    for verb in ("show", "remove"):
        assert "There is no certificate" in refused(verb, HOST)
    for verb in ("issue", "renew"):
        assert "MAILSTEAD_ACME" in refused(verb, HOST)
    assert "no host name" in refused("show", "a b")


def test_an_authority_is_answered_whatever_host_it_asks_for(client: Client) -> None:
    with db.django_transaction() as tx:
        db.run_sync(certificates.publish_challenge(tx, "abc_DEF-123", "abc_DEF-123.thumb"))
    answer = client.get("/.well-known/acme-challenge/abc_DEF-123", headers={"host": "mta-sts.example.test"})
    assert answer.status_code == 200 and answer.content == b"abc_DEF-123.thumb"
    for token in ("abc", "abc_DEF-12%33%00", "x" * 201, "..", "%27"):
        assert client.get(f"/.well-known/acme-challenge/{token}").status_code == 404, token
    assert client.post("/.well-known/acme-challenge/abc_DEF-123").status_code == 405
