"""What a model said without being asked, against the moments at which something was to be said.

Moments and what was said are matched one to one, nearest first, within a tolerance. Knows numbers and text. Refuses to
know benchmarks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Said:
    """Something that was said.

    Attributes
    ----------
    at : float
        Second of the video.
    text : str
    """

    at: float
    text: str


def joined(said: Sequence[Said], gap: float) -> list[Said]:
    """Utterances no more than `gap` seconds apart are one that goes on: at the first one's time, with all words."""
    found: list[Said] = []
    last = 0.0
    for one in said:
        if found and one.at - last <= gap:
            found[-1] = Said(found[-1].at, f"{found[-1].text} {one.text}")
        else:
            found.append(one)
        last = one.at
    return found


def matched(said: Sequence[float], due: Sequence[float], tolerance: float) -> list[tuple[int, int]]:
    """Pairs of what was said and what was due, by their numbers: the nearest pair first, each in one pair only.

    Examples
    --------
    >>> matched([1, 5, 9], [4, 6], 3)
    [(1, 0), (2, 1)]
    """
    near = sorted(
        (abs(when - moment), i, j)
        for i, when in enumerate(said)
        for j, moment in enumerate(due)
        if abs(when - moment) <= tolerance
    )
    found: list[tuple[int, int]] = []
    for _, i, j in near:
        if all(i != one and j != other for one, other in found):
            found.append((i, j))
    return found


def f1(right: float, said: float, due: float) -> float:
    """Harmonic mean of precision and recall; 0 where nothing is right."""
    return 2 * right / (said + due) if right else 0.0
