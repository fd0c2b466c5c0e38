"""The client's view of its selected mailbox: which UID has which sequence number, and what it has not been told yet.

A pure tracker, without I/O: the session feeds it the store's changes and asks it what may be reported now. The list of
UIDs is never changed in place, so that sessions that see the same state share one array (see `UidLists`).
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mailcore.imap.errors import bad
from mailcore.store.acl import EVERY, Right
from mailcore.store.changes import MailboxChanges
from mailcore.store.flags import FlagRow
from mailcore.wire.imap.numset import STAR, NumSet, SequenceSet

if TYPE_CHECKING:
    from mailcore.imap.contexts import Context

# Own changes remembered between two looks into the store; more than this, and it is time for one.
MAX_OWN = 500


@dataclass(frozen=True, slots=True)
class Report:
    """What to tell the client, in this order. `expunged` are sequence numbers, each counted after those before it."""

    expunged: list[int] = field(default_factory=list)
    vanished: list[int] = field(default_factory=list)
    exists: int | None = None
    flags: list[tuple[int, FlagRow]] = field(default_factory=list)


class Selected:
    """One session's selected mailbox."""

    __slots__ = (
        "_changed",
        "_exists",
        "_saved",
        "account_id",
        "contexts",
        "dirty",
        "gone",
        "id_end",
        "mailbox_id",
        "modseq",
        "name",
        "own",
        "read_only",
        "recent",
        "rights",
        "shared",
        "told",
        "uid_only",
        "uidnext",
        "uids",
        "uidvalidity",
    )

    def __init__(
        self,
        mailbox_id: int,
        name: str,
        uidvalidity: int,
        uids: array[int],
        uidnext: int,
        modseq: int,
        *,
        read_only: bool,
        account_id: int = 0,
        rights: Right = EVERY,
        shared: bool = False,
    ) -> None:
        self.account_id = account_id
        """Whose mailbox it is: of the client, or of somebody who shares it."""
        self.rights = rights
        """What the client may do in it."""
        self.shared = shared
        """It is somebody else's."""
        self.id_end = b"-%d" % account_id if shared else b""
        """Of object ids (RFC 8474): those of two accounts must not meet."""
        self.mailbox_id = mailbox_id
        self.name = name
        self.uidvalidity = uidvalidity
        self.read_only = read_only
        self.uids = uids
        self.uidnext = uidnext
        """UIDs from here on are unknown to the client."""
        self.modseq = modseq
        """Everything up to here has been absorbed."""
        self.told = modseq
        """… and up to here the client knows it."""
        self.own: set[int] = set()
        """Modseqs of flag changes that this session made and has answered: not to be echoed."""
        self.gone: set[int] = set()
        """UIDs that left but still have a sequence number, because EXPUNGE could not be sent."""
        self.recent: list[tuple[int, int]] = []
        """UID ranges that are \\Recent in this session."""
        self._saved: array[int] | None = None
        """UIDs found by the last SEARCH RETURN (SAVE); None before the first, which is the same as nothing."""
        self.uid_only = False
        """The client wants to hear of UIDs instead of sequence numbers (RFC 9586)."""
        self.contexts: dict[str, Context] = {}
        """Searches whose results are kept up to date, by their tags."""
        self.dirty = False
        """Somebody said that the store knows more than we do."""
        self._changed: dict[int, FlagRow] = {}
        self._exists = len(uids)

    # -- what the store says

    def absorb(self, changes: MailboxChanges) -> None:
        """Take in what happened since `modseq`."""
        if changes.modseq <= self.modseq:
            return
        fresh = array("I")
        for row in changes.changed:
            if row[0] >= self.uidnext:
                fresh.append(row[0])
            elif row[1] not in self.own:
                self._changed[row[0]] = row
        self._leave(changes.vanished)
        if fresh:
            self.uids = self.uids + fresh
        self.uidnext = max(changes.uidnext, self.uidnext)
        self.modseq = changes.modseq
        self.own.clear()

    def overtaken(self, rows: Iterable[FlagRow]) -> None:
        """Flags as this session's own change left them: what is still to be told of these messages is that."""
        if self._changed:
            self._changed.update({row[0]: row for row in rows if row[0] in self._changed})

    def note_own(self, modseq: int) -> None:
        """This session is about to commit changes of that modseq (0 = none), which it reports itself."""
        if modseq:
            self.own.add(modseq)
        if len(self.own) > MAX_OWN:
            self.dirty = True

    def expunged(self, uids: Iterable[int]) -> None:
        """Take in what this session itself removed."""
        self._leave(uids)

    def _leave(self, uids: Iterable[int]) -> None:
        for uid in uids:
            if self.seq(uid):
                self.gone.add(uid)
                self._changed.pop(uid, None)

    @property
    def quiet(self) -> bool:
        """Nothing to report."""
        return not (self.gone or self._changed or self._exists != len(self.uids))

    def report(self, *, expunge: bool) -> Report:
        """What the client is to be told now, taken from what waits. Without `expunge`, departures go on waiting."""
        expunged: list[int] = []
        vanished: list[int] = []
        if expunge and self.gone:
            vanished = sorted(self.gone)
            expunged = self._remove(vanished)
            self.gone = set()
        exists = len(self.uids) if len(self.uids) != self._exists else None
        self._exists = len(self.uids)
        flags: list[tuple[int, FlagRow]] = []
        if self._changed:
            flags = [(seq, row) for uid, row in sorted(self._changed.items()) if (seq := self.seq(uid))]
            self._changed = {}
        return Report(expunged, vanished, exists, flags)

    def _remove(self, uids: list[int]) -> list[int]:
        kept = array("I")
        expunged = []
        start = 0
        for removed, uid in enumerate(uids):
            at = bisect_left(self.uids, uid, start)
            kept.extend(self.uids[start:at])
            expunged.append(at + 1 - removed)
            start = at + 1
        kept.extend(self.uids[start:])
        self.uids = kept
        self._exists -= len(uids)
        return expunged

    # -- numbers

    def save(self, uids: Iterable[int]) -> None:
        """Keep what `$` stands for (RFC 5182): four octets a message, however they are scattered."""
        self._saved = uids if isinstance(uids, array) else array("I", uids)

    @property
    def saved(self) -> NumSet:
        """What `$` stands for."""
        return NumSet.of(self._saved or ())

    def seq(self, uid: int) -> int:
        """The sequence number of a UID, 0 if the client does not know it."""
        at = bisect_left(self.uids, uid)
        return at + 1 if at < len(self.uids) and self.uids[at] == uid else 0

    def slices(self, numbers: SequenceSet, *, uid: bool) -> list[slice]:
        """Where the messages of a set sit in `uids`. Raises Refused(BAD) for a sequence number that does not exist."""
        uids = self.uids
        if numbers.saved:
            return self.saved.slices(uids)
        if uid:
            return numbers.resolve(uids[-1] if uids else 0).slices(uids)
        count = len(uids)
        if numbers.largest_named > count and not (count == 0 and any(STAR in pair for pair in numbers.ranges)):
            raise bad(f"There is no message {numbers.largest_named}: the mailbox has {count}")
        return [slice(first - 1, last) for first, last in numbers.resolve(count).ranges] if count else []

    def pick(self, slices: Iterable[slice]) -> array[int]:
        """The UIDs of slices, ascending."""
        picked = array("I")
        for part in slices:
            picked.extend(self.uids[part])
        return picked

    def chunks(self, slices: Iterable[slice], first: int, size: int) -> Iterator[tuple[array[int], range | list[int]]]:
        """UIDs with their sequence numbers, at most `size` at a time (`first` the first time).

        Pieces of contiguous slices stay apart from scattered ones, so that each chunk is cheap to ask for.
        """
        uids: array[int] = array("I")
        seqs: list[int] = []
        limit = first
        for part in slices:
            start, stop = part.start, part.stop
            while start < stop:
                if not uids and stop - start >= limit:
                    yield self.uids[start : start + limit], range(start + 1, start + limit + 1)
                    start += limit
                    limit = size
                    continue
                take = min(stop - start, limit - len(uids))
                uids.extend(self.uids[start : start + take])
                seqs.extend(range(start + 1, start + take + 1))
                start += take
                if len(uids) >= limit:
                    yield uids, seqs
                    uids, seqs, limit = array("I"), [], size
        if uids:
            yield uids, seqs

    def add_recent(self, first: int, after: int) -> None:
        """The UIDs first..after-1 are \\Recent in this session."""
        if self.recent and first <= self.recent[-1][1]:
            start, end = self.recent.pop()
            first, after = start, max(end, after)
        if first < after:
            self.recent.append((first, after))

    def is_recent(self, uid: int) -> bool:
        """Whether the message is \\Recent in this session."""
        return any(first <= uid < after for first, after in self.recent)

    def count_recent(self) -> int:
        """How many of the client's messages are \\Recent."""
        return sum(bisect_left(self.uids, after) - bisect_left(self.uids, first) for first, after in self.recent)


