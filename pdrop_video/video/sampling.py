"""Which frames are wanted: so many a second, so many in all, or at given seconds; between two times, in chunks.

Exact arithmetic in fractions of a second, on times alone: nothing here has seen a frame.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from typing import Protocol, TypeAlias

from ..common.checks import real, shown, whole
from ..errors import ConfigError

# Some containers round times to whole milliseconds: a frame due at 2/3 s may be stamped 0.666 s, before its tick.
TOLERANCE = Fraction(1, 1000)
# A time that went through a float and back is off by far less than any two frames lie apart.
_FLOAT_ERROR = Fraction(1, 1_000_000)
# No more frames than days of video have are asked for one by one; whoever counts on for ever means something else.
_MOST_TIMES = 10_000_000

Rule: TypeAlias = Callable[[Sequence[Fraction]], Iterable[float | Fraction]]
"""From the times of all frames, in increasing order, to those at which frames are taken."""


class Wanted(Protocol):
    """Decides, frame by frame in the order of time, which to take."""

    def take(self, time: Fraction) -> bool:
        """Decide on the frame at `time` seconds; times must come in increasing order."""

    @property
    def due(self) -> Fraction | None:
        """No frame before this time, in seconds, will be taken any more; None if no frame at all will be."""


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
    frames : int or None
        Frames to take in all, evenly spaced among those between `start` and `end`; replaces `fps`.
    at : tuple of Fraction or None
        Times whose frames to take, in increasing order; replaces all of the above.
    rule : callable or None
        Gives `at` from the times of all frames, once these are known.
    """

    fps: Fraction | None
    chunk: int
    start: Fraction = Fraction(0)
    end: Fraction | None = None
    frames: int | None = None
    at: tuple[Fraction, ...] | None = None
    rule: Rule | None = None

    @classmethod
    def of(
        cls,
        fps: object,
        chunk: object,
        start: object = None,
        end: object = None,
        frames: object = None,
        at: object = None,
    ) -> Sampling:
        """Check plain values; None stands for every frame, the beginning and the end.

        Raises
        ------
        ConfigError
            If a value is out of range, or two of them contradict each other.
        """
        rate = None if fps is None else _positive("fps", fps)
        per_chunk = whole("chunk", chunk)
        first = Fraction(0) if start is None else _not_negative("start", start)
        last = None if end is None else _positive("end", end)
        if last is not None and last <= first:
            raise ConfigError(
                f"end is {shown(end)} and start is {shown(start)}; expected an end after the start, in seconds."
            )
        number = None if frames is None else whole("frames", frames)
        if at is None:
            return cls(rate, per_chunk, first, last, number)
        if number is not None or start is not None or end is not None:
            raise ConfigError("at names every frame to take; leave out frames, start and end, or leave out at.")
        return cls(rate, per_chunk, rule=at) if callable(at) else cls(rate, per_chunk, at=_times(at))

    def knowing(self, times: Sequence[Fraction]) -> Sampling:
        """The same wishes where the times of all frames are known: what a rule would take of them."""
        return self if self.rule is None else replace(self, at=_times(self.rule(times)), rule=None)

    @property
    def picks(self) -> bool:
        """Whether the frames' times must be known before the first one can be chosen."""
        return self.frames is not None or self.at is not None or self.rule is not None

    def over(self, time: Fraction) -> bool:
        """Whether no frame at `time` or later is wanted."""
        return self.end is not None and time >= self.end - _FLOAT_ERROR

    def wanted(self, times: Sequence[Fraction] = ()) -> Wanted:
        """Give the rule that takes frames; `times` are those of all frames, needed where `picks`."""
        if self.at is not None:
            return Picks(times[shown_at(times, second)] for second in self.at)
        if self.frames is not None:
            within = times[bisect_left(times, self.start - _FLOAT_ERROR) :]
            within = within if self.end is None else within[: bisect_left(within, self.end - _FLOAT_ERROR)]
            return Picks(within[index] for index in evenly(self.frames, len(within)))
        return Ticks(self.fps, max(self.start - _FLOAT_ERROR, Fraction(0)))

    def numbers(self, times: Sequence[Fraction]) -> list[int]:
        """Which frames to take [wanted], by their numbers, of a video whose frames have these times."""
        wanted, chosen = self.wanted(times), []
        for number, time in enumerate(times):
            if self.over(time):
                break
            if wanted.take(time):
                chosen.append(number)
        return chosen


