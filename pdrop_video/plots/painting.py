"""What became of each place of a picture, and how that is painted over it.

Brightness says whether a place is remembered, the edge around it what a gate or a reducer did with it. Knows arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]

_DIMMED = 0.18
"""Brightness of a place that is not remembered."""


class Fate(IntEnum):
    """What became of a place of a picture."""

    KEPT = 0
    """Remembered as it was."""
    MEAN = 1
    """Remembered; what entered there is a mean of several."""
    FORGOTTEN = 2
    """Entered the model, and was dropped by a stage since, or forgotten."""
    NOT_WORTH = 3
    """Not worth having to the gate."""
    LEFT_OUT = 4
    """Left out by the reducer."""
    MERGED = 5
    """Part of means at other places, by the reducer."""
    WAITS = 6
    """Of a picture that waits for more to come."""


MEANS: tuple[tuple[int, Colour, str], ...] = (
    (2, (255, 226, 92), "kept, a mean of 2 or 3"),
    (4, (255, 150, 30), "kept, a mean of 4 to 7"),
    (8, (235, 60, 40), "kept, a mean of 8 or more"),
)
"""From how many pieces on a mean has an edge of which colour, and what that is called."""
EDGES: dict[Fate, tuple[Colour, str]] = {
    Fate.NOT_WORTH: ((0, 190, 140), "left out by the gate: nothing new"),
    Fate.LEFT_OUT: ((86, 150, 255), "left out by the reducer"),
    Fate.MERGED: ((224, 120, 255), "merged into other pieces"),
}
"""The edge of other places, and what it is called."""
PLAIN: dict[Fate, tuple[Colour, str]] = {
    Fate.KEPT: ((225, 225, 225), "kept as it was"),
    Fate.FORGOTTEN: ((40, 40, 40), "dropped by this stage, or forgotten"),
    Fate.WAITS: ((40, 40, 40), "not read yet"),
}
"""Places without an edge: bright or dark."""
STRIPED: tuple[Colour, str] = ((128, 128, 128), "striped frame: picture left out by the gate")
"""A picture that a gate left out."""


def paint(
    frame: NDArray[np.uint8], fates: NDArray[np.uint8], members: NDArray[np.int64], skipped: bool = False
) -> NDArray[np.uint8]:
    """A frame [height, width, 3] with what became of its places.

    Parameters
    ----------
    frame : NDArray [height, width, 3] of uint8
    fates : NDArray [rows, columns] of uint8
        As `Fate` says.
    members : NDArray [rows, columns] of int64
        Of how many tokens each is a mean.
    skipped : bool
        Whether the gate left the whole frame out: it is framed by stripes.
    """
    height, width = frame.shape[:2]
    rows, columns = fates.shape
    down, across = np.arange(height) * rows // height, np.arange(width) * columns // width
    spread = np.ix_(down, across)
    bright = np.isin(fates, (Fate.KEPT, Fate.MEAN))
    picture = (frame * np.where(bright[spread], 1.0, _DIMMED)[..., None]).astype(np.uint8)
    side = min(height // rows, width // columns)
    marks = [(fates == fate, colour, side // 18) for fate, (colour, _) in EDGES.items()]
    marks += [((fates == Fate.MEAN) & (members >= least), colour, side // 10) for least, colour, _ in MEANS]
    for some, colour, thick in marks:
        edge = _near(down, max(thick, 1))[:, None] | _near(across, max(thick, 1))[None]
        picture[edge & some[spread]] = colour
    return _striped(picture) if skipped else picture


@dataclass(frozen=True, slots=True)
class Key:
    """An entry of a legend: a colour, whether it is an edge, and what it says."""

    colour: Colour
    edge: bool
    said: str


def legend(fates: NDArray[np.uint8], members: NDArray[np.int64]) -> list[Key]:
    """What there is among places [places], of so many members each."""
    keys = [Key(colour, False, said) for fate, (colour, said) in PLAIN.items() if (fates == fate).any()]
    means = np.array([least for least, _, _ in MEANS]).searchsorted(members[fates == Fate.MEAN], "right")
    keys += [Key(colour, True, said) for i, (_, colour, said) in enumerate(MEANS, 1) if (means == i).any()]
    return keys + [Key(colour, True, said) for fate, (colour, said) in EDGES.items() if (fates == fate).any()]


def _near(place: NDArray[np.int64], thick: int) -> NDArray[np.bool_]:
    """Which pixels along a side are so near to where one of its places begins or ends."""
    begins, at = np.flatnonzero(np.diff(place, prepend=-1)), np.arange(len(place))
    run = begins.searchsorted(at, "right") - 1  # a small picture may have no pixel for some of its places
    ends = np.append(begins[1:], len(place)) - 1
    return (at - begins[run] < thick) | (ends[run] - at < thick)


def _striped(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture framed by black and white stripes."""
    height, width = picture.shape[:2]
    thick = max(min(height, width) // 24, 2)
    y, x = np.arange(height)[:, None], np.arange(width)[None]
    frame = (np.minimum(y, height - 1 - y) < thick) | (np.minimum(x, width - 1 - x) < thick)
    stripe = ((x + y) // (2 * thick) % 2).astype(np.uint8) * 255
    return np.where(frame[..., None], stripe[..., None], picture).astype(np.uint8)
