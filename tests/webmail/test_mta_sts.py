"""The MTA-STS policies that we serve are what the sending side of Mailstead, and of others, understands."""

from __future__ import annotations

import io
import json

import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from accounts import people
from mailcore import provision
from mailcore.delivery.tls import mta_sts

pytestmark = pytest.mark.django_db

PATH = "/.well-known/mta-sts.txt"


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command("domain", *arguments, stdout=out)
    return out.getvalue()


def published(name: str) -> dict[tuple[str, str], str]:
    shown = json.loads(run("show", name, "--json"))
    return {(each["name"], each["type"]): each["value"] for each in shown["records"]}


def fetch(client: Client, host: str) -> tuple[int, str]:
    answer = client.get(PATH, headers={"host": host})
    assert answer["Content-Type"].startswith("text/plain")
    return answer.status_code, answer.content.decode()


@pytest.fixture(autouse=True)
def domain() -> None:
    people.add_domain("home.example")


def test_a_domain_asks_for_nothing_until_its_administrator_says_so(client: Client) -> None:
    status, text = fetch(client, "mta-sts.home.example")
    assert status == 200 and "mode: none\r\n" in text
    assert ("_mta-sts.home.example", "TXT") not in published("home.example")


@pytest.mark.parametrize("mode", ["testing", "enforce"])
def test_what_is_settled_is_served_and_its_record_suggested(client: Client, mode: str) -> None:
    run("policy", "home.example", f"mta-sts={mode}")
    status, text = fetch(client, "MTA-STS.home.example:8000")
    assert status == 200
    policy = mta_sts.parse(text.encode())
    assert (policy.mode, tuple(policy.mx)) == (mode, ("mx.example.test",)) and policy.max_age >= 86_400
    records = published("home.example")
    assert records["mta-sts.home.example", "CNAME"] == "mx.example.test."
    assert records["_mta-sts.home.example", "TXT"].startswith("v=STSv1; id=")


def test_the_id_changes_with_the_policy_and_only_then() -> None:
    seen = []
    for mode in ("testing", "testing", "enforce", "testing"):
        run("policy", "home.example", f"mta-sts={mode}")
        seen.append(published("home.example")["_mta-sts.home.example", "TXT"])
    assert seen[0] == seen[1] == seen[3] != seen[2]


def test_another_name_of_a_domain_has_its_policy(client: Client) -> None:
    provision.add_domain_alias("also.example", "home.example")
    run("policy", "home.example", "mta-sts=enforce")
    assert "mode: enforce" in fetch(client, "mta-sts.also.example")[1]
    assert ("_mta-sts.also.example", "TXT") in published("also.example")


@pytest.mark.parametrize(
    "host",
    ["home.example", "mta-sts.elsewhere.example", "mta-sts.", "mta-sts.x" * 60, "mta-sts.home.example.evil"],
)
def test_other_names_have_none(client: Client, host: str) -> None:
    assert fetch(client, host)[0] == 404


def test_nonsense_is_refused_in_words() -> None:
    with pytest.raises(CommandError, match="none, testing or enforce"):
        run("policy", "home.example", "mta-sts=on")
