"""Where the time of a process goes: stopwatches by part, and everything between them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import TypeVar

T = TypeVar("T")

PARTS = ("decode", "model")


class Clock:
    """Seconds by part; what no part claims belongs to the runner.

    Attributes
    ----------
    total : dict
        Seconds of each part since the beginning.

    Examples
    --------
    >>> clock = Clock()
    >>> with clock.part("model"):
    ...     pass
    >>> sorted(clock.lap())
    ['decode', 'model', 'runner']
    """

    def __init__(self) -> None:
        self.total = dict.fromkeys(PARTS, 0.0)
        self._lap, self._at_lap = perf_counter(), dict(self.total)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the block's time as that part's."""
        begun = perf_counter()
        try:
            yield
        finally:
            self.total[name] += perf_counter() - begun

    def drawn(self, name: str, values: Iterator[T]) -> Iterator[T]:
        """Values of an iterator; the time that it takes to give each is the part's."""
        end = object()
        while True:
            with self.part(name):
                value = next(values, end)
            if value is end:
                return
            yield value  # type: ignore[misc]

    def lap(self) -> dict[str, float]:
        """Seconds since the last lap by part, and begin anew."""
        now = perf_counter()
        spent = {name: self.total[name] - self._at_lap[name] for name in PARTS}
        spent["runner"] = max(now - self._lap - sum(spent.values()), 0.0)
        self._lap, self._at_lap = now, dict(self.total)
        return spent
