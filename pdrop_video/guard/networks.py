"""Which numbers are on the public network, by IANA's registries as they are written here.

Python's own tables differ from release to release, and know neither every form in which IPv6 carries an address of IPv4
nor the numbers at which a cloud answers its own machines. Resolves nothing.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

# The special-purpose registry (RFC 6890), what is not globally reachable; then multicast, and what is reserved.
_NOT_GLOBAL_4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
            "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
            "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
            "168.63.129.16/32",  # global by the registry, but Azure's machines find their host there
        ),
    )
)  # fmt: skip
_GLOBAL_6 = IPv6Network("2000::/3")
"""All that was ever given out; `::/8` (compatible and translated IPv4), `fc00::/7` and `fec0::/10` were not."""
_NOT_GLOBAL_6 = tuple(map(IPv6Network, ("2001::/23", "2001:db8::/32", "3fff::/20")))
_MAPPED, _NAT64 = IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96")
_TEREDO, _6TO4 = IPv6Network("2001::/32"), IPv6Network("2002::/16")
_ALL = 2**32 - 1


def is_public(number: str) -> bool:
    """Whether a number is global, and every address of IPv4 that it carries, too.

    Parameters
    ----------
    number : str
        An address as `socket.getaddrinfo` gives it. One with a scope ("fe80::1%eth0") is of one network alone.
    """
    try:
        address = ip_address(number)
    except ValueError:
        return False
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_GLOBAL_4)
    if address.scope_id is not None:
        return False
    carried = _carried(address)
    if carried:
        return all(is_public(str(inner)) for inner in carried)
    return address in _GLOBAL_6 and not any(address in network for network in _NOT_GLOBAL_6)


def _carried(address: IPv6Address) -> tuple[IPv4Address, ...]:
    """The addresses of IPv4 to which packets for this one go in the end."""
    bits = int(address)
    if address in _MAPPED or address in _NAT64:
        return (IPv4Address(bits & _ALL),)
    if address in _6TO4:
        return (IPv4Address(bits >> 80 & _ALL),)
    if address in _TEREDO:  # the server's, and the client's with its bits turned
        return IPv4Address(bits >> 64 & _ALL), IPv4Address(~bits & _ALL)
    return ()
