"""What a visitor may choose, as plain values from a form, and what the library makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import inf

import pdrop_video as pv
from pdrop_video.common import checks
from pdrop_video.stream.terms import checked_for_asking

MOST_TEXT = 2000
"""Characters of a question, since a text is read before its tokens are counted; those `VideoLM.bounded` bounds."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one session.

    Attributes
    ----------
    model : str
        One of the names that the server offers.
    fps : float
        Frames to watch a second; 0 for the model's own.
    chunk : int
        Frames that the model takes at a time.
    ratios : str
        Share of the visual tokens left after each boundary, as "0.5, 0.25, 0.125", or "none".
    memory : int
        Most tokens that a layer remembers.
    evictor : str
        What is forgotten when the memory is full.
    probe : str
        A question known while watching, which decides what is kept; empty for none.
    ask_ratios : str
        Ratios of the pyramid over the memory while a question is answered; empty or "none" attends to everything.
    gate, reducer : str
        Which frames are encoded, and which visual tokens enter the model: a name, with parameters behind a colon if
        need be ("evs:keep=0.25"); empty or "none" lets everything through.
    """

    model: str = ""
    fps: float = 0
    chunk: int = 8
    ratios: str = "0.5, 0.25, 0.125"
    memory: int = 6144
    evictor: str = "pyramid"
    probe: str = ""
    ask_ratios: str = ""
    gate: str = "none"
    reducer: str = "none"

    def __post_init__(self) -> None:
        for name, least, most in (("fps", 0, 60), ("chunk", 1, 64), ("memory", 1, inf)):  # the server says its most
            object.__setattr__(self, name, checks.real(name, getattr(self, name), least, most))
        for name in ("model", "ratios", "evictor", "probe", "ask_ratios", "gate", "reducer"):
            given = getattr(self, name)
            object.__setattr__(self, name, "" if given is None else checked(name, given))
        for name in ("chunk", "memory"):  # the numbers of a form are floats
            if not (number := getattr(self, name)).is_integer():
                raise pv.ConfigError(f"{name} is {number}; expected a whole number.")
            object.__setattr__(self, name, int(number))
        self.asking()  # what is wrong is said now, not when a stream is opened or at the first question
        self._watching()

    def open(self, lm: pv.VideoLM) -> pv.VideoStream:
        """A stream with these settings."""
        if self.probe.strip():
            lm.bounded("probe", self.probe)
        return lm.stream(self._watching(), standing_question=self.probe.strip() or None)

    @property
    def uses_motion(self) -> bool:
        """Whether the gate looks at what the video's codec says of motion."""
        return self._watching().uses_motion

    def _watching(self) -> pv.Recipe:
        gate, reducer = (None if _nothing(method) else method.strip() for method in (self.gate, self.reducer))
        pyramid, memory = pv.Pyramid(ratios=_shares(self.ratios)), pv.Memory(tokens=self.memory, evictor=self.evictor)
        return pv.Recipe(gate, reducer, pyramid, memory)

    def asking(self) -> pv.Pyramid | None:
        """The pyramid of a question, if any."""
        shares = _shares(self.ask_ratios)
        return checked_for_asking(pv.Pyramid(ratios=shares)) if shares else None


def checked(name: str, text: object) -> str:
    """A text from a visitor, if it is one and of a length that a model can read."""
    if not isinstance(text, str):
        raise pv.ConfigError(f"{name} is {checks.shown(str(text)[:40])}; expected text.")
    if len(text) > MOST_TEXT:
        raise pv.ConfigError(f"{name} has {len(text):,} characters; expected {MOST_TEXT:,} at most.")
    return checks.text(name, text, empty=True)


def _nothing(text: str) -> bool:
    return text.strip().lower() in ("", "none")


def _shares(text: str) -> tuple[float, ...]:
    if _nothing(text):
        return ()
    try:
        shares = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise pv.ConfigError(f"ratios are {text!r}; expected numbers such as 0.5, 0.25, 0.125, or none.") from error
    if any(later > share for share, later in pairwise(shares)):
        raise pv.ConfigError(f"ratios are {text!r}, which rise; what was dropped can't come back: let them fall.")
    return shares
