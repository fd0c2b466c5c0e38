"""The mailbox filters that NOTIFY and ESEARCH have in common (RFC 5465 §6, RFC 7377 §2.2)."""

from __future__ import annotations

from collections.abc import Set

from mailcore.store.acl import is_elsewhere
from mailcore.store.mailboxes import INBOX, SEPARATOR
from mailcore.wire.imap.mailbox_name import parents


def fits(kind: str, names: Set[str], name: str, *, subscribed: bool) -> bool:
    """Whether a filter such as PERSONAL or SUBTREE (Lists) means the mailbox of this name; `subscribed`: whether it is.

    What SELECTED means, the caller knows. Costs the same however many names a filter has.
    """
    match kind:
        case "PERSONAL":
            return not is_elsewhere(name)
        case "INBOXES":
            return name == INBOX  # where inbound.file puts everything
        case "SUBSCRIBED":
            return subscribed
        case "SUBTREE":
            return name in names or any(parent in names for parent in parents(name))
        case "SUBTREE-ONE":
            return name in names or name.rpartition(SEPARATOR)[0] in names
    return name in names  # MAILBOXES
