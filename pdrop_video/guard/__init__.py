"""What strangers may let a server open, and how much of it they may have: for the server, and for the page.

Needs httpx, which both of them bring. Refuses to know models, requests and pages.
"""

from .allowance import Allowance, Exhausted
from .client import counted_by
from .fetched import fetched
from .opened import reading
from .relay import Relay, Route
from .rules import Guard, Refused, Source

__all__ = ["Allowance", "Exhausted", "Guard", "Refused", "Relay", "Route", "Source", "counted_by", "fetched", "reading"]
