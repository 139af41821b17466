"""When is a frame shown? From a container's time stamps, good or bad, to seconds that only go forward.

Exact arithmetic in fractions of a second. The clock has never seen a picture or a file, and it does not count frames:
a frame's index says nothing about its time when the frame rate varies.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

# Codecs reorder at most 16 frames. Times that stay back for longer are no disorder: the source's clock was set back.
PATIENCE = 16


class Clock:
    """Seconds from the start of the video, strictly increasing.

    Parameters
    ----------
    start : Fraction or None
        The stream's start time in seconds, on the container's own scale; None takes the first frame's time.
    step : Fraction
        Time between frames in seconds, for frames that carry no time at all.

    Attributes
    ----------
    untimed, backward, restarts : int
        Frames without a presentation time, frames refused because their time did not go forward, and how often the
        source's clock was set back for good (as in files joined end to end).

    Examples
    --------
    A stream that starts at 1.4 s; the third frame repeats a time and is refused:

    >>> clock = Clock(Fraction(14, 10), step=Fraction(1, 25))
    >>> [clock.read(Fraction(ms, 1000)) for ms in (1400, 1500, 1500, 1600)]
    [Fraction(0, 1), Fraction(1, 10), None, Fraction(1, 5)]
    """

    def __init__(self, start: Fraction | None, step: Fraction) -> None:
        self.last: Fraction | None = None
        self.untimed = self.backward = self.restarts = 0
        self._origin = start
        self._step = step
        self._behind = 0

    def read(self, stamp: Fraction | None, decoded: Fraction | None = None) -> Fraction | None:
        """Give the frame's time, or None for a frame that must be skipped.

        Parameters
        ----------
        stamp : Fraction or None
            The frame's presentation time on the container's scale, in seconds; None if it carries none.
        decoded : Fraction or None
            Its decoding time on the same scale, the second best: used for a frame without `stamp`, if it goes forward.

        Returns
        -------
        Fraction or None
            Seconds from the start of the video, later than every time given before; None if the frame's time repeats
            or goes back.
        """
        if stamp is None:
            self.untimed += 1
            time = self._guess(decoded)
        else:
            time = self._since_start(stamp)
        if self.last is not None and time <= self.last:
            self._behind += 1
            if self._behind <= PATIENCE:
                self.backward += 1
                return None
            time = self._restart(time)
        self._behind = 0
        self.last = time
        return time

    def before(self, stamp: Fraction | None, decoded: Sequence[Fraction | None]) -> list[Fraction | None]:
        """Give times to frames that carry none and come before one that may: they get what room it leaves.

        Parameters
        ----------
        stamp : Fraction or None
            The presentation time of the frame after them, which is read next and keeps its time.
        decoded : sequence of Fraction or None
            The decoding time of each, the second best.

        Returns
        -------
        list of Fraction or None
            As `read` gives them; None also for a frame that is shown before the start of the video.
        """
        if stamp is None:
            return [self.read(None, time) for time in decoded]
        if self.last is None and (self._origin is None or stamp < self._origin):
            early = [time for time in decoded if time is not None and time < stamp]
            self._origin = min(early, default=stamp - len(decoded) * self._step)
        return [self._between(time, stamp, len(decoded) - place) for place, time in enumerate(decoded)]

    def _between(self, decoded: Fraction | None, stamp: Fraction, left: int) -> Fraction | None:
        """The time of a frame that carries none, `left` frames before one that does."""
        self.untimed += 1
        limit = self._since_start(stamp)
        if self.last is None:
            guesses = [limit - left * self._step]
        else:  # a step after the one before it, or in its share of a gap that is narrower
            guesses = [self.last + self._step, self.last + (limit - self.last) / (left + 1)]
        if decoded is not None and self._origin is not None:
            guesses.insert(0, decoded - self._origin)
        for time in guesses:
            if (time >= 0 if self.last is None else time > self.last) and time < limit:
                self.last = time
                return time
        self.backward += 1
        return None

    def _guess(self, decoded: Fraction | None) -> Fraction:
        time = None if decoded is None else self._since_start(decoded)
        if self.last is None:
            return time or Fraction(0)
        return time if time is not None and time > self.last else self.last + self._step

    def _since_start(self, stamp: Fraction) -> Fraction:
        if self._origin is None or (self.last is None and stamp < self._origin):
            self._origin = stamp
        return stamp - self._origin

    def _restart(self, time: Fraction) -> Fraction:
        """Let the times go on one step after the last one, from a clock that was set back."""
        assert self.last is not None
        self.restarts += 1
        following = self.last + self._step
        self._origin = (self._origin or Fraction(0)) - (following - time)
        return following
