"""From what an IMAP client searches for to the store's criteria: sequence numbers become UIDs, intervals instants."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from mailcore.imap.errors import bad
from mailcore.imap.selected import Selected
from mailcore.store import search
from mailcore.store.flags import SYSTEM_FLAGS
from mailcore.wire.imap import search_key
from mailcore.wire.imap.search_key import SearchKey

_BITS = {name.lower(): bit for name, bit in SYSTEM_FLAGS.items()}
_NOTHING = search.Or(())
MAX_PHRASES = 20  # each is a search of its own
_SIZE_OPS = {"larger": ">", "smaller": "<"}
_DATE_OPS = {"before": "<", "on": "=", "since": ">="}


def criterion(key: SearchKey, view: Selected, *, fuzzy: bool = False) -> search.Criterion:
    """The key in terms of a mailbox. Raises Refused(BAD).

    `fuzzy`: of a text every word is looked for, in whatever order.
    """
    match key:
        case search_key.And(keys):
            return search.And(tuple(criterion(one, view, fuzzy=fuzzy) for one in keys))
        case search_key.Or(left, right):
            return search.Or(tuple(criterion(one, view, fuzzy=fuzzy) for one in (left, right)))
        case search_key.Not(inner):
            return search.Not(criterion(inner, view, fuzzy=fuzzy))
        case search_key.Fuzzy(inner):
            return criterion(inner, view, fuzzy=True)
        case search_key.All() | search_key.SaveDateSupported():
            return search.All()
        case search_key.Flag(flag, is_set):
            return _flag(flag, is_set, view)
        case search_key.Text() | search_key.Header():
            phrase = _phrase(key)
            words = phrase.words.split() if fuzzy else ()
            return search.And(tuple(search.Text(phrase.field, word) for word in words)) if len(words) > 1 else phrase
        case search_key.Date(which, op, day):
            return search.Date(which, _DATE_OPS[op], day)  # type: ignore[arg-type]  # the same three words
        case search_key.Size(op, size):
            return search.Size(_SIZE_OPS[op], size)  # type: ignore[arg-type]  # two of its three
        case search_key.Numbers(numbers, uid):
            if numbers.saved:
                return _uids(view.saved.ranges)
            if uid:
                return _uids(numbers.resolve(view.uids[-1] if view.uids else 0).ranges)
            return _uids(
                tuple((view.uids[part.start], view.uids[part.stop - 1]) for part in view.slices(numbers, uid=False))
            )
        case search_key.Modseq(modseq):
            return search.Modseq(modseq)
        case search_key.Within(op, seconds):
            since = search.Date("internal", ">=", datetime.now(UTC) - timedelta(seconds=seconds))
            return since if op == "younger" else search.Not(since)
        case search_key.ObjectId(kind, value):
            return _object_id(kind, value, view.id_end.decode())
    raise bad("This search key is not supported here")


def _phrase(key: search_key.Text | search_key.Header) -> search.Text:
    if isinstance(key, search_key.Text):
        return search.Text(key.field.lower(), key.value)
    return search.Text(f"header:{key.name.lower()}", key.value)


def phrases(key: SearchKey) -> tuple[search.Text, ...]:
    """What makes a message that FUZZY finds relevant: that a text stands in it just as it was written."""
    return tuple(map(_phrase, search_key.fuzzy_texts(key)[:MAX_PHRASES]))


def _flag(flag: str, is_set: bool, view: Selected) -> search.Criterion:
    if not flag.startswith("\\"):
        return search.Keyword(flag, is_set)
    bit = _BITS.get(flag.lower())
    if bit is not None:
        return search.Flag(bit, is_set)
    recent = _uids(tuple((first, after - 1) for first, after in view.recent if after > first))
    return recent if is_set else search.Not(recent)


def _uids(ranges: tuple[tuple[int, int], ...]) -> search.Criterion:
    return search.Uids(ranges) if ranges else _NOTHING


def _object_id(kind: str, value: str, end: str) -> search.Criterion:
    """`end`: what ids of the mailbox's account end in."""
    prefix, number = value[:1], value[1:].removesuffix(end)
    if (
        not value.endswith(end)
        or not (number.isascii() and number.isdigit() and len(number) < 19)
        or prefix != {"EMAILID": "M", "THREADID": "T"}[kind]
    ):
        return _NOTHING
    return search.Emails((int(number),)) if kind == "EMAILID" else search.InThreads((int(number),))


def is_everything(criterion: search.Criterion, view: Selected) -> bool:
    """Whether it finds just what the client knows: then the store need not be asked."""
    return not view.gone and not view.dirty and criterion == search.All()


def seqs(view: Selected, uids: Sequence[int]) -> Sequence[int]:
    """The sequence numbers of UIDs, in their order; those that the client does not know are left out."""
    known = view.uids
    if uids is known or (known and known[-1] == len(known)):
        return range(1, len(known) + 1) if uids is known else [uid for uid in uids if uid <= len(known)]
    if 8 * len(uids) < len(known):
        return [seq for uid in uids if (seq := view.seq(uid))]
    numbers = dict(zip(known, range(1, len(known) + 1), strict=True))
    return [numbers[uid] for uid in uids if uid in numbers]
