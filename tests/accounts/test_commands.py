"""The commands `domain`, `account`, `alias` and `apppassword`: what they do, print and refuse."""

from __future__ import annotations

import argparse
import importlib
import io
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dns.resolver
import pytest
from django.core.management import CommandError, call_command

from accounts import passwords, people
from accounts.models import Account, Domain
from mailcore import db, doctor, provision
from mailcore.conf import conf
from mailcore.management import base
from mailcore.store import mailboxes, quota

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ROOT / "mailcore" / "management" / "commands"


def run(*arguments: str) -> str:
    """A command's standard output."""
    out = io.StringIO()
    call_command(*arguments, stdout=out, stderr=io.StringIO())
    return out.getvalue()


def refused(*arguments: str) -> str:
    with pytest.raises(CommandError) as error:
        run(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def example(db: None) -> None:
    run("domain", "add", "example.org")


@pytest.mark.django_db
def test_a_domain_is_added_listed_shown_with_its_dns_records_and_removed() -> None:
    assert "manage.py domain add" in run("domain", "list")
    assert "Domain example.org added." in run("domain", "add", "Example.ORG")
    assert json.loads(run("domain", "list", "--json")) == [
        {"name": "example.org", "active": True, "accounts": 0, "aliases": 0, "groups": 0}
    ]
    shown = json.loads(run("domain", "show", "example.org", "--json"))
    records = {(each["name"], each["type"]): each["value"] for each in shown["records"]}
    assert records["example.org", "MX"] == "10 mx.example.test."
    assert records["example.org", "TXT"].startswith("v=spf1 ")
    assert records["_dmarc.example.org", "TXT"].startswith("v=DMARC1; ")
    assert records["_smtp._tls.example.org", "TXT"] == "v=TLSRPTv1; rua=mailto:tls-reports@example.org"
    assert records["_imaps._tcp.example.org", "SRV"] == "0 1 2993 mx.example.test."
    assert ("_mta-sts.example.org", "TXT") not in records
    keys = [value for (name, _), value in records.items() if name.endswith("._domainkey.example.org")]
    assert {value.split(";")[1].strip() for value in keys} == {"k=rsa", "k=ed25519"}
    text = run("domain", "show", "example.org")
    assert "example.org. IN MX 10 mx.example.test." in text and max(map(len, text.split('"'))) <= 255
    run("domain", "remove", "example.org")
    assert not Domain.objects.exists()


def test_an_account_comes_with_mailboxes_quota_and_a_generated_password(example: None) -> None:
    printed = run("account", "add", "Alice@example.org", "--name", "Alice", "--quota", "5G")
    assert "Account alice@example.org added." in printed
    password = printed.split("Password: ")[1].strip()
    alice = Account.objects.get()
    assert passwords.verify(password, alice.password)
    with db.django_transaction() as tx:
        names = {box.name for box in db.run_sync(mailboxes.all(tx, alice.pk))}
        assert db.run_sync(quota.get(tx, alice.pk)).limit == 5 << 30
    assert names == {"INBOX", "Drafts", "Sent", "Archive", "Junk", "Trash"}


def test_a_given_password_is_not_repeated(example: None) -> None:
    out, err = io.StringIO(), io.StringIO()
    call_command("account", "add", "alice@example.org", "--password", "battery staple", stdout=out, stderr=err)
    assert "battery" not in out.getvalue() + err.getvalue()
    assert Account.objects.get().check_password("battery staple")


@pytest.mark.parametrize("weak", ["", "a", "password", "12345678", "alice@example.org", "two\tthree four"])
def test_a_weak_password_is_refused_whichever_way_it_comes(
    example: None, monkeypatch: pytest.MonkeyPatch, weak: str
) -> None:
    def piped(*arguments: str) -> str:
        monkeypatch.setattr(sys, "stdin", io.StringIO(weak + "\n"))
        return refused(*arguments, "--password-stdin")

    def typed(*arguments: str) -> str:
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
        monkeypatch.setattr("getpass.getpass", lambda _: weak)
        return refused(*arguments)

    add, change = ("account", "add", "alice@example.org"), ("account", "passwd", "alice@example.org")
    said = {refused(*add, "--password", weak), piped(*add)}
    assert not Account.objects.exists()
    run(*add, "--password", "battery staple")
    said |= {refused(*change, "--password", weak), piped(*change), typed(*change)}
    assert len(said) == 1 and said.pop().endswith("Nothing was changed; --generate makes a good one.")
    assert Account.objects.get().check_password("battery staple")


def test_a_password_comes_from_standard_input(example: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("correct horse \nsecond line\n"))
    run("account", "add", "alice@example.org", "--password-stdin")
    assert Account.objects.get().check_password("correct horse ")


def test_an_account_is_listed_shown_disabled_enabled_and_removed_with_its_mail(example: None) -> None:
    run("account", "add", "alice@example.org", "--admin")
    run("account", "add", "bob@example.org", "--password", "battery staple")
    run("alias", "add", "sales@example.org", "bob@example.org")
    listed = json.loads(run("account", "list", "--json"))
    assert [(row["address"], row["admin"], row["active"]) for row in listed] == [
        ("alice@example.org", True, True),
        ("bob@example.org", False, True),
    ]
    assert json.loads(run("account", "list", "Example.org", "--json")) == listed
    run("account", "disable", "bob@example.org")
    shown = json.loads(run("account", "show", "BOB@example.org", "--json"))
    assert shown["active"] is False and shown["aliases"] == ["sales@example.org"] and shown["messages"] == 0
    assert shown["two_factor"] is False and shown["quota_bytes"] is None and shown["has_password"] is True
    run("account", "enable", "bob@example.org")
    assert "no limit" in run("account", "show", "bob@example.org")
    bob = people.get_account("bob@example.org").pk
    with pytest.raises(CommandError, match=r"All mail of bob@example\.org will be lost\. .*--yes"):
        run("account", "remove", "bob@example.org")
    assert "sales@example.org" in run("account", "remove", "bob@example.org", "--yes")
    with db.django_transaction() as tx:
        assert db.run_sync(mailboxes.all(tx, bob)) == []


@pytest.mark.parametrize("verb", [("disable",), ("remove", "--yes")])
def test_whoever_takes_the_last_administrator_away_hears_of_it(example: None, verb: tuple[str, ...]) -> None:
    run("account", "add", "alice@example.org", "--admin")
    run("account", "add", "carol@example.org", "--admin")
    run("account", "add", "bob@example.org")
    said = []
    for who in ("carol", "bob", "alice"):
        err = io.StringIO()
        call_command("account", verb[0], f"{who}@example.org", *verb[1:], stdout=io.StringIO(), stderr=err)
        said.append(err.getvalue())
    assert said[:2] == ["", ""] and "No administrator can sign in now: `manage.py account add" in said[2]


@pytest.mark.parametrize("verb", [("add", "nodot"), ("alias", "add", "nodot", "example.org")])
def test_a_domain_that_no_mail_can_come_for_is_refused(example: None, verb: tuple[str, ...]) -> None:
    assert "nodot has no dot" in refused("domain", *verb)
    assert Domain.objects.count() == 1


def test_a_question_that_is_not_answered_changes_nothing(
    example: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("account", "add", "alice@example.org")
    for answer in ("", "no\n", "y\n"):  # nothing, as after Ctrl-D
        monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
        monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
        with pytest.raises(CommandError, match=r"^\n?Nothing was changed\.$"):
            run("account", "remove", "alice@example.org")
        assert "All mail of alice@example.org will be lost." in capsys.readouterr().out
    assert Account.objects.exists()


def test_a_password_is_changed(example: None) -> None:
    run("account", "add", "alice@example.org", "--password", "correct horse")
    new = run("account", "passwd", "alice@example.org", "--generate").split("Password: ")[1].strip()
    assert Account.objects.get().check_password(new)
    run("account", "passwd", "alice@example.org", "--password", "battery staple")
    assert Account.objects.get().check_password("battery staple")


def test_aliases_and_app_passwords_have_their_commands(example: None) -> None:
    run("account", "add", "alice@example.org")
    run("account", "add", "bob@example.org")
    run("alias", "add", "sales@example.org", "alice@example.org", "out@elsewhere.example")
    assert json.loads(run("alias", "list", "--json")) == [
        {"address": "sales@example.org", "targets": ["alice@example.org", "out@elsewhere.example"]}
    ]
    assert "leads to alice@example.org." in run("alias", "remove", "sales@example.org", "out@elsewhere.example")
    assert run("alias", "remove", "Sales@example.org") == "Alias sales@example.org removed.\n"
    assert "No aliases: " in run("alias", "list")
    assert "No alias sales@example.org: " in run("alias", "list", "sales@example.org")
    secret = run("apppassword", "add", "alice@example.org", "--label", "phone").strip()
    assert len(secret.split("-")) == 7
    rows = json.loads(run("apppassword", "list", "alice@example.org", "--json"))
    assert [(row["label"], row["last_used_at"]) for row in rows] == [("phone", None)]
    assert secret not in run("apppassword", "list", "alice@example.org")
    assert rows[0]["protocols"] == ["imap", "pop3", "smtp", "jmap"]
    run("apppassword", "add", "alice@example.org", "--label", "printer", "--only", "SMTP, imap")
    assert json.loads(run("apppassword", "list", "alice@example.org", "--json"))[1]["protocols"] == ["imap", "smtp"]
    assert "(printer) of alice@example.org removed." in run(
        "apppassword", "remove", "alice@example.org", "--label", "printer"
    )
    number = str(rows[0]["number"])
    assert "no app password" in refused("apppassword", "remove", "bob@example.org", number)
    assert (
        run("apppassword", "remove", "alice@example.org", number)
        == f"App password {number} (phone) of alice@example.org removed.\n"
    )
    assert json.loads(run("apppassword", "list", "alice@example.org", "--json")) == []


def test_what_was_removed_or_settled_is_named(example: None) -> None:
    run("domain", "alias", "add", "example.net", "example.org")
    assert run("domain", "alias", "remove", "Example.NET") == "example.net no longer answers as example.org.\n"
    run("account", "add", "alice@example.org")
    run("group", "add", "team@example.org", "alice@example.org")
    run("sendas", "add", "alice@example.org", "example.org")
    taken = run("sendas", "remove", "alice@example.org", "EXAMPLE.org")
    assert taken == "alice@example.org may no longer send as any address of example.org.\n"
    assert run("group", "remove", "Team@example.org") == "Group team@example.org removed.\n"
    settled = run("domain", "policy", "example.org", "require-tls=on", "plus-tags=default").splitlines()
    assert [line.split()[:3] for line in settled[1:]] == [
        ["plus-tags", "on", "default"],
        ["require-tls", "on", "domain"],
    ]
    assert len(run("domain", "policy", "example.org").splitlines()) > 10
    run("domain", "add", "bücher.example")
    assert run("domain", "remove", "BÜCHER.example") == "Domain xn--bcher-kva.example removed.\n"


@pytest.mark.django_db
def test_an_app_password_without_a_label_says_so(example: None) -> None:
    run("account", "add", "alice@example.org", "--generate")
    said = io.StringIO()
    call_command("apppassword", "add", "alice@example.org", stdout=io.StringIO(), stderr=said)
    assert "It has no label" in said.getvalue()
    said = io.StringIO()
    call_command("apppassword", "add", "alice@example.org", "--label", "phone", stdout=io.StringIO(), stderr=said)
    assert "no label" not in said.getvalue()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["domain", "add", "example.org"], "hosted here already"),
        (["domain", "show", "example.net"], "manage.py domain add example.net"),
        (["domain", "alias"], "domain alias add|list|remove: say which. `--help` after it explains it."),
        (["domain", "dkim"], "domain dkim list|rotate: say which. `--help` after it explains it."),
        (["domain", "alias", "fly"], "domain alias: argument ACTION: invalid choice: 'fly'"),
        (["domain", "policy", "example.org", "require_tls=on"], "no policy 'require_tls': is require-tls meant?"),
        (["domain", "policy", "example.org", "=on"], "no policy '': without any, `policy` shows all there are"),
        (["group", "add", "x@example.org", "--members-from", "/"], "cannot be read from /: Is a directory."),
        (["reindex", "ghost@example.org"], "There is no account ghost@example.org"),
        (["reindex", "ghost@example.org", "--all"], "one of the two"),
        (["suppression", "add", ""], "'' is neither an address nor a domain"),
        (["trace"], "Nothing is known of any message yet."),
        (["trace", "--since", "2h"], "Nothing is known of any message in that time."),
        (["account", "add"], "account add: the following arguments are required: address. See `"),
        (["account", "add", "b@example.org", "--quota", "5X"], "'5X' is not a size such as 500M, 5G or none. See `"),
        (["account", "list", "example.org", "x"], "account: unrecognized arguments: x. See `"),
        (["apppassword", "remove", "alice@example.org"], "one of the arguments number --label is required"),
        (["apppassword", "remove", "alice@example.org", "phone"], "'phone' is not a number from 1 on"),
        (["domain", "remove", "example.org"], "still has 1 account"),
        (["account", "add", "x@example.net"], "manage.py domain add example.net"),
        (["account", "add", "alice@example.org"], "already"),
        (["account", "show", "ghost@example.org"], "There is no account"),
        (["account", "passwd", "ghost@example.org", "--generate"], "There is no account"),
        (["account", "remove", "ghost@example.org"], "There is no account"),
        (["alias", "add", "alice@example.org", "x@y.example"], "There is an account"),
        (["alias", "remove", "ghost@example.org"], "There is no alias"),
        (["apppassword", "add", "ghost@example.org"], "There is no account"),
        (["apppassword", "add", "alice@example.org", "--only", "imap,web"], "'web' is no protocol of app passwords"),
        (["apppassword", "add", "alice@example.org", "--only", ","], "at least one protocol"),
        (["apppassword", "remove", "alice@example.org", "--label", "x"], "no app password"),
    ],
)
def test_what_cannot_be_done_is_one_clear_line(example: None, arguments: list[str], why: str) -> None:
    run("account", "add", "alice@example.org")
    assert why in refused(*arguments)


