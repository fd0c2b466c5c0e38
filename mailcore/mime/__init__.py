"""Our own byte-offset MIME reader: from raw octets to what IMAP, JMAP, search and the webmail need.

Nothing here raises for any input; every loop is bounded (see `limits`), and what exceeds a bound is opaque text.

    parse            everything the store keeps beside a message
    unpack_parts     its part table; section, section_range, decode_part, decode_text, body_parts work on it
    header_fields    IMAP's HEADER.FIELDS; header_values, decode_header, parse_addresses, parse_date read fields
    picker           HEADER.FIELDS from what is kept beside a message
    fold             the form in which text is searched
"""

from mailcore.mime.addresses import parse_addresses, people
from mailcore.mime.cached import CACHED_FIELDS, picker
from mailcore.mime.dates import parse_date
from mailcore.mime.decode import decode_part, decode_text
from mailcore.mime.derive import parse
from mailcore.mime.envelope import message_ids
from mailcore.mime.fold import FOLD_VERSION, fold
from mailcore.mime.headers import decode_header, header_fields, header_values
from mailcore.mime.html import text_of_html
from mailcore.mime.parts import body_parts, unpack_parts
from mailcore.mime.section import pick, section, section_range
from mailcore.mime.structure import body_from
from mailcore.mime.subject import base_subject, is_reply
from mailcore.mime.types import Addr, Derived, Mailbox, Part, SearchText, Section, Summary

__all__ = [
    "CACHED_FIELDS",
    "FOLD_VERSION",
    "Addr",
    "Derived",
    "Mailbox",
    "Part",
    "SearchText",
    "Section",
    "Summary",
    "base_subject",
    "body_from",
    "body_parts",
    "decode_header",
    "decode_part",
    "decode_text",
    "fold",
    "header_fields",
    "header_values",
    "is_reply",
    "message_ids",
    "parse",
    "parse_addresses",
    "parse_date",
    "people",
    "pick",
    "picker",
    "section",
    "section_range",
    "text_of_html",
    "unpack_parts",
]