class RecentMarks:
    """Which messages are \\Recent (RFC 3501 §2.3.2): those that no session of this process has selected yet.

    IMAP4rev2 has no \\Recent, and keeping it exact would cost a write per SELECT; so it lives in memory, is claimed by
    the first session that selects the mailbox read-write, and starts with the mail that came since the process did.
    """

    LIMIT = 100_000

    def __init__(self) -> None:
        self._marks: OrderedDict[tuple[int, int], int] = OrderedDict()

    def known(self, account_id: int, mailbox_id: int) -> int | None:
        """The first UID that is still \\Recent; None when nobody has selected the mailbox so far."""
        return self._marks.get((account_id, mailbox_id))

    def claim(self, account_id: int, mailbox_id: int, mark: int, uidnext: int, *, keep: bool) -> tuple[int, int]:
        """The UIDs (first, after) that are \\Recent in this session. With `keep` (EXAMINE) they stay so for others."""
        key = (account_id, mailbox_id)
        mark = self._marks.get(key, mark)
        self._marks[key] = mark if keep else max(mark, uidnext)
        self._marks.move_to_end(key)
        if len(self._marks) > self.LIMIT:
            self._marks.popitem(last=False)
        return mark, max(mark, uidnext)


@dataclass(frozen=True, slots=True)
class Known:
    """A mailbox at a modseq; `unseen` is its first unseen UID (0 = none). Both are None when not looked up."""

    modseq: int
    uids: array[int]
    unseen: int | None = None
    keywords: tuple[str, ...] | None = None