@pytest.mark.django_db
def test_an_account_without_mailboxes_is_never_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    run("domain", "add", "example.org")

    async def broken(*_: Any) -> None:
        raise RuntimeError("the store failed")

    monkeypatch.setattr(provision.store, "create", broken)
    with pytest.raises(RuntimeError):
        provision.add_account("alice@example.org")
    assert not Account.objects.exists()


@pytest.mark.parametrize(
    ("written", "octets"),
    [("5G", 5 << 30), ("500M", 500 << 20), ("1.5k", 1536), ("1048576", 1 << 20), ("2GiB", 2 << 30), ("none", None)],
)
def test_sizes_are_written_as_people_write_them(written: str, octets: int | None) -> None:
    assert base.size(written) == octets


@pytest.mark.parametrize("written", ["", "G", "-1G", "0", "five", "1e99", "nan", "inf", "5X"])
def test_what_is_no_size_is_refused(written: str) -> None:
    with pytest.raises(base.ArgumentTypeError):
        base.size(written)


@pytest.mark.django_db
def test_dns_records_that_nobody_could_use_are_remarked_upon(monkeypatch: pytest.MonkeyPatch) -> None:
    run("domain", "add", "example.org")
    for hostname, expected in (("localhost", "MAILSTEAD_HOSTNAME"), ("mail.example.org", "")):
        monkeypatch.setattr("mailcore.management.commands.domain.conf", replace(conf, hostname=hostname))
        out, err = io.StringIO(), io.StringIO()
        call_command("domain", "show", "example.org", stdout=out, stderr=err)
        assert expected in err.getvalue() and bool(expected) == bool(err.getvalue())


