"""Rights and their letters (RFC 4314 §2.1)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailcore.errors import Code, MailError
from mailcore.store import acl
from mailcore.store.acl import EVERY, Right
from mailcore.store.flags import ALL_FLAGS, ANSWERED, DELETED, DRAFT, FLAGGED, SEEN


@given(st.integers(0, int(EVERY)))
def test_what_is_spelled_out_can_be_read_and_never_says_less(bits: int) -> None:
    rights = Right(bits)
    letters = acl.spell(rights)
    assert len(set(letters)) == len(letters)
    assert acl.parse("".join(letter for letter in letters if letter not in acl.OBSOLETE)) == rights
    assert acl.parse(letters) & rights == rights


def test_the_letters_of_rfc_2086_stand_for_those_of_today() -> None:
    assert acl.parse("cd") == acl.parse("kxte")
    assert acl.spell(Right.CREATE) == "kc"
    assert acl.spell(Right.EXPUNGE) == "ed"
    assert acl.spell(EVERY) == "lrswipkxteacd"
    assert acl.parse("") == acl.NONE
    assert acl.spell(acl.NONE) == ""


@pytest.mark.parametrize("letters", ["L", "lrz", "0", "é", "l r"])
def test_unknown_letters_are_refused(letters: str) -> None:
    with pytest.raises(MailError) as refusal:
        acl.parse(letters)
    assert refusal.value.code is Code.BAD_VALUE


def test_flags_follow_rights() -> None:
    assert acl.flags(EVERY) == ALL_FLAGS
    assert acl.flags(Right.SEEN) == SEEN
    assert acl.flags(Right.DELETE | Right.READ) == DELETED
    assert acl.flags(Right.WRITE) == ANSWERED | FLAGGED | DRAFT
    assert acl.flags(Right.INSERT) == 0