class Ticks:
    """The frames of a sampling rate: the first frame at or after each tick, each frame at most once.

    Ticks lie 1/fps seconds apart, counted from the start of the video. A tick that sees no frame of its own before the
    next one is passed over, so a source slower than `fps` gives each of its frames once.

    Parameters
    ----------
    fps : Fraction or None
        Ticks a second; None takes every frame.
    start : Fraction
        Frames before this time serve their ticks, but are not taken.

    Examples
    --------
    Two a second, from frames at irregular times; nothing new is shown for the tick at 1 s until 1.6 s, which also
    serves the tick at 1.5 s:

    >>> ticks = Ticks(Fraction(2))
    >>> [second for second in (0, 0.2, 0.6, 0.7, 1.6, 1.9, 2.0) if ticks.take(Fraction(second))]
    [0, 0.6, 1.6, 2.0]
    """

    def __init__(self, fps: Fraction | None, start: Fraction = Fraction(0)) -> None:
        self._fps = fps
        self._start = start
        # The tick at or before `start` may be served by a frame before it; no earlier tick can matter.
        self._tick = 0 if fps is None else math.floor((start + TOLERANCE) * fps)

    @property
    def due(self) -> Fraction:
        """No frame before this time will be taken, nor serves a tick that matters."""
        return self._start if self._fps is None else self._tick / self._fps - TOLERANCE

    def take(self, time: Fraction) -> bool:
        """Decide on the frame at `time` seconds; times must come in increasing order."""
        if self._fps is not None:
            passed = math.floor((time + TOLERANCE) * self._fps)
            if passed < self._tick:
                return False
            self._tick = passed + 1
        return time >= self._start


class Picks:
    """Frames chosen beforehand by their times: for each, the first frame at or after it, each frame at most once.

    Parameters
    ----------
    times : iterable of Fraction
        In increasing order; repeated times count once.
    """

    def __init__(self, times: Iterable[Fraction]) -> None:
        self._times = deque(times)

    @property
    def due(self) -> Fraction | None:
        """The next chosen time; None after the last."""
        return self._times[0] if self._times else None

    def take(self, time: Fraction) -> bool:
        """Decide on the frame at `time` seconds; times must come in increasing order."""
        taken = False
        while self._times and self._times[0] <= time:
            self._times.popleft()
            taken = True
        return taken


def evenly(number: int, of: int) -> list[int]:
    """Give the indices `floor(i (of - 1) / (number - 1))`: `numpy.linspace(0, of - 1, number, dtype=int)`.

    Exact, where floats may fall just below a whole number. All of them if there are no more than `number`.

    >>> evenly(4, 11)
    [0, 3, 6, 10]
    """
    if number >= of:
        return list(range(of))
    return [index * (of - 1) // max(number - 1, 1) for index in range(number)]


def shown_at(times: Sequence[Fraction], second: Fraction) -> int:
    """Give the index of the frame on screen at `second`: the last one that is not later, or else the first."""
    return max(bisect_right(times, second + _FLOAT_ERROR) - 1, 0)


def _times(at: object) -> tuple[Fraction, ...]:
    expected = "expected the seconds of the frames to take, such as [0.0, 2.5, 60.0]."
    if getattr(getattr(at, "dtype", None), "kind", "") in ("m", "M"):
        raise ConfigError(f"at is {shown(at)}, times of a calendar; {expected}")
    try:
        values = at.tolist() if hasattr(at, "tolist") else at
    except (RuntimeError, TypeError, ValueError):  # a tensor without values
        values = None
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise ConfigError(f"at is {shown(at)}; {expected}")
    listed = list(islice(values, _MOST_TIMES + 1))
    if not 1 <= len(listed) <= _MOST_TIMES:
        said = "is empty" if not listed else f"names more than {_MOST_TIMES:,} frames"
        raise ConfigError(f"at {said}; {expected}")
    return tuple(sorted(_not_negative("a time of at", value) for value in listed))


def _positive(name: str, value: object) -> Fraction:
    return _exact(value, real(name, value, 0, above=True))


def _not_negative(name: str, value: object) -> Fraction:
    return _exact(value, real(name, value, 0))


def _exact(value: object, number: float) -> Fraction:
    return value if isinstance(value, Fraction) else Fraction(number)
