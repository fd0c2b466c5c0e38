"""The bounds of the MIME reader. Mail beyond them is kept whole and shown, only less finely taken apart."""

from __future__ import annotations

from typing import Final

MAX_DEPTH: Final = 64  # nesting of multiparts and embedded messages; deeper ones are opaque
MAX_PARTS: Final = 1_000  # rows of the part table; the last one takes what remains
MAX_FALSE_DELIMITERS: Final = 10_000  # lines per message that begin like a delimiter but are none
MAX_HEADER_SCAN: Final = 256 << 10  # octets of a message header that are looked at for fields
MAX_MIME_HEADER: Final = 32 << 10  # octets of a part's MIME header that are looked at
MAX_PARAMS: Final = 64  # Content-Type and Content-Disposition parameters
MAX_PARAM: Final = 4 << 10  # octets of one parameter value after joining its continuations
MAX_VALUE: Final = 16 << 10  # octets of a text value (subject, description) in ENVELOPE and BODYSTRUCTURE
MAX_ADDRESS_VALUE: Final = 128 << 10  # octets of one address field
MAX_ADDRESSES: Final = 5_000  # per message: ENVELOPE and Summary, embedded messages together as many again
MAX_MESSAGE_IDS: Final = 100  # of one field, the last ones
MAX_STRUCTURE: Final = 4 << 20  # octets of the ENVELOPEs of embedded messages together; further ones are empty
MAX_HEADER_TEXT: Final = 64 << 10  # characters of folded header text for search
MAX_BODY_TEXT: Final = 2 << 20  # characters of folded body text for search
MAX_TEXT_SOURCE: Final = 4 << 20  # octets of text parts that are read for search
MAX_UUENCODED: Final = 256 << 10  # octets of one uuencoded part that are decoded for search, or to tell its size
MAX_HTML: Final = 1 << 20  # characters of one HTML part that are read for search
MAX_PREVIEW: Final = 256  # characters
