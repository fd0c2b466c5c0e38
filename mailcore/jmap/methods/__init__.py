"""The methods, one file per object type; importing this package enters them all into the table."""

from mailcore.jmap.methods import (
    core,
    email_changes,
    email_get,
    email_import,
    email_query,
    email_set,
    identity,
    mailbox,
    mailbox_set,
    snippet,
    submission,
    submission_set,
    thread,
)

__all__ = [
    "core",
    "email_changes",
    "email_get",
    "email_import",
    "email_query",
    "email_set",
    "identity",
    "mailbox",
    "mailbox_set",
    "snippet",
    "submission",
    "submission_set",
    "thread",
]
