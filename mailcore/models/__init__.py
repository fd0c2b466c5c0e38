"""The schema, one file per group of tables. Mail is read and written by mailcore.store's SQL, never through the ORM."""

from mailcore.models.certificates import AcmeAccount, AcmeChallenge, Certificate
from mailcore.models.control import DeliveryPause, FrozenDestination, Route, Suppression
from mailcore.models.delivery import DkimKey, Outbound, OutboundNotice, OutboundRecipient
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
from mailcore.models.sending import ForwardedSender, SendingCount
from mailcore.models.sharing import Annotation, Grant
from mailcore.models.trace import TraceEvent
from mailcore.models.transport import MtaStsPolicy, TlsReport, TlsResult

__all__ = [
    "AccountState",
    "AcmeAccount",
    "AcmeChallenge",
    "Annotation",
    "Blob",
    "Certificate",
    "DeliveryPause",
    "DkimKey",
    "Entry",
    "Expunged",
    "FlagChange",
    "ForwardedSender",
    "FrozenDestination",
    "GoneMailbox",
    "Grant",
    "Mailbox",
    "Message",
    "MessageText",
    "MtaStsPolicy",
    "Outbound",
    "OutboundNotice",
    "OutboundRecipient",
    "Route",
    "SearchBlock",
    "SearchFilter",
    "SearchIndex",
    "SearchSegment",
    "SendingCount",
    "Subscription",
    "Suppression",
    "ThreadKey",
    "TlsReport",
    "TlsResult",
    "TraceEvent",
    "Upload",
]
