"""`manage.py showconfig`: every setting, its value and where that comes from; secrets are masked."""

from __future__ import annotations

import os
from dataclasses import Field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.core.management.base import CommandParser

from mailcore.conf import Conf, Smarthost, conf
from mailcore.management import base

MASK = "***"


class Command(base.Command):
    help = "Show every setting: variable, value, where it comes from, meaning. Secrets are masked."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true")

    def handle(self, *args: Any, **options: Any) -> None:
        rows = [row(each) for each in fields(Conf)]
        if options["json"]:
            self.show_json(rows)
        else:
            self.show_rows(rows, "")


def row(each: Field[Any]) -> dict[str, str]:
    """One setting as it is shown."""
    name = each.metadata["env"]
    value = getattr(conf, each.name)
    return {
        "variable": name,
        "value": masked(value) if each.metadata["secret"] else shown(value),
        "source": "environment"
        if os.environ.get(name)
        else name + "_FILE"
        if name + "_FILE" in os.environ
        else "default",
        "meaning": each.metadata["meaning"],
    }


def shown(value: Any) -> str:
    """A value as it would be written in the environment."""
    if value is None or value in ("", ()):
        return "-"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        if len(value) == 2 and isinstance(value[1], int):
            return f"{value[0]}:{value[1]}"
        return ",".join(shown(each) for each in value)
    return str(value) if not isinstance(value, Path) else value.as_posix()


def masked(value: Any) -> str:
    """A secret with what is secret in it replaced; addresses in it stay readable."""
    if not value:
        return "-"
    if isinstance(value, Smarthost):
        login = f";{value.user}:{MASK}" if value.user else ""
        return f"{value.host}:{value.port}{login}"
    parts = urlsplit(str(value))
    if not parts.scheme or not (parts.netloc or parts.path):
        return MASK
    login, at, host = parts.netloc.rpartition("@")
    if at:
        login = login.partition(":")[0] + (f":{MASK}" if ":" in login else "")
    # A query may carry a password too (?password=…).
    query = "&".join(
        f"{key}={MASK}" if "pass" in key.lower() else f"{key}={text}"
        for key, _, text in (pair.partition("=") for pair in parts.query.split("&") if pair)
    )
    return f"{parts.scheme}://{login}{at}{host}{parts.path}{'?' if query else ''}{query}"
