"""Fields picked by the index that is kept beside a message are those that a look at each line finds."""

import random

import pytest

from mailcore import mime
from mailcore.mime import cached

NAMES = sorted(mime.CACHED_FIELDS)
SEED = 20261122


def kept(header: bytes) -> bytes:
    derived = mime.parse(header + b"\r\nbody\r\n")
    return derived.field_index + derived.headers


def random_header(chance: random.Random) -> bytes:
    lines = []
    for _ in range(chance.randrange(40)):
        name = chance.choice([*NAMES, b"received", b"x-other"])
        name = chance.choice((name, name.upper(), name.title())) + chance.choice((b"", b"", b" \t"))
        end = chance.choice((b"\r\n", b"\r\n", b"\n", b"\r\n\tfolded\r\n", b"\n \n"))
        lines.append(name + b":" + chance.choice((b" value", b"", b" a:b", b" \0\x1f")) + end)
    return b"".join(lines)


def test_any_fields_of_any_header_in_any_order() -> None:
    chance = random.Random(SEED)
    headers = [random_header(chance) for _ in range(300)]
    for _ in range(30):
        names = frozenset(chance.sample(NAMES, chance.randrange(1, len(NAMES))))
        pick = mime.picker(names)
        for header in headers:
            assert pick(kept(header)) == mime.header_fields(header + b"\r\n", names)


@pytest.mark.parametrize(
    ("header", "indexed"),
    [
        (b"From: a@b\r\n", True),
        (b"To: a@b\r\n" * 31, True),
        (b"To: a@b\r\n" * 32, False),
        (b"Subject: " + b"s" * 65_000 + b"\r\n", True),
        (b"Subject: " + b"s" * 66_000 + b"\r\nFrom: a@b\r\n", False),
        (b"X-Fill: " + b"x" * 300_000 + b"\r\nFrom: a@b\r\n", False),  # beyond what is looked at for fields
        (b"X-Other: nothing is kept\r\n", False),
    ],
)
def test_what_has_no_index_is_answered_from_too(header: bytes, indexed: bool) -> None:
    assert (mime.parse(header + b"\r\n").field_index != b"") == indexed
    for names in (frozenset((b"to",)), frozenset((b"from", b"subject")), frozenset((b"date",))):
        assert mime.picker(names)(kept(header)) == mime.header_fields(header + b"\r\n", names)


def test_a_header_without_its_last_line_end() -> None:
    derived = mime.parse(b"From: a@b\r\nSubject: cut off")
    assert mime.picker(frozenset((b"subject",)))(derived.field_index + derived.headers) == b"Subject: cut off\r\n\r\n"


def test_more_arrangements_than_are_remembered() -> None:
    chance = random.Random(SEED)
    pick = mime.picker(frozenset((b"date", b"from")))
    for _ in range(cached._ARRANGEMENTS + 100):
        header = b"".join(b"%b: %d\r\n" % (name, chance.randrange(10)) for name in chance.sample(NAMES, 8))
        assert pick(kept(header)) == mime.header_fields(header + b"\r\n", frozenset((b"date", b"from")))


def test_stored_places_of_names_stay() -> None:
    assert cached._NAMES[:8] == b"from to cc bcc sender reply-to subject date".split()
    assert (cached._NAMES[37], len(cached._NAMES)) == (b"x-tuid", 39)
