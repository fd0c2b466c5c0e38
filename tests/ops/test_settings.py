"""Reading and showing settings."""

from __future__ import annotations

import errno
import ipaddress
import json
import os
from pathlib import Path
from typing import Any

import pytest

from mailcore import conf
from mailcore.errors import ConfigError
from mailcore.management.commands import showconfig
from mailcore.supervise import setup
from tests.ops.installation import Installation
from webmail import env


def test_every_setting_has_a_working_default() -> None:
    settings = conf.load({})
    assert settings.smtp_port == 2525
    assert settings.bind == "127.0.0.1"
    assert settings.plaintext_auth == "loopback"
    assert settings.data == Path("data").absolute()


def test_values_are_parsed_and_an_empty_one_is_the_default() -> None:
    settings = conf.load(
        {
            "MAILSTEAD_DNS": "127.0.0.1:5353, [::1]:53",
            "MAILSTEAD_OUT_ALLOW": "127.0.0.0/8,10.1.2.3/16",
            "MAILSTEAD_SMARTHOST": "relay.test:587;ann:secret:with:colons",
            "MAILSTEAD_IMAP_PORT": "",
            "MAILSTEAD_DEBUG": "on",
        }
    )
    assert settings.dns == (("127.0.0.1", 5353), ("::1", 53))
    assert settings.out_allow == (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("10.1.0.0/16"))
    assert settings.smarthost == conf.Smarthost("relay.test", 587, "ann", "secret:with:colons")
    assert settings.imap_port == 2143
    assert settings.debug is True


def test_a_setting_is_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from a file\n")
    assert conf.load({"MAILSTEAD_SECRET_KEY_FILE": str(tmp_path / "key")}).secret_key == "from a file"


def test_what_is_wrong_with_a_setting_is_said_in_plain_words() -> None:
    for name, value, words in (
        ("MAILSTEAD_SMTP_PORT", "smtp", "a port is a number from 0 to 65535"),
        ("MAILSTEAD_CHECKS", "clamd=127.0.0.1:3310", "clamd is not asked yet: set on or off"),
        ("MAILSTEAD_CHECKS", "yes", "must be on or off"),
    ):
        with pytest.raises(ConfigError) as refused:
            conf.load({name: value})
        assert str(refused.value) == f"{name}: {value!r} cannot be used: {words}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAILSTEAD_SMTP_PORT", "70000"),
        ("MAILSTEAD_SMTP_PORT", "x"),
        ("MAILSTEAD_PROCESSES", "0"),
        ("MAILSTEAD_CHECKS", "rspamd=http://127.0.0.1:11334"),
        ("MAILSTEAD_CHECKS", "on,off"),
        ("MAILSTEAD_CHECKS", "nonsense"),
        ("MAILSTEAD_PLAINTEXT_AUTH", "sometimes"),
        ("MAILSTEAD_OUT_ALLOW", "everything"),
        ("MAILSTEAD_DNS", "127.0.0.1"),
        ("MAILSTEAD_DEBUG", "perhaps"),
        ("MAILSTEAD_SECRET_KEY_FILE", "/nowhere/key"),
        ("MAILSTEAD_ACME_EAB", "kid-without-a-secret"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        conf.load({name: value})


def test_a_secret_that_cannot_be_used_is_not_shown() -> None:
    for name in ("MAILSTEAD_ACME_EAB", "MAILSTEAD_SMARTHOST"):
        with pytest.raises(ConfigError, match=name) as caught:
            conf.load({name: "kid:hidden!"})
        assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("secret", "masked"),
    [
        ("", "-"),
        ("just a key", "***"),
        ("postgresql://ann:secret@db.test:5432/mail", "postgresql://ann:***@db.test:5432/mail"),
        ("postgresql:///mail?host=/run&password=secret", "postgresql:///mail?host=/run&password=***"),
        ("redis://:secret@127.0.0.1/0", "redis://:***@127.0.0.1/0"),
        ("unix://:secret@/run/valkey.sock?db=0", "unix://:***@/run/valkey.sock?db=0"),
        ("postgresql://db.test/mail", "postgresql://db.test/mail"),
    ],
)
def test_secrets_are_masked(secret: str, masked: str) -> None:
    assert showconfig.masked(secret) == masked


def test_showconfig_prints_every_setting_and_no_secret(tmp_path: Path) -> None:
    made = Installation(
        tmp_path / "data",
        DATABASE_URL="postgresql://ann:hidden@db.test/mail",
        MAILSTEAD_SMARTHOST="relay.test:25;ann:hidden",
        MAILSTEAD_SECRET_KEY="hidden",
    )
    table = made.run("showconfig")
    rows = {row["variable"]: row for row in json.loads(made.run("showconfig", "--json").stdout)}
    assert table.returncode == 0
    assert "hidden" not in table.stdout + json.dumps(rows)
    assert rows["DATABASE_URL"]["value"] == "postgresql://ann:***@db.test/mail"
    assert rows["MAILSTEAD_SMARTHOST"]["value"] == "relay.test:25;ann:***"
    assert rows["MAILSTEAD_BIND"] | {"meaning": ""} == {
        "variable": "MAILSTEAD_BIND",
        "value": "127.0.0.1",
        "source": "default",
        "meaning": "",
    }


@pytest.mark.parametrize(
    ("host", "domain"),
    [
        ("mail.example.org", "example.org"),
        ("mx.example.co.uk", "example.co.uk"),
        ("example.org", "example.org"),
        ("host7.example.org", "host7.example.org"),
        ("laptop", "mailstead.localhost"),
        ("localhost", "mailstead.localhost"),
        ("box.lan", "mailstead.localhost"),
        ("Mail.Example.ORG.", "example.org"),
    ],
)
def test_the_first_domain_follows_from_the_host_name(host: str, domain: str) -> None:
    assert setup.first_domain(host) == domain


def test_the_installation_key_is_made_once_and_for_its_owner(tmp_path: Path) -> None:
    settings = conf.load({"MAILSTEAD_DATA": str(tmp_path / "data")})
    with pytest.raises(ConfigError, match="there is no directory"):
        env.installation_key(settings)
    (tmp_path / "data").mkdir()
    key = env.installation_key(settings)
    assert len(key) >= 40
    assert env.installation_key(settings) == key
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["secret.key"]
    assert (tmp_path / "data" / "secret.key").stat().st_mode & 0o777 == 0o600


def test_where_no_key_can_be_written_that_is_what_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(ConfigError, match=r"cannot write .*secret\.key: Read-only file system"):
        env.installation_key(conf.load({"MAILSTEAD_DATA": str(tmp_path)}))


def test_a_database_address_becomes_djangos_settings() -> None:
    made = env.database("postgresql://ann:p%40ss@db.test:6432/mail?sslmode=require")
    assert made["NAME"] == "mail"
    assert made["PASSWORD"] == "p@ss"
    assert made["PORT"] == "6432"
    assert made["OPTIONS"]["sslmode"] == "require"
    assert env.database("postgresql://ann@/mail?host=%2Frun%2Fpg")["HOST"] == "/run/pg"
