"""What one visitor's session needs of the server that it lives on; `demos.sessions.Sessions` gives it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

import pdrop_video as pv


class Host(Protocol):
    """The server, as a session sees it: a clock, two limits, models, and a line to stand in.

    Attributes
    ----------
    clock : callable
        Seconds.
    longest : float
        Most seconds of a video that is not live.
    largest : int
        Most tokens that a session's layers may be set to remember.
    """

    clock: Callable[[], float]
    longest: float
    largest: int

    def model(self, name: str) -> pv.VideoLM:
        """A model by the name under which the server offers it."""

    def seat(self, tell: Callable[[int], None], stopped: threading.Event) -> AbstractContextManager[None]:
        """A seat among those that watch, for as long as a block takes; `tell` is given the place in the line."""
