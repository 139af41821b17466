"""Beginnings of conversations that are remembered, so that no video is watched twice. Bounded; the oldest use goes."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from weakref import WeakValueDictionary

from ..stream import AsyncVideoStream


@dataclass(frozen=True, slots=True)
class Prefix:
    """A stream after some steps of a conversation, which nobody changes any more: who goes on forks it.

    Attributes
    ----------
    stream : AsyncVideoStream
    texts : int
        Tokens of the prompt up to here, but for the visual ones.
    """

    stream: AsyncVideoStream
    texts: int

    @property
    def tokens(self) -> int:
        """Those of the prompt up to here: of texts, and the visual ones that entered."""
        return self.texts + self.stream.stream.visual_tokens

    @property
    def bytes(self) -> int:
        """What it remembers, as if nothing of it was shared with others."""
        status = self.stream.status
        return status.cache_bytes + status.archive_bytes


class Prefixes:
    """Of one server.

    Parameters
    ----------
    most, most_bytes : int
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._known: OrderedDict[str, Prefix] = OrderedDict()
        self._making: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._known)

    @property
    def bytes(self) -> int:
        """What all of them remember."""
        return sum(prefix.bytes for prefix in self._known.values())

    def making(self, name: str) -> asyncio.Lock:
        """Held by who makes a prefix: others who want it wait for it."""
        lock = self._making.get(name)
        if lock is None:
            lock = self._making[name] = asyncio.Lock()
        return lock

    def longest(self, names: list[str]) -> tuple[int, Prefix | None]:
        """How many of some steps are remembered, by their names, and what is after them."""
        for count in range(len(names), 0, -1):
            if (prefix := self._known.get(names[count - 1])) is not None:
                self._known.move_to_end(names[count - 1])
                return count, prefix
        return 0, None

    def keep(self, name: str, prefix: Prefix) -> None:
        """Remember one more; what was not used for longest is forgotten, once nobody answers from it any more."""
        self._known[name] = prefix
        self._known.move_to_end(name)
        while self._known and (len(self._known) > self._most or self.bytes > self._most_bytes):
            self._known.popitem(last=False)
