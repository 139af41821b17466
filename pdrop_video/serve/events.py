"""What happened in a session, for whoever listens, in order and with numbers, so that one can go on after a break."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from typing import Any

_MOST = 1000
"""Events that are remembered for those who come late."""


class Events:
    """A bounded queue of events; each goes to every listener. Used within one event loop."""

    def __init__(self) -> None:
        self._past: deque[tuple[int, str, dict[str, Any]]] = deque(maxlen=_MOST)
        self._count, self._over = 0, False
        self._changed = asyncio.Event()

    def add(self, name: str, **data: Any) -> None:
        """Tell of something."""
        self._count += 1
        self._past.append((self._count, name, data))
        self._wake()

    def go_on(self, last: int) -> None:
        """Count from far behind another's last number, which may have told of more than is known here."""
        self._count = last + 2 * _MOST

    def end(self) -> None:
        """Nothing more comes."""
        self._over = True
        self._wake()

    @property
    def last(self) -> int:
        """The number of the newest event; 0 before the first."""
        return self._count

    async def after(self, number: int, patience: float) -> AsyncGenerator[tuple[int, str, dict[str, Any]] | None, None]:
        """All events after one, as they come; None whenever none came for so many seconds."""
        while True:
            changed = self._changed
            for each in [each for each in self._past if each[0] > number]:
                number = each[0]
                yield each
            if self._over:
                return
            if number >= self._count:
                try:
                    await asyncio.wait_for(changed.wait(), patience)
                except asyncio.TimeoutError:
                    yield None

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
