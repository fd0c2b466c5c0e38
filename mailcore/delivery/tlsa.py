"""TLSA records as they come: one that nobody can use must not take the whole answer with it.

dnspython refuses an answer in which a digest has the wrong length, as if the DNS had failed, and then mail waits;
RFC 6698 §4.1 and RFC 7672 §2.1.1 want such a record passed over. Whoever imports this module has them read as they
are; `mailcore.delivery.tls.dane.usable` chooses.
"""

from __future__ import annotations

from typing import Any

import dns.immutable
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.TLSA
import dns.wire

# What a record says that is too short to say anything: usages of this number are private (RFC 6698 §7.2).
_NOTHING = 255


@dns.immutable.immutable
class TLSA(dns.rdtypes.ANY.TLSA.TLSA):
    """A record of whatever length."""

    # The library compares the length of the data with these.
    _cert_length_by_mtype: dict[int, int] = {}

    @classmethod
    def from_wire_parser(cls, rdclass: Any, rdtype: Any, parser: dns.wire.Parser, origin: Any = None) -> TLSA:
        octets = parser.get_remaining()
        usage, selector, matching = octets[:3] if len(octets) >= 3 else (_NOTHING,) * 3
        return cls(rdclass, rdtype, usage, selector, matching, octets[3:])


# `dns.rdata.register_type` takes only types that the library does not know.
dns.rdata._rdata_classes[dns.rdataclass.IN, dns.rdatatype.TLSA] = TLSA
