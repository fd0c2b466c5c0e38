"""Which addresses outbound mail may connect to: anybody can publish an MX record that points into our own network."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# IPv6 ranges that only wrap an IPv4 address: what counts is the address inside.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def may_reach(address: str, allowed: Sequence[Network]) -> bool:
    """Whether mail may be sent to this IP address: a global one, or one that the administrator allows."""
    ip = ipaddress.ip_address(address)
    inner = _inner(ip)
    for network in allowed:
        if any(each in network for each in (ip, inner) if each.version == network.version):
            return True
    if isinstance(inner, ipaddress.IPv6Address) and inner.is_site_local:
        return False  # fec0::/10, which networks of long ago still use; Python takes it for global
    return inner.is_global and not inner.is_multicast and not inner.is_reserved


def _inner(ip: IPAddress) -> IPAddress:
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in _NAT64:
            return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        return ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None) or ip
    return ip
