"""Subtitles: from an srt file to cues with times and plain text, and which of them belong to the frames watched.

Knows times and text. Refuses to know videos, prompts and benchmarks.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import srt

import pdrop_video as pv

_TAGS = re.compile(r"</?(?:font|b|i|u)\b[^>]*>", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Cue:
    """One subtitle: shown from `start` to `end`, in seconds of the video."""

    start: float
    end: float
    text: str

    @property
    def middle(self) -> float:
        """The moment that it enters a stream at."""
        return (self.start + self.end) / 2

    def covers(self, second: float, least: float = 0.0) -> bool:
        """Whether it is shown at `second`, its very begin and end left out, as the benchmarks' own code does it.

        A cue shorter than `least` seconds is widened to that, about its middle.
        """
        return abs(second - self.middle) < max(self.end - self.start, least) / 2


def plain(text: str) -> str:
    """Text without formatting tags, on one line."""
    return " ".join(_TAGS.sub("", text).split())


def load_srt(path: Path) -> list[Cue]:
    """Read an srt file; cues without text are left out.

    Raises
    ------
    ConfigError
        If the file is not srt or not UTF-8.
    """
    try:
        parsed = list(srt.parse(path.read_text(encoding="utf-8-sig"), ignore_errors=True))
    except UnicodeDecodeError as error:
        raise pv.ConfigError(f"{path} is not UTF-8 ({error.reason}); expected an srt file as released.") from error
    cues = [Cue(c.start.total_seconds(), c.end.total_seconds(), plain(c.content)) for c in parsed]
    cues = sorted((cue for cue in cues if cue.text), key=lambda cue: (cue.start, cue.end))
    if not cues and path.stat().st_size > 0:
        raise pv.ConfigError(f"{path} holds no subtitle; expected an srt file with a number, times and text for each.")
    return cues


def covering(cues: Sequence[Cue], seconds: Sequence[float], least: float = 0.0) -> list[Cue]:
    """Those cues that are shown at one of the times at least, in order.

    Parameters
    ----------
    cues : sequence of Cue
    seconds : sequence of float
        Increasing.
    least : float
        See `Cue.covers`.
    """
    kept = []
    for cue in cues:
        at = bisect_left(seconds, cue.middle)  # a cue reaches equally far to both sides: the nearest times decide
        if any(cue.covers(second, least) for second in seconds[max(at - 1, 0) : at + 1]):
            kept.append(cue)
    return kept
