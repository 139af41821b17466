"""Which frames are wanted: so many a second, between two times, in chunks of so many.

Exact arithmetic in fractions of a second, on times alone: nothing here has seen a frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from numbers import Integral, Real

from ..errors import ConfigError

# Some containers round times to whole milliseconds: a frame due at 2/3 s may be stamped 0.666 s, before its tick.
TOLERANCE = Fraction(1, 1000)


@dataclass(frozen=True, slots=True)
class Sampling:
    """The caller's wishes, checked.

    Attributes
    ----------
    fps : Fraction or None
        Frames to take a second; None for every frame.
    chunk : int
        Frames in a chunk.
    start, end : Fraction and Fraction or None
        Take frames with `start <= seconds < end`.
    """

    fps: Fraction | None
    chunk: int
    start: Fraction
    end: Fraction | None

    @classmethod
    def of(cls, fps: object, chunk: object, start: object, end: object) -> Sampling:
        """Check plain values; None stands for every frame, the beginning and the end.

        Raises
        ------
        ConfigError
            If a value is out of range.
        """
        rate = None if fps is None else _positive("fps", fps)
        if isinstance(chunk, bool) or not isinstance(chunk, Integral) or chunk < 1:
            raise ConfigError(f"chunk is {chunk!r}; expected a whole number of frames, at least 1, such as 8.")
        first = Fraction(0) if start is None else _not_negative("start", start)
        last = None if end is None else _positive("end", end)
        if last is not None and last <= first:
            raise ConfigError(f"end is {end!r} and start is {start!r}; expected an end after the start, in seconds.")
        return cls(rate, int(chunk), first, last)


class Ticks:
    """The frames of a sampling rate: the first frame at or after each tick, each frame at most once.

    Ticks lie 1/fps seconds apart, counted from the start of the video. A tick that sees no frame of its own before the
    next one is passed over, so a source slower than `fps` gives each of its frames once.

    Parameters
    ----------
    fps : Fraction or None
        Ticks a second; None takes every frame.

    Examples
    --------
    Two a second, from frames at irregular times; nothing new is shown for the tick at 1 s until 1.6 s, which also
    serves the tick at 1.5 s:

    >>> ticks = Ticks(Fraction(2))
    >>> [second for second in (0, 0.2, 0.6, 0.7, 1.6, 1.9, 2.0) if ticks.take(Fraction(second))]
    [0, 0.6, 1.6, 2.0]
    """

    def __init__(self, fps: Fraction | None) -> None:
        self._fps = fps
        self._tick = 0

    def take(self, time: Fraction) -> bool:
        """Decide on the frame at `time` seconds; times must come in increasing order."""
        if self._fps is None:
            return True
        passed = math.floor((time + TOLERANCE) * self._fps)
        if passed < self._tick:
            return False
        self._tick = passed + 1
        return True


def _positive(name: str, value: object) -> Fraction:
    number = _not_negative(name, value)
    if number == 0:
        raise ConfigError(f"{name} is {value!r}; expected a number above 0.")
    return number


def _not_negative(name: str, value: object) -> Fraction:
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value) or value < 0:
        raise ConfigError(f"{name} is {value!r}; expected a finite number that is not negative, such as 2 or 0.5.")
    return value if isinstance(value, Fraction) else Fraction(float(value))
