"""Whom an address stands for. Knows numbers; resolves nothing."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network


def counted_by(host: str) -> str:
    """The address by which a client is counted: of IPv6 the first half, because all behind that is the client's own."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, IPv6Address):
        return str(address.ipv4_mapped or ip_network((address, 64), strict=False))
    return str(address)