class UidLists:
    """Mailboxes as they were last seen: shared by the sessions of the process, and kept a while for the next SELECT."""

    def __init__(self, octets: int = 32 * 1024 * 1024) -> None:
        self._limit = octets
        self._octets = 0
        self._known: OrderedDict[tuple[int, int], Known] = OrderedDict()

    def get(self, account_id: int, mailbox_id: int) -> Known | None:
        """The newest state known."""
        return self._known.get((account_id, mailbox_id))

    def share(self, account_id: int, mailbox_id: int, state: Known) -> array[int]:
        """Offer a complete state; returns the list of UIDs to keep, which another session may hold already."""
        key = (account_id, mailbox_id)
        old = self._known.get(key)
        if old is not None:
            # Lists of one modseq may differ by what was expunged while one was read: then each keeps its own.
            if old.uids == state.uids:
                state = replace(state, uids=old.uids)
            if old.modseq > state.modseq or (old.modseq == state.modseq and state.unseen is None):
                return state.uids
            self._octets -= _octets(old.uids)
        self._known[key] = state
        self._known.move_to_end(key)
        self._octets += _octets(state.uids)
        while self._octets > self._limit and self._known:
            self._octets -= _octets(self._known.popitem(last=False)[1].uids)
        return state.uids


def _octets(uids: array[int]) -> int:
    return 4 * len(uids) + 400