@pytest.mark.django_db
def test_aliases_and_groups_of_a_domain_are_counted_apart() -> None:
    run("domain", "add", "example.org")
    run("account", "add", "ann@example.org")
    run("alias", "add", "info@example.org", "ann@example.org")
    run("group", "add", "team@example.org", "ann@example.org")
    run("group", "add", "all@example.org", "ann@example.org", "far@far.example")
    (row,) = json.loads(run("domain", "list", "--json"))
    assert (row["accounts"], row["aliases"], row["groups"]) == (1, 1, 2)
    assert "still has 1 account and 1 alias and 2 groups" in refused("domain", "remove", "example.org")


@pytest.mark.django_db
def test_what_an_administrator_suppressed_says_so_to_the_sender_and_to_him() -> None:
    printed = run("suppression", "add", "Bob@far.example", "example.net.", "--days", "3")
    assert printed.startswith("Suppressed for 3 days: Bob@far.example, example.net. Mail for it comes back")
    assert "until it is removed" in run("suppression", "add", "eve@far.example", "--complaint")
    rows = {row["address"]: row for row in json.loads(run("suppression", "list", "--json"))}
    assert rows["example.net"]["reason"] == "an administrator stopped it"
    assert rows["eve@far.example"]["reason"] == "its owner does not want mail from here"


