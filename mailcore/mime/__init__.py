"""Our own byte-offset MIME reader: from raw octets to what IMAP, JMAP, search and the webmail need.

Nothing here raises for any input; every loop is bounded (see `limits`), and what exceeds a bound is opaque text.
"""

from mailcore.mime.types import Addr, Derived, Mailbox, Part, SearchText, Section, Summary

__all__ = ["Addr", "Derived", "Mailbox", "Part", "SearchText", "Section", "Summary"]
