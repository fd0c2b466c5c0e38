"""mailcore/rfcs.toml against the code: what is announced is in it, and what it names is there."""

from __future__ import annotations

import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from mailcore.imap import capabilities
from mailcore.wire import sasl

RFCS: list[dict[str, Any]] = tomllib.loads(
    (Path(__file__).parent.parent.parent / "mailcore" / "rfcs.toml").read_text(encoding="utf-8")
)["rfc"]


def _id(entry: dict[str, Any]) -> str:
    return str(entry.get("number") or entry.get("name"))


def announced() -> set[str]:
    """Every capability that some client is told of in some state."""
    mechanisms = sasl.offered({"tls-server-end-point": b"x"}, scram=True)
    return {
        *capabilities.before_login(can_start_tls=True, mechanisms=mechanisms),
        *capabilities.before_login(can_start_tls=False, mechanisms=()),
        *capabilities.after_login(1000, 1000, jmap=True),
    }


def _is_listed(capability: str, listed: set[str]) -> bool:
    return capability in listed or capability.partition("=")[0] + "=" in listed


@pytest.mark.parametrize("entry", RFCS, ids=_id)
def test_an_entry_says_what_it_is_and_where(entry: dict[str, Any]) -> None:
    assert ("number" in entry) != ("name" in entry)
    assert entry["title"]
    assert entry["status"] in ("complete", "partial", "not planned")
    expected = {"complete": set(), "partial": {"missing"}, "not planned": {"why"}}[entry["status"]]
    assert {"missing", "why"} & set(entry) == expected
    assert set(entry) <= {"number", "name", "title", "status", "missing", "why", "where", "capabilities"}
    if entry["status"] == "not planned":
        assert "where" not in entry and "capabilities" not in entry
        return
    assert entry["where"]
    for module in entry["where"]:
        assert find_spec(module) is not None, f"{module} is not there"


def test_every_document_is_listed_once() -> None:
    ids = [_id(entry) for entry in RFCS]
    assert len(ids) == len(set(ids))


def test_every_announced_capability_is_listed() -> None:
    listed = {capability for entry in RFCS for capability in entry.get("capabilities", ())}
    assert {capability for capability in announced() if not _is_listed(capability, listed)} == set()


def test_every_listed_capability_is_announced() -> None:
    told = announced() | {f"{capability.partition('=')[0]}=" for capability in announced()}
    assert {capability for entry in RFCS for capability in entry.get("capabilities", ())} - told == set()


def test_a_capability_belongs_to_one_document() -> None:
    listed = [capability for entry in RFCS for capability in entry.get("capabilities", ())]
    assert len(listed) == len(set(listed))
