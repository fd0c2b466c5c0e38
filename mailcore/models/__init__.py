"""The schema, one file per group of tables. Mail is read and written by mailcore.store's SQL, never through the ORM."""

from mailcore.models.delivery import DkimKey, Outbound, OutboundRecipient
from mailcore.models.index import SearchBlock, SearchFilter, SearchIndex, SearchSegment
from mailcore.models.mail import (
    AccountState,
    Blob,
    Entry,
    Expunged,
    FlagChange,
    GoneMailbox,
    Mailbox,
    Message,
    MessageText,
    Subscription,
    ThreadKey,
    Upload,
)
from mailcore.models.sharing import Annotation, Grant
from mailcore.models.trace import TraceEvent

__all__ = [
    "AccountState",
    "Annotation",
    "Blob",
    "DkimKey",
    "Entry",
    "Expunged",
    "FlagChange",
    "GoneMailbox",
    "Grant",
    "Mailbox",
    "Message",
    "MessageText",
    "Outbound",
    "OutboundRecipient",
    "SearchBlock",
    "SearchFilter",
    "SearchIndex",
    "SearchSegment",
    "Subscription",
    "ThreadKey",
    "TraceEvent",
    "Upload",
]
