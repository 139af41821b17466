"""Moments of a video: how they are written, and those that an answer rested on. Knows answers, and no page."""

from __future__ import annotations

from collections import defaultdict

import pdrop_video as pv

_MOST = 3
"""Moments that are named for one answer."""
_APART = 0.75
"""Seconds; nearer ones count as one moment."""
_LEAST = 0.4
"""Share of the strongest moment's attention from which on another is named besides."""


def clock(seconds: float) -> str:
    """A moment or a length, in words: "4.5 s", "12:07" or "1:00:03"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def rested(answer: pv.Answer) -> tuple[float, ...]:
    """The moments that an answer attended to most, over all stages, in their order.

    Parameters
    ----------
    answer : Answer

    Returns
    -------
    tuple of float
        At most three, none of them next to another; none where it attended to no picture.
    """
    weights: dict[float, float] = defaultdict(float)
    for stage in answer.evidence:
        for seconds, weight in zip(stage.seconds, stage.weight, strict=True):
            weights[seconds] += weight
    chosen: list[float] = []
    strongest = max(weights.values(), default=0.0)
    for seconds in sorted(weights, key=lambda each: (-weights[each], each)):
        if len(chosen) == _MOST or weights[seconds] < _LEAST * strongest or not strongest:
            break
        if all(abs(seconds - other) >= _APART for other in chosen):
            chosen.append(seconds)
    return tuple(sorted(chosen))


def chip(seconds: float, said: str = "") -> str:
    """A button that shows a moment: the page's script finds it by `data-at`."""
    name = clock(seconds)
    label = f"Show the video at {name}{said and f': {said}'}"
    return f'<button type="button" class="pv-at" data-at="{seconds:.2f}" aria-label="{label}">{name}</button>'
