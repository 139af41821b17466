"""How much of something one address may have at a time, and all of them together. Knows no requests and no files."""

from __future__ import annotations

import threading
from collections import Counter

from ..errors import PDropError


class Exhausted(PDropError):
    """There is no more of it now; `shared` says whether all together have it, or the one address."""

    def __init__(self, message: str, shared: bool) -> None:
        super().__init__(message)
        self.shared = shared


class Allowance:
    """Counts what is taken and given back.

    Parameters
    ----------
    what : str
        Of what, for messages.
    each : int
        Most for one address.
    most : int
        Most for all of them.
    """

    def __init__(self, what: str, each: int, most: int) -> None:
        self.what, self.each, self.most = what, each, most
        self._taken: Counter[str] = Counter()
        self._changing = threading.Lock()

    @property
    def taken(self) -> int:
        """By all of them."""
        with self._changing:
            return self._taken.total()

    def take(self, client: str, amount: int = 1) -> None:
        """Take some for an address.

        Raises
        ------
        Exhausted
            If that would be too much; nothing is taken then.
        """
        with self._changing:
            if self._taken[client] + amount > self.each:
                raise Exhausted(
                    f"Your address may have {self.each:,} {self.what} here at a time, and has them; try again in a "
                    "minute.",
                    False,
                )
            if self._taken.total() + amount > self.most:
                raise Exhausted(
                    f"All the {self.most:,} {self.what} of this server are taken; try again in a few minutes.", True
                )
            self._taken[client] += amount

    def give_back(self, client: str, amount: int = 1) -> None:
        """Give back what was taken."""
        with self._changing:
            self._taken[client] -= amount
            if self._taken[client] <= 0:
                del self._taken[client]
