"""Who watches at a time, and the line in front of them. Knows no sessions: a seat is taken for a while, by a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Seats:
    """So many seats; whoever finds none free waits in a line, first come, first served.

    Parameters
    ----------
    number : int
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._line: list[threading.Event] = []
        self._seated: list[threading.Event] = []
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, tell: Callable[[int], None], stopped: threading.Event) -> Iterator[None]:
        """Wait for a seat and hold it for the block, or until `stopped`; once that is set, wait no more.

        Parameters
        ----------
        tell : callable
            Gets the place in the line, from 1, now and then while there is one.
        stopped : threading.Event
            Whoever waits for a source that hangs may be stopped long before the block ends; others need not wait.
        """
        with self._changed:
            self._line.append(stopped)
            while (place := self._place(stopped)) > 0 and not stopped.is_set():
                tell(place)
                self._changed.wait(0.2)
            self._line.remove(stopped)
            self._seated.append(stopped)
        try:
            yield
        finally:
            with self._changed:
                self._seated.remove(stopped)
                self._changed.notify_all()

    def _place(self, stopped: threading.Event) -> int:
        """How many must go first, and one."""
        free = self._number - sum(not each.is_set() for each in self._seated)
        ahead = [each for each in self._line[: self._line.index(stopped)] if not each.is_set()]
        return len(ahead) - free + 1
