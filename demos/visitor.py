"""Who does something on the page, and from where: as gradio's requests tell. Knows nothing of sessions."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network

import gradio as gr


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks for something.

    Attributes
    ----------
    page : str
        The open page, which has another name after a reload; empty for none.
    client : str
        The address that the visitor's sessions are counted by; empty for one that is not counted.
    """

    page: str = ""
    client: str = ""

    @classmethod
    def of(cls, request: gr.Request) -> Visitor:
        """Who sent a request."""
        return cls(str(request.session_hash), counted_by(request.client.host if request.client else ""))


def counted_by(host: str) -> str:
    """The address by which a client is counted: of IPv6 the first half, because all behind that is the client's own."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, IPv6Address):
        return str(address.ipv4_mapped or ip_network((address, 64), strict=False))
    return str(address)
