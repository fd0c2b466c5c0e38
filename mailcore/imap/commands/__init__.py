"""One file per IMAP command or tight family; importing a file puts its commands into the registry."""

from __future__ import annotations

from importlib import import_module

FAMILIES = (
    "acl",
    "append",
    "basic",
    "batches",
    "cancelupdate",
    "compress",
    "copy",
    "enable",
    "esearch",
    "expunge",
    "fetch",
    "idle",
    "list",
    "login",
    "mailboxes",
    "metadata",
    "notify",
    "quota",
    "replace",
    "search",
    "select",
    "sort",
    "status",
    "store",
    "thread",
)


def load() -> None:
    """Register every command."""
    for name in FAMILIES:
        import_module(f"{__name__}.{name}")
