"""What mail programs are told about our servers: Thunderbird's clientConfig and Outlook's autodiscover."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import pytest
from django.test import Client

from accounts import people
from mailcore.conf import conf
from webmail.views import autoconfig

pytestmark = pytest.mark.django_db

ASK = (
    '<?xml version="1.0" encoding="utf-8"?>'
    '<Autodiscover xmlns="http://schemas.microsoft.com/exchange/autodiscover/outlook/requestschema/2006">'
    "<Request><EMailAddress>{}</EMailAddress><AcceptableResponseSchema>"
    "http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a"
    "</AcceptableResponseSchema></Request></Autodiscover>"
)
ANSWER = "{http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a}"
PAGES = ("/mail/config-v1.1.xml", "/.well-known/autoconfig/mail/config-v1.1.xml")


@pytest.fixture(autouse=True)
def domain(db: None) -> None:
    people.add_domain("home.example")
    people.add_domain("bücher.example")
    people.add_account("ann@home.example", "correct horse")


def read(client: Client, path: str, host: str = "mail.host.example", **query: str) -> ElementTree.Element | None:
    answer = client.get(path, query, headers={"host": host})
    if answer.status_code == 404:
        return None
    assert answer.status_code == 200 and answer["Content-Type"] == "text/xml; charset=utf-8"
    return ElementTree.fromstring(answer.content)


def ask(client: Client, body: str | bytes, path: str = "/autodiscover/autodiscover.xml") -> ElementTree.Element:
    answer = client.post(path, body, content_type="text/xml")
    assert answer.status_code == 200
    return ElementTree.fromstring(answer.content)


@pytest.mark.parametrize("page", PAGES)
def test_a_program_that_says_the_address_is_told_servers_ports_and_how_to_log_in(client: Client, page: str) -> None:
    found = read(client, page, emailaddress="ann@home.example")
    assert found is not None and (found.tag, found.get("version")) == ("clientConfig", "1.1")
    assert found.findtext("emailProvider/domain") == "home.example"
    told = [
        (server.tag, server.get("type"), server.findtext("port"), server.findtext("socketType"))
        for server in found.findall("emailProvider/*[@type]")
    ]
    assert told == [
        ("incomingServer", "imap", str(conf.imaps_port), "SSL"),
        ("incomingServer", "imap", str(conf.imap_port), "STARTTLS"),
        ("outgoingServer", "smtp", str(conf.submissions_port), "SSL"),
        ("outgoingServer", "smtp", str(conf.submission_port), "STARTTLS"),
    ]
    for server in found.findall("emailProvider/*[@type]"):
        assert server.findtext("hostname") == conf.hostname
        assert server.findtext("username") == "%EMAILADDRESS%"
        assert server.findtext("authentication") == "password-cleartext"


def test_the_domain_may_also_be_the_one_that_is_asked(client: Client) -> None:
    for host in ("home.example", "autoconfig.home.example", "AutoConfig.Home.Example:8000"):
        found = read(client, PAGES[0], host)
        assert found is not None and found.findtext("emailProvider/domain") == "home.example"


def test_a_domain_in_letters_beyond_ascii_is_found_by_either_name(client: Client) -> None:
    for address in ("x@bücher.example", "x@XN--BCHER-KVA.example"):
        found = read(client, PAGES[0], emailaddress=address)
        assert found is not None and found.findtext("emailProvider/domain") == "xn--bcher-kva.example"


def test_who_asks_cannot_tell_an_address_that_exists_from_one_that_does_not(client: Client) -> None:
    answers = {
        client.get(PAGES[0], {"emailaddress": f"{name}@home.example"}).content
        for name in ("ann", "nobody", "%00", "<b>", "x" * 900)
    }
    assert len(answers) == 1
    posts = {
        client.post(
            "/autodiscover/autodiscover.xml", ASK.format(f"{name}@home.example"), content_type="text/xml"
        ).content.replace(name.encode(), b"")
        for name in ("ann", "nobody")
    }
    assert len(posts) == 1


@pytest.mark.parametrize(
    "address", ["ann@elsewhere.example", "ann", "@", "", "a@" + "b." * 2000, "a@\0", "a@[127.0.0.1]"]
)
def test_nothing_is_told_about_other_domains(client: Client, address: str) -> None:
    assert read(client, PAGES[0], emailaddress=address) is None
    assert read(client, PAGES[0], host="[::1]:8000", emailaddress=address) is None


def test_a_domain_that_is_switched_off_has_no_settings(client: Client) -> None:
    from accounts.models import Domain

    Domain.objects.filter(name="home.example").update(is_active=False)
    assert read(client, PAGES[0], emailaddress="ann@home.example") is None


def test_ports_that_are_off_are_not_offered() -> None:
    left = autoconfig.services(replace(conf, imap_port=0, submission_port=0))
    assert [(each.protocol, each.encryption) for each in left] == [("imap", "SSL"), ("smtp", "SSL")]


@pytest.mark.parametrize("path", ["/autodiscover/autodiscover.xml", "/Autodiscover/Autodiscover.xml"])
def test_outlook_is_told_the_same(path: str) -> None:
    client = Client(enforce_csrf_checks=True)
    found = ask(client, ASK.format("ann@home.example"), path)
    protocols = found.findall(f".//{ANSWER}Protocol")
    told = [[one.findtext(ANSWER + name) for name in ("Type", "Server", "Port", "Encryption")] for one in protocols]
    assert told == [
        ["IMAP", conf.hostname, str(conf.imaps_port), "SSL"],
        ["IMAP", conf.hostname, str(conf.imap_port), "TLS"],
        ["SMTP", conf.hostname, str(conf.submissions_port), "SSL"],
        ["SMTP", conf.hostname, str(conf.submission_port), "TLS"],
    ]
    assert {one.findtext(ANSWER + "LoginName") for one in protocols} == {"ann@home.example"}


def test_what_outlook_quotes_is_escaped(client: Client) -> None:
    found = ask(client, ASK.format('"&lt;/LoginName>&amp;"@home.example'))
    assert found.findtext(f".//{ANSWER}LoginName") == '"</LoginName>&"@home.example'


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (ASK.format("ann@elsewhere.example"), "603"),
        (ASK.format("no address"), "600"),
        (ASK.format(""), "600"),
        ("", "600"),
        ("<unfinished", "600"),
        (b"\xff\xfe\x00", "600"),
        ("<a/>" + " " * autoconfig.QUESTION_LIMIT, "600"),
        ("<a>" * 5000, "600"),
        ("<a>" * 2000 + "</a>" * 2000, "600"),
        (f'<!DOCTYPE a [<!ENTITY b "{"c" * 99}">]><a><EMailAddress>&b;@home.example</EMailAddress></a>', "600"),
    ],
)
def test_a_question_without_an_answer_gets_an_error_that_outlook_knows(
    client: Client, body: str | bytes, code: str
) -> None:
    assert ask(client, body).findtext(".//{*}ErrorCode") == code


def test_other_methods_are_refused(client: Client) -> None:
    assert client.post(PAGES[0]).status_code == 405
    assert client.get("/autodiscover/autodiscover.xml").status_code == 405


def test_under_another_name_of_a_domain_people_log_in_by_their_own_address(client: Client) -> None:
    people.add_domain_alias("second.example", "home.example")
    found = read(client, PAGES[0], emailaddress="ann@second.example")
    assert found is not None and found.findtext("emailProvider/domain") == "second.example"
    users = {server.findtext("username") for server in found.findall("emailProvider/*[@type]")}
    assert users == {"%EMAILLOCALPART%@home.example"}
    answer = ask(client, ASK.format("Ann@second.example"))
    assert {each.text for each in answer.iter(f"{ANSWER}LoginName")} == {"Ann@home.example"}


def test_answers_may_be_kept_and_are_the_same_for_everybody(client: Client) -> None:
    """Of an address that exists, one that does not, and another time: to the octet, headers included."""
    told = [client.get(PAGES[0], {"emailaddress": each}) for each in ("ann@home.example", "nobody@home.example")]
    assert {each["Cache-Control"] for each in told} == {"public, max-age=3600"}
    assert told[0].content == told[1].content and told[0].headers.keys() == told[1].headers.keys()
    assert "Set-Cookie" not in told[0] and "Vary" not in told[0]
    elsewhere = client.get(PAGES[0], {"emailaddress": "x@elsewhere.example"})
    assert (elsewhere.status_code, elsewhere["Cache-Control"]) == (404, "public, max-age=300")
    posted = client.post("/autodiscover/autodiscover.xml", ASK.format("ann@home.example"), content_type="text/xml")
    assert posted["Cache-Control"] == "no-store", "the address is in it"
