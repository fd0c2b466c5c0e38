"""Reading arguments: each reader checks the type that RFC 8620 §1 gives a value, and says which argument is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from mailcore.jmap.errors import bad_arguments

Json = dict[str, Any]


def boolean(args: Mapping[str, Any], name: str, default: bool = False) -> bool:
    value = args.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise bad_arguments(f"{name} must be true or false")
    return value


def integer(args: Mapping[str, Any], name: str, default: int | None = None, lo: int = 0) -> int | None:
    """A whole number of at least `lo`, or `default` when there is none."""
    value = args.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not lo <= value <= 2**53 - 1:
        raise bad_arguments(f"{name} must be a whole number of at least {lo}")
    return value


def text(args: Mapping[str, Any], name: str) -> str | None:
    value = args.get(name)
    if value is not None and not isinstance(value, str):
        raise bad_arguments(f"{name} must be a string")
    return value


def strings(args: Mapping[str, Any], name: str) -> list[str] | None:
    """A list of strings, or None when the argument is null or missing."""
    value = args.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise bad_arguments(f"{name} must be a list of strings")
    return value


def objects(args: Mapping[str, Any], name: str) -> dict[str, Json]:
    """A map of objects by id; empty when the argument is null or missing."""
    value = args.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(item, dict) for item in value.values()):
        raise bad_arguments(f"{name} must be a map of objects")
    return value


def state_number(args: Mapping[str, Any], name: str) -> int | None:
    """A state string of ours as the modseq it is; -1 for what never was one, None when not given."""
    value = text(args, name)
    if value is None:
        return None
    return int(value) if value.isascii() and value.isdigit() and len(value) < 19 else -1


def utc(moment: datetime) -> str:
    """UTCDate of RFC 8620 §1.4."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def date(moment: datetime) -> str:
    """Date of RFC 8620 §1.4: with its own offset."""
    return moment.replace(microsecond=0).isoformat().replace("+00:00", "Z")


def parse_date(value: object, name: str) -> datetime:
    """A Date or UTCDate; raises invalidArguments."""
    if isinstance(value, str) and "T" in value and len(value) < 50:
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            moment = None
        if moment is not None and moment.tzinfo is not None and 1 < moment.year < 9999:
            return moment
    raise bad_arguments(f"{name} must be a date such as 2026-10-30T14:12:00Z")
