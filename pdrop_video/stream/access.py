"""The locks of one stream: `serial` for one caller at a time, `turn` for a turn of its model, `whole` for both.

Knows threads and the model's turnstile; refuses to know models, frames and questions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol
from weakref import WeakSet

from ..engine import Turnstile
from ..errors import StreamError


class Dependent(Protocol):
    """What ends with its stream: an answer that is open, a feed."""

    def end(self) -> None:
        """Stop and let go of memory, without waiting; called within a turn."""


class StreamAccess:
    """Who may use one stream, and when.

    Parameters
    ----------
    turnstile : Turnstile
        The model's.

    Attributes
    ----------
    turnstile : Turnstile
    saving : Turnstile
        Held from before a stream's state is read until it is in its file, so that a later save is the one that stays.
    closed : bool
    dependents : WeakSet of Dependent
    """

    def __init__(self, turnstile: Turnstile) -> None:
        self.turnstile, self.saving = turnstile, Turnstile()
        self.closed = False
        self.dependents: WeakSet[Any] = WeakSet()  # added to while the stream is whole, so never while it is read
        self._serial = Turnstile()

    def check(self) -> None:
        """Refuse to go on with a closed stream.

        Raises
        ------
        StreamError
        """
        if self.closed:
            raise StreamError("the stream was closed; open another with VideoLM.stream, or resume one from a file.")

    @contextmanager
    def whole(self, first: bool = False) -> Iterator[None]:
        """Alone on the stream, between pushes and kept turns and never amid one, and within a turn of the model."""
        with self.serial(), self.turn(first):
            yield

    @contextmanager
    def serial(self) -> Iterator[None]:
        """Alone on the stream, without a turn of the model."""
        self.check()
        with self._serial:
            self.check()
            yield

    @contextmanager
    def turn(self, first: bool = False) -> Iterator[None]:
        """Within a turn of the model, for work that does not touch what the stream remembers.

        With `first` somebody waits for it at a screen, and it may go before others; see `Turnstile.first`.
        """
        self.check()
        with self.turnstile.first(self) if first else self.turnstile:
            self.check()
            yield

    def give_way(self) -> None:
        """Between two pieces of work: let others have their turn, and stop if the stream was closed meanwhile."""
        self.turnstile.give_way()
        self.check()

    def close(self, free: Callable[[], None]) -> None:
        """Stop all work on the stream at its next turn, then free what it holds; a second call does nothing."""
        self.closed = True
        with self._serial, self.turnstile:
            for each in list(self.dependents):
                each.end()
            free()
