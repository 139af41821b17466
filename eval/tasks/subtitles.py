"""Which subtitles belong to the frames watched. Knows times. Refuses to know videos, prompts and benchmarks."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from pdrop_video.video.subtitles import Cue


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


def spoken(cues: Sequence[Cue], seconds: Sequence[float]) -> list[str]:
    """The text that is shown at each of the times, once for each of them; of several cues at once the first."""
    shown = (next((cue.text for cue in cues if cue.covers(second)), "") for second in seconds)
    return [text for text in shown if text]
