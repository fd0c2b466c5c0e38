"""The tracker of a client's view, without a server: random changes of a mailbox, reported at random moments."""

from __future__ import annotations

import tracemalloc
from array import array

from hypothesis import given, settings
from hypothesis import strategies as st

from mailcore.imap.selected import Known, RecentMarks, Report, Selected, UidLists
from mailcore.store.changes import MailboxChanges
from mailcore.wire.imap.numset import SequenceSet


class Mailbox:
    """The truth: messages with flags and modseqs."""

    def __init__(self) -> None:
        self.modseq = 1
        self.uidnext = 1
        self.entries: dict[int, tuple[int, int]] = {}
        self.gone: dict[int, int] = {}

    def changes(self, since: int) -> MailboxChanges:
        changed = [(uid, modseq, flags, ()) for uid, (modseq, flags) in sorted(self.entries.items()) if modseq > since]
        vanished = sorted(uid for uid, modseq in self.gone.items() if modseq > since)
        return MailboxChanges(self.modseq, self.uidnext, len(self.entries), changed, vanished)


class Client:
    """What a client believes that obeys RFC 9051: sequence numbers are positions in its list."""

    def __init__(self) -> None:
        self.uids: list[int | None] = []
        self.flags: dict[int, int] = {}

    def hear(self, report: Report, view: Selected, box: Mailbox) -> None:
        for seq in report.expunged:
            assert 1 <= seq <= len(self.uids)
            del self.uids[seq - 1]
        if report.exists is not None:
            assert report.exists > len(self.uids)
            self.uids += [None] * (report.exists - len(self.uids))
        for seq, (uid, _, flags, _) in report.flags:
            assert self.uids[seq - 1] in (uid, None)
            self.flags[uid] = flags
        # A client asks for the UIDs and flags of new messages.
        for seq, uid in enumerate(self.uids, 1):
            if uid is None:
                fetched = self.uids[seq - 1] = view.uids[seq - 1]
                self.flags[fetched] = box.entries[fetched][1] if fetched in box.entries else 0


steps = st.lists(
    st.one_of(
        st.tuples(st.just("new"), st.integers(1, 3)),
        st.tuples(st.just("flag"), st.integers(0, 30)),
        st.tuples(st.just("own"), st.integers(0, 30)),
        st.tuples(st.just("gone"), st.integers(0, 30)),
        st.tuples(st.just("look"), st.booleans()),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(steps)
def test_a_client_that_follows_the_reports_ends_with_the_mailbox(steps: list[tuple[str, int]]) -> None:
    box, client = Mailbox(), Client()
    view = Selected(1, "INBOX", 1, array("I"), 1, 1, read_only=False)
    for what, number in steps:
        uids = sorted(box.entries)
        if what == "new":
            for _ in range(number):
                box.modseq += 1
                box.entries[box.uidnext] = (box.modseq, 0)
                box.uidnext += 1
        elif what in ("flag", "own") and uids:
            uid = uids[number % len(uids)]
            if what == "own" and not view.seq(uid):
                continue
            box.modseq += 1
            box.entries[uid] = (box.modseq, box.entries[uid][1] ^ 1)
            if what == "own":
                view.note_own(box.modseq)
                client.flags[uid] = box.entries[uid][1]
        elif what == "gone" and uids:
            uid = uids[number % len(uids)]
            box.modseq += 1
            del box.entries[uid]
            box.gone[uid] = box.modseq
        elif what == "look":
            view.absorb(box.changes(view.modseq))
            client.hear(view.report(expunge=bool(number)), view, box)
            assert len(client.uids) == len(view.uids)
    view.absorb(box.changes(view.modseq))
    client.hear(view.report(expunge=True), view, box)
    assert client.uids == sorted(box.entries) == list(view.uids)
    assert all(client.flags.get(uid, 0) == flags for uid, (_, flags) in box.entries.items())
    assert view.quiet
    assert view.report(expunge=True) == Report()


def test_own_changes_are_not_echoed_but_later_ones_of_others_are() -> None:
    box = Mailbox()
    box.entries, box.uidnext, box.modseq = {1: (2, 0), 2: (3, 0)}, 3, 3
    view = Selected(1, "INBOX", 1, array("I", [1, 2]), 3, 3, read_only=False)
    view.note_own(4)
    box.entries[1] = (4, 1)
    box.entries[2] = (5, 4)
    box.modseq = 5
    view.absorb(box.changes(3))
    assert view.report(expunge=True).flags == [(2, (2, 5, 4, ()))]


@given(
    st.sets(st.integers(1, 60)),
    st.lists(st.tuples(st.integers(0, 70), st.integers(0, 70)), max_size=5),
    st.integers(1, 9),
)
def test_chunks_hold_every_chosen_message_once_with_its_number(
    uids: set[int], ranges: list[tuple[int, int]], size: int
) -> None:
    view = Selected(1, "INBOX", 1, array("I", sorted(uids)), 100, 1, read_only=False)
    slices = view.slices(SequenceSet(tuple(ranges)), uid=True)
    chosen = list(view.pick(slices))
    seen = []
    for part, seqs in view.chunks(slices, 2, size):
        assert 0 < len(part) == len(seqs) <= max(2, size)
        assert [view.seq(uid) for uid in part] == list(seqs)
        seen += part
    assert seen == chosen
    top = max(uids, default=0)
    bounds = [sorted(((low or top), (high or top))) for low, high in ranges] if uids else []
    assert chosen == [uid for uid in sorted(uids) if any(low <= uid <= high for low, high in bounds)]


def test_recent_messages_belong_to_the_first_session_that_selects_them() -> None:
    marks = RecentMarks()
    assert marks.claim(1, 1, 5, 8, keep=True) == (5, 8)
    assert marks.claim(1, 1, 5, 8, keep=False) == (5, 8)
    assert marks.claim(1, 1, 5, 8, keep=False) == (8, 8)
    assert marks.claim(1, 1, 5, 10, keep=False) == (8, 10)
    assert marks.claim(1, 2, 1, 3, keep=False) == (1, 3)


def test_sessions_at_one_state_share_one_list_and_old_lists_make_room() -> None:
    lists = UidLists(octets=5_000)
    first = lists.share(1, 1, Known(7, array("I", [1, 2, 3])))
    assert lists.share(1, 1, Known(7, array("I", [1, 2, 3]))) is first
    # A list of the same state that differs (something was expunged while it was read) stays its owner's.
    other = array("I", [1, 3])
    assert lists.share(1, 1, Known(7, other)) is other
    # Flags changed, messages did not: still the same list.
    assert lists.share(1, 1, Known(9, array("I", [1, 2, 3]))) is first
    known = lists.get(1, 1)
    assert known is not None and known.modseq == 9
    lists.share(2, 1, Known(1, array("I", range(1, 1100))))
    assert lists.get(1, 1) is None and lists.get(2, 1) is not None


def test_a_saved_result_costs_four_octets_a_message_however_scattered() -> None:
    view = Selected(1, "INBOX", 1, array("I", range(1, 400_001)), 400_001, 1, read_only=False)
    assert not view.saved
    tracemalloc.start()
    view.save(range(1, 400_001, 2))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 1_000_000
    view.save([9, 3, 7])
    assert list(view.saved) == [3, 7, 9]
    assert list(view.pick(view.slices(SequenceSet(saved=True), uid=True))) == [3, 7, 9]
    view.save(())
    assert list(view.slices(SequenceSet(saved=True), uid=True)) == []
