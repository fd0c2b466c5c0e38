"""Every limit of the IMAP grammar, by name."""

from __future__ import annotations

from dataclasses import dataclass

MAX_SET_RANGES = 20_000
MAX_SEARCH_DEPTH = 100
MAX_SEARCH_KEYS = 1_000
MAX_SORT_KEYS = 20
MAX_TAGS = 100
MAX_SOURCES = 100
MAX_FETCH_ITEMS = 100
MAX_HEADER_FIELDS = 200
MAX_FLAGS = 200
MAX_PART_DEPTH = 100
MAX_LIST_PATTERNS = 25
MAX_APPEND_MESSAGES = 1_000
MAX_CATENATE_PARTS = 100
MAX_ID_FIELDS = 30
MAX_NAME_OCTETS = 1_000
MAX_TAG = 128
MAX_NAME_LEVELS = 50


@dataclass(frozen=True, slots=True)
class FrameLimits:
    """What a connection may send as one command. Octets.

    line: one command's text outside of literals, all lines together. literal: one literal kept in memory.
    command: text and in-memory literals of one command together. message: one streamed literal (APPEND).
    nonsync: largest {n+} (LITERAL- says 4096; message limit with LITERAL+).
    discard: what a refused {n+} may make us skip before the connection is given up.
    """

    line: int
    literal: int
    command: int
    message: int
    nonsync: int
    discard: int


BEFORE_LOGIN = FrameLimits(line=8_192, literal=8_192, command=16_384, message=0, nonsync=8_192, discard=1 << 20)


def after_login(message_size: int, *, literal_plus: bool = True) -> FrameLimits:
    """The limits of a signed-in session that may append messages of `message_size` octets."""
    return FrameLimits(
        line=65_536,
        literal=262_144,
        command=524_288,
        message=message_size,
        nonsync=message_size if literal_plus else 4_096,
        discard=2 * message_size + (1 << 20),
    )
