"""Arguments that mean nothing are said to, in one line, whatever they are."""

from __future__ import annotations

import pytest
from django.core.management import CommandError

from tests.delivery.world import command

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    "arguments",
    [
        ("queue", "list", "--limit", "-5"),
        ("queue", "list", "\udcff@far.example"),
        ("queue", "hold", "\udcff@far.example"),
        ("route", "add", "bounce", "--recipient", "far.example", "--text", "\udcff"),
        ("route", "remove", "99999999999999999999"),
        ("suppression", "list", "--limit", "-1"),
        ("suppression", "add", "far.example", "--reason", "\udcff"),
        ("tlsreports", "list", "--domain", "\udcff"),
    ],
)
def test_it_is_an_error_in_one_line(arguments: tuple[str, ...]) -> None:
    with pytest.raises(
        CommandError, match=r"^(An argument cannot be used|\w+ list: argument --limit|There is no rule)[^\n]+$"
    ):
        command(*arguments)
