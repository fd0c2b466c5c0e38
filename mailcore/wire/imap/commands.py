"""The values that parsed IMAP commands are made of: one frozen dataclass per shape of arguments."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from mailcore.wire.imap.acl import RightsArgs, SetAclArgs
from mailcore.wire.imap.fetch_item import FetchItem
from mailcore.wire.imap.frames import Literal, StreamedLiteral
from mailcore.wire.imap.metadata import GetMetadataArgs, SetMetadataArgs
from mailcore.wire.imap.notify import NotifyArgs
from mailcore.wire.imap.numset import SequenceSet
from mailcore.wire.imap.parse_search import EsearchArgs, Partial, SearchArgs, TagsArgs, ThreadArgs
from mailcore.wire.imap.quota import QuotaArgs, SetQuotaArgs


@dataclass(frozen=True, slots=True)
class NoArgs:
    """CAPABILITY, NOOP, LOGOUT, STARTTLS, CHECK, CLOSE, UNSELECT, EXPUNGE, IDLE, NAMESPACE, GETJMAPACCESS."""


@dataclass(frozen=True, slots=True)
class IdArgs:
    """ID (RFC 2971): what the client tells about itself; None for `ID NIL`."""

    fields: tuple[tuple[str, str | None], ...] | None


@dataclass(frozen=True, slots=True)
class EnableArgs:
    """ENABLE (RFC 5161): capability names in upper case, known or not."""

    capabilities: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LoginArgs:
    """LOGIN. The password never appears in repr()."""

    user: str
    password: str

    def __repr__(self) -> str:
        return f"LoginArgs(user={self.user!r}, password=***)"


@dataclass(frozen=True, slots=True)
class AuthenticateArgs:
    """AUTHENTICATE: mechanism in upper case; `initial` is SASL-IR's base64 as sent (b"=" is empty), None if absent."""

    mechanism: str
    initial: bytes | None

    def __repr__(self) -> str:
        return f"AuthenticateArgs(mechanism={self.mechanism!r}, initial={None if self.initial is None else '***'})"


@dataclass(frozen=True, slots=True)
class WordArgs:
    """COMPRESS (RFC 4978): one keyword, in upper case."""

    word: str


@dataclass(frozen=True, slots=True)
class QresyncParams:
    """SELECT's QRESYNC parameter (RFC 7162 §3.2.5), its sets without `*`.

    `known_uids` None: all. `seq_match`: sequence numbers and the UIDs that the client knows them by.
    """

    uidvalidity: int
    modseq: int
    known_uids: SequenceSet | None
    seq_match: tuple[SequenceSet, SequenceSet] | None


@dataclass(frozen=True, slots=True)
class SelectArgs:
    """SELECT, EXAMINE."""

    mailbox: str
    condstore: bool = False
    qresync: QresyncParams | None = None


@dataclass(frozen=True, slots=True)
class MailboxArgs:
    """DELETE, SUBSCRIBE, UNSUBSCRIBE."""

    mailbox: str


@dataclass(frozen=True, slots=True)
class CreateArgs:
    """CREATE, the name without a trailing "/". `special_use` is `(USE (\\Archive ...))` (RFC 6154), in usual case."""

    mailbox: str
    special_use: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RenameArgs:
    """RENAME."""

    source: str
    target: str


@dataclass(frozen=True, slots=True)
class ListArgs:
    """LIST (RFC 9051, 5258, 5819, 6154) and LSUB.

    `extended` says that any LIST-EXTENDED syntax was used. `status_items` is RETURN (STATUS (...)), None if absent.
    `selection` holds SUBSCRIBED, REMOTE, RECURSIVEMATCH, SPECIAL-USE; `returns` holds SUBSCRIBED, CHILDREN,
    SPECIAL-USE, MYRIGHTS. `metadata` are the entries of RETURN (METADATA (...)) (RFC 9590).
    """

    reference: str
    patterns: tuple[str, ...]
    selection: frozenset[str] = frozenset()
    returns: frozenset[str] = frozenset()
    status_items: tuple[str, ...] | None = None
    extended: bool = False
    metadata: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StatusArgs:
    """STATUS; items in upper case, in the order asked, without repeats."""

    mailbox: str
    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CatenateUrl:
    """A URL part of CATENATE (RFC 4469), as sent."""

    url: str


@dataclass(frozen=True, slots=True)
class AppendMessage:
    """One message of APPEND. `parts` holds exactly one literal unless CATENATE (RFC 4469) was used.

    `utf8` is set for RFC 6855's `UTF8 (~{n})`. `internaldate` is aware, with the zone that the client gave.
    """

    flags: tuple[str, ...]
    internaldate: datetime | None
    parts: tuple[Literal | StreamedLiteral | CatenateUrl, ...]
    catenate: bool = False
    utf8: bool = False


@dataclass(frozen=True, slots=True)
class AppendArgs:
    """APPEND and MULTIAPPEND (RFC 3502)."""

    mailbox: str
    messages: tuple[AppendMessage, ...]


@dataclass(frozen=True, slots=True)
class ReplaceArgs:
    """REPLACE, UID REPLACE (RFC 8508). `number` is a sequence number or UID, 0 for `*`."""

    number: int
    mailbox: str
    message: AppendMessage


@dataclass(frozen=True, slots=True)
class FetchArgs:
    """FETCH, UID FETCH: macros expanded, repeats removed; CHANGEDSINCE of RFC 7162.

    UID FETCH only: VANISHED of RFC 7162, PARTIAL of RFC 9394.
    """

    numbers: SequenceSet
    items: tuple[FetchItem, ...]
    changedsince: int | None = None
    vanished: bool = False
    partial: Partial | None = None


@dataclass(frozen=True, slots=True)
class BatchesArgs:
    """UIDBATCHES (RFC 10022): messages per batch, and the batches wanted, counted from 1 at the newest; None: all."""

    size: int
    wanted: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class StoreArgs:
    """STORE, UID STORE. `action` is "replace", "add" or "remove". UNCHANGEDSINCE: RFC 7162 (0 is allowed)."""

    numbers: SequenceSet
    action: str
    flags: tuple[str, ...]
    silent: bool = False
    unchangedsince: int | None = None


@dataclass(frozen=True, slots=True)
class CopyArgs:
    """COPY, MOVE and their UID forms."""

    numbers: SequenceSet
    mailbox: str


@dataclass(frozen=True, slots=True)
class NumbersArgs:
    """UID EXPUNGE (RFC 4315)."""

    numbers: SequenceSet


Args = (
    NoArgs
    | IdArgs
    | EnableArgs
    | LoginArgs
    | AuthenticateArgs
    | WordArgs
    | SelectArgs
    | MailboxArgs
    | CreateArgs
    | RenameArgs
    | ListArgs
    | StatusArgs
    | AppendArgs
    | ReplaceArgs
    | SearchArgs
    | ThreadArgs
    | EsearchArgs
    | TagsArgs
    | FetchArgs
    | StoreArgs
    | BatchesArgs
    | CopyArgs
    | NumbersArgs
    | RightsArgs
    | SetAclArgs
    | NotifyArgs
    | GetMetadataArgs
    | SetMetadataArgs
    | QuotaArgs
    | SetQuotaArgs
)


@dataclass(frozen=True, slots=True)
class Command:
    """A parsed command. `name` is in upper case with one space ("UID FETCH"); it alone decides the type of args."""

    tag: str
    name: str
    args: Args

    @property
    def uid(self) -> bool:
        """True for the UID forms, whose numbers are UIDs and whose answers carry UIDs."""
        return self.name.startswith("UID ")
