"""Which frames "N frames" are: each benchmark's own rule, as indices into a video's frames.

Knows numbers of frames. Refuses to know files and times.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np


def linspace(total: int, wanted: int, duration: float) -> list[int]:
    """Evenly from the first frame to the last, rounded down, as most harnesses do."""
    return sorted(set(np.linspace(0, total - 1, min(wanted, total)).astype(int).tolist()))


def middles(total: int, wanted: int, duration: float) -> list[int]:
    """The middle frame of each of N equal parts."""
    wanted = min(wanted, total)
    return [int((i + 0.5) * total / wanted) for i in range(wanted)]


def longvideobench(total: int, wanted: int, duration: float) -> list[int]:
    """LongVideoBench: at most one frame a second, ``int(total / n) * i`` for ``n = min(N, int(duration))``.

    The total is that of `at_rate`.
    """
    wanted = max(min(wanted, int(duration), total), 1)
    return [int(total / wanted) * i for i in range(wanted)]


def segments(total: int, wanted: int, duration: float) -> list[int]:
    """MVBench: half a step behind the beginning of each of N steps, each beginning rounded to a whole frame."""
    step = (total - 1) / wanted
    return sorted({int(step / 2 + round(step * i)) for i in range(wanted)})


def interior(total: int, wanted: int, duration: float) -> list[int]:
    """Video-MME-v2: at N points between the ends, which are left out, rounded down."""
    step = total / (wanted + 1)
    return sorted({int(step * i) for i in range(1, wanted + 1)})


def a_second(total: int, wanted: int, duration: float) -> list[int]:
    """ODV-Bench: the middle one of each of N equal parts, of which there are as many as seconds, or four, at most."""
    wanted = min(max(int(duration + 1), 4), wanted, total)
    edges = np.linspace(0, total, wanted + 1).astype(int).tolist()
    return [(first + behind - 1) // 2 for first, behind in pairwise(edges)]


RULES: dict[str, Callable[[int, int, float], list[int]]] = {
    "linspace": linspace,
    "middles": middles,
    "longvideobench": longvideobench,
    "segments": segments,
    "interior": interior,
    "a_second": a_second,
}
"""Rules by name: (frames there are, frames wanted, seconds) to increasing indices, each at most once."""

BY_RATE = {"longvideobench"}
"""Rules whose total is what a part's duration has at the file's rate, whatever frames there are: see `at_rate`."""


def at_rate(total: int, duration: float, rate: float) -> int:
    """Frames that a duration has at a rate, rounded down, at most those that there are.

    A frame that is shown in the last instant of the duration is not among them.
    """
    return max(min(int(duration * rate), total), 1)
