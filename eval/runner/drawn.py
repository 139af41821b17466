"""Frames of an item's video as a run had them: with the places that were forgotten made dark, where its record says so.

Knows videos and records. Refuses to know pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import pdrop_video as pv
from pdrop_video.plots.painting import Fate, paint

from ..stats.record import Moment, Record
from .kept import MOST

SIDE = 360
"""Longest side of a picture, in pixels."""
_INSTANT = 1e-5


def drawn(record: Record, path: Path, start: float = 0.0) -> list[tuple[NDArray[np.uint8], str]]:
    """Pictures and what stands below them: the moments on record, or else evenly spaced ones of what was watched.

    Parameters
    ----------
    record : Record
    path : Path
        Of its video.
    start : float
        Where the part begins that the item is about.

    Raises
    ------
    VideoError
        If the video can't be read.
    """
    told = record.moments or [Moment(float(when), 0) for when in np.linspace(start, max(record.at, start), MOST)]
    frames = _frames(path, [moment.seconds for moment in told])
    return [(_painted(frames[i], moment), _caption(moment)) for i, moment in enumerate(told) if i in frames]


def _frames(path: Path, seconds: Sequence[float]) -> dict[int, NDArray[np.uint8]]:
    """The frame on screen at each of these moments, small, by the number of the moment."""
    times: list[float] = []
    small: list[NDArray[np.uint8]] = []
    with pv.open_video(path, at=sorted(seconds)) as video:
        for chunk in video:
            for frame, when in zip(chunk.frames, chunk.seconds, strict=True):
                picture = Image.fromarray(frame.cpu().numpy())
                picture.thumbnail((SIDE, SIDE))
                times.append(when)
                small.append(np.asarray(picture))
    at = [int(np.searchsorted(times, second + _INSTANT, "right")) - 1 for second in seconds]
    return {number: small[max(index, 0)] for number, index in enumerate(at) if small}


def _painted(frame: NDArray[np.uint8], moment: Moment) -> NDArray[np.uint8]:
    kept = moment.kept
    if kept is None:
        return frame
    fates = np.where(kept, Fate.KEPT, Fate.FORGOTTEN).astype(np.uint8)
    return paint(frame, fates, np.ones(kept.shape, np.int64))


def _caption(moment: Moment) -> str:
    said = f"{moment.seconds:.1f} s"
    if moment.tokens:
        said += f": {moment.tokens} tokens"
    return said if moment.weight is None else f"{said}, {moment.weight:.1%} of the attention"
