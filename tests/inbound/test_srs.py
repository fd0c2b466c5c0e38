"""SRS: what a forwarded message's sender becomes, whom it stands for, and that nobody else can make one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accounts.addresses import MAX_LOCAL, parse_address
from mailcore.errors import Code, MailError
from mailcore.inbound import srs

OURS = "example.org"
DAY = 86_400.0
LETTERS = "abcdefghijklmnopqrstuvwxyzABCXYZ0123456789=+-_.!#$%&'*/?^`{|}~ é\\\"@"


@st.composite
def addresses(draw: st.DrawFn) -> str:
    local = draw(st.text(LETTERS, min_size=1, max_size=30))
    domain = draw(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?\.(example|test)", fullmatch=True))
    quoted = '"' + local.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(parse_address(f"{quoted}@{domain}"))


def local(address: str) -> str:
    parsed = parse_address(address)
    assert parsed.domain == OURS
    assert len(parsed.local.encode()) <= MAX_LOCAL
    return parsed.local


@given(addresses(), st.floats(0, 4e9))
def test_what_is_made_of_a_sender_stands_for_it_and_only_for_so_long(sender: str, now: float) -> None:
    made = srs.rewrite(sender, OURS, now=now)
    if srs.is_shaped(parse_address(sender).local):
        return
    if made is None:
        stands_for = srs.reverse(local(srs.short(sender, OURS, now=now)), now=now)
        assert stands_for == srs.Original(token=srs.token(sender))
        return
    assert srs.reverse(local(made), now=now + 20 * DAY).address == sender
    with pytest.raises(MailError) as late:
        srs.reverse(local(made), now=now + 32 * DAY)
    assert late.value.code is Code.NO_SUCH_USER


@given(st.from_regex(r"[A-Za-z0-9.=+-]{1,20}", fullmatch=True).filter(lambda text: ".." not in text.strip(".") == text))
def test_servers_that_change_the_case_of_letters_do_no_harm(name: str) -> None:
    made = srs.rewrite(f"{name}@elsewhere.example", OURS)
    if made is not None and not srs.is_shaped(name):
        for changed in (local(made).lower(), local(made).upper(), local(made).swapcase()):
            assert srs.reverse(changed).address.lower() == f"{name}@elsewhere.example".lower()


@given(addresses(), st.integers(0, 63), st.sampled_from("abcdefghijklmnop234567=+"))
def test_a_changed_letter_makes_it_nobodys(sender: str, place: int, letter: str) -> None:
    made = srs.rewrite(sender, OURS)
    if made is None:
        return
    name = local(made)
    place = 5 + place % (len(name) - 5)  # behind SRS0=, of which the last may be any of three
    forged = name[:place] + letter + name[place + 1 :]
    if forged.lower() == name.lower():
        return
    with pytest.raises(MailError) as refused:
        srs.reverse(forged)
    assert refused.value.code is Code.NO_SUCH_USER


@given(st.text(max_size=80))
def test_no_text_is_anything_but_refused(text: str) -> None:
    for name in (text, f"SRS0={text}", f"srs1-{text}", f"SRS0=aaaaaaaa=aa={text}", f"SRS1=aaaaaaaa={text}"):
        with pytest.raises(MailError):
            srs.reverse(name)


def test_a_second_forwarder_sends_bounces_straight_back_to_the_first() -> None:
    first = "SRS0=HHH=TT=elsewhere.example=far@first.example"
    made = srs.rewrite(first, OURS)
    assert made is not None and local(made).startswith("SRS1=")
    assert srs.reverse(local(made)).address == first
    # The third, who takes over what the second wrote and keeps the first.
    third = srs.rewrite("SRS1=XXX=first.example==HHH=TT=elsewhere.example=far@second.example", OURS)
    assert third is not None and srs.reverse(local(third)).address == first


# pytest-django does not export the type of this fixture.
def test_an_installation_does_not_take_what_another_one_made(settings) -> None:  # type: ignore[no-untyped-def]
    made = srs.rewrite("far@elsewhere.example", OURS)
    assert made is not None
    former = settings.SECRET_KEY
    settings.SECRET_KEY = "another key"
    with pytest.raises(MailError):
        srs.reverse(local(made))
    settings.SECRET_KEY_FALLBACKS = [former]
    assert srs.reverse(local(made)).address == "far@elsewhere.example"
