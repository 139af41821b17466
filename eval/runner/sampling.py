"""Which frames "N frames" are: each benchmark's own rule, as indices into a video's frames.

Knows numbers of frames. Refuses to know files and times.
"""

from __future__ import annotations

from collections.abc import Callable

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


RULES: dict[str, Callable[[int, int, float], list[int]]] = {
    "linspace": linspace,
    "middles": middles,
    "longvideobench": longvideobench,
}
"""Rules by name: (frames there are, frames wanted, seconds) to increasing indices, each at most once."""

BY_RATE = {"longvideobench"}
"""Rules whose total is what a part's duration has at the file's rate, whatever frames there are: see `at_rate`."""


def at_rate(total: int, duration: float, rate: float) -> int:
    """Frames that a duration has at a rate, rounded down, at most those that there are.

    A frame that is shown in the last instant of the duration is not among them.
    """
    return max(min(int(duration * rate), total), 1)