@pytest.mark.parametrize(
    "arguments",
    [
        ["trace", "--limit", "0"],
        ["trace", "--limit", "-1"],
        ["suppression", "list", "--limit", "99999999999"],
        ["account", "add", "x@example.org", "--max-messages", "-3"],
    ],
)
def test_a_count_is_a_number_from_one_on(arguments: list[str]) -> None:
    assert "is not a number from 1 on" in refused(*arguments)


@pytest.mark.django_db
def test_doctor_asks_the_dns_only_for_domains_that_can_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Resolver:
        def resolve(self, name: str, *_: Any, **__: Any) -> None:
            asked.append(name)
            raise dns.resolver.NXDOMAIN

    monkeypatch.setattr(doctor, "_resolver", lambda _: Resolver())
    for name in ("mailstead.localhost", "corp.test", "example.org"):
        run("domain", "add", name)
    (found,) = doctor._dns(conf)
    assert asked and all(name.endswith("example.org") for name in asked)
    assert found.text.startswith("example.org: no MX, no SPF, no DKIM, no DMARC") and len(found.details) == len(asked)
    assert "example.org MX is missing; publish: 10 mx.example.test." in found.details
    text = run("doctor", "--domain", "Example.ORG.")
    assert "hint   dns: example.org: no MX" in text and "-> example.org MX is missing; publish: 10 mx." in text
    assert len(json.loads(run("doctor", "--domain", "corp.test", "--json"))[0]["details"]) >= 8
    assert "not hosted here" in refused("doctor", "--domain", "nowhere.example")


def test_doctor_remarks_upon_settings_that_do_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILSTEAD_IMAP_PORTS", "143")
    monkeypatch.setenv("MAILSTEAD_SECRET_KEY_FILE", "/nowhere")
    texts = [finding.text for finding in doctor._settings(conf)]
    assert "MAILSTEAD_IMAP_PORTS is not a setting" in texts and not any("SECRET" in text for text in texts)


@pytest.mark.parametrize("name", sorted(path.stem for path in COMMANDS.glob("[a-z]*.py")))
def test_no_argument_is_called_as_one_that_django_reads_itself(name: str) -> None:
    command = importlib.import_module(f"mailcore.management.commands.{name}").Command()
    parser = command.create_parser("manage.py", name)
    # What Django reads of every command, before the command runs.
    reserved = {action.dest for action in parser._actions if action.dest in {"settings", "pythonpath", "traceback"}}
    assert reserved

    def below(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for inner in action.choices.values():
                    yield inner
                    yield from below(inner)

    for inner in below(parser):
        assert not reserved & {action.dest for action in inner._actions}, inner.prog
